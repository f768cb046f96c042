//! The derives of Windlass: `Job`, `Provide` and `Deps`. Use them through the `windlass` crate, whose traits document them.
//!
//! One file a derive; `time` reads durations such as `"30s"`.

mod deps;
mod job;
mod provide;
mod time;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Implements `windlass::Job` for a payload.
///
/// ```text
/// #[derive(Serialize, Deserialize, Job)]
/// #[job(
///     name = "send_welcome_email",     // required: 1 to 128 bytes of a-z 0-9 _ . -
///     aliases("welcome_email"),        // older names
///     queue = "mail",                  // default "default"
///     version = 2, min_reader = 1,     // default 1 and 1
///     upgrades = &[Upgrade::via::<SendWelcomeEmailV1>(1)],
///     max_attempts = 5,                // default 20
///     retry = Retry::Fixed(seconds(10)),
///     timeout = "30s",                 // ms, s, m, h, d; default none
///     priority = 7,                    // 0 (last) to 9 (first), or a path such as Priority::HIGH
///     output = Receipt,                // default ()
///     unique = Self::unique_by,        // fn(&Self) -> Option<UniqueBy>
///     limit = Self::tenant_limit,      // fn(&Self) -> Option<ConcurrencyLimit>
///     tags = Self::tag_list,           // fn(&Self) -> Vec<String>
/// )]
/// struct SendWelcomeEmail { user_id: u64 }
/// ```
#[proc_macro_derive(Job, attributes(job))]
pub fn derive_job(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    job::expand(&input).unwrap_or_else(|error| error.to_compile_error()).into()
}

/// Implements `windlass::Provide<T>` for a container, once for the type of each field, by `Clone`.
///
/// On a field: `#[provide(skip)]` leaves it out; `#[provide(as = "Arc<dyn Mailer>")]` provides it as another type it
/// coerces to; `#[provide(delegate(Db, Cache))]` provides these types by asking the field, itself a container.
#[proc_macro_derive(Provide, attributes(provide))]
pub fn derive_provide(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    provide::expand(&input).unwrap_or_else(|error| error.to_compile_error()).into()
}

/// Implements `windlass::FromContainer` for a struct of dependencies, so that a handler can name them.
///
/// ```text
/// #[derive(Deps)]
/// struct MailDeps { users: Users, mailer: Mailer }
/// ```
#[proc_macro_derive(Deps)]
pub fn derive_deps(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    deps::expand(&input).unwrap_or_else(|error| error.to_compile_error()).into()
}
