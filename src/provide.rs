//! Where dependencies come from: a plain struct that provides each of them, checked by the compiler.
//!
//! A handler lists what it needs in [`Handler::Deps`](crate::Handler::Deps). Registering it demands that the container
//! provides every one; the compiler names the one that is missing.

/// A container that can hand out a `T`.
///
/// Derive it on the struct that holds your application's parts: each field becomes a dependency, handed out by `Clone`.
/// Hand out pools and clients, not connections: `provide` is called for every run and must be quick and infallible.
///
/// ```
/// use windlass::prelude::*;
///
/// #[derive(Clone)]
/// struct Users;
/// #[derive(Clone)]
/// struct Mailer;
///
/// #[derive(Clone, Provide)]
/// struct App {
///     users: Users,
///     mailer: Mailer,
/// }
/// # let app = App { users: Users, mailer: Mailer };
/// # let _: Mailer = app.provide();
/// # let _: Users = app.provide();
/// ```
#[diagnostic::on_unimplemented(
    message = "the container `{Self}` does not provide `{T}`",
    label = "`{Self}` is missing the dependency `{T}`",
    note = "add a field of type `{T}` to `{Self}` and `#[derive(Provide)]`, or write `impl Provide<{T}> for {Self}`"
)]
pub trait Provide<T> {
    /// Hands one out.
    fn provide(&self) -> T;
}

/// What a handler needs, taken from a container: tuples of up to twelve dependencies, and structs with
/// `#[derive(Deps)]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be used as a job's `Deps`",
    label = "not a list of dependencies",
    note = "write `({Self},)` for one dependency, a tuple for several, or a struct with `#[derive(Deps)]`"
)]
pub trait FromContainer<C: ?Sized>: Sized {
    /// Takes everything from the container.
    fn from_container(container: &C) -> Self;
}

macro_rules! tuples {
    ($($name:ident)*) => {
        impl<C: ?Sized $(+ Provide<$name>)*, $($name),*> FromContainer<C> for ($($name,)*) {
            #[allow(unused_variables, clippy::unused_unit, reason = "the empty tuple needs nothing")]
            fn from_container(container: &C) -> Self {
                ($(Provide::<$name>::provide(container),)*)
            }
        }
    };
}

tuples!();
tuples!(T1);
tuples!(T1 T2);
tuples!(T1 T2 T3);
tuples!(T1 T2 T3 T4);
tuples!(T1 T2 T3 T4 T5);
tuples!(T1 T2 T3 T4 T5 T6);
tuples!(T1 T2 T3 T4 T5 T6 T7);
tuples!(T1 T2 T3 T4 T5 T6 T7 T8);
tuples!(T1 T2 T3 T4 T5 T6 T7 T8 T9);
tuples!(T1 T2 T3 T4 T5 T6 T7 T8 T9 T10);
tuples!(T1 T2 T3 T4 T5 T6 T7 T8 T9 T10 T11);
tuples!(T1 T2 T3 T4 T5 T6 T7 T8 T9 T10 T11 T12);
