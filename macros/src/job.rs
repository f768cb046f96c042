//! `#[derive(Job)]`.

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::meta::ParseNestedMeta;
use syn::{DeriveInput, Expr, LitInt, LitStr, Result, Token, Type};

#[derive(Default)]
struct Attributes {
    name: Option<LitStr>,
    aliases: Vec<LitStr>,
    queue: Option<LitStr>,
    version: Option<LitInt>,
    min_reader: Option<LitInt>,
    upgrades: Option<Expr>,
    max_attempts: Option<LitInt>,
    retry: Option<Expr>,
    timeout: Option<u64>,
    priority: Option<Expr>,
    output: Option<Type>,
    unique: Option<Expr>,
    limit: Option<Expr>,
    tags: Option<Expr>,
}

const KNOWN: &str = "name, aliases, queue, version, min_reader, upgrades, max_attempts, retry, timeout, priority, output, \
                     unique, limit, tags";

impl Attributes {
    fn read(&mut self, meta: &ParseNestedMeta<'_>) -> Result<()> {
        let key = meta.path.get_ident().map(ToString::to_string).unwrap_or_default();
        let once = |taken: bool| {
            if taken { Err(meta.error(format!("`{key}` is given twice"))) } else { Ok(()) }
        };
        match key.as_str() {
            "name" => {
                once(self.name.is_some())?;
                self.name = Some(legal_name(meta.value()?.parse()?, "job name")?);
            }
            "queue" => {
                once(self.queue.is_some())?;
                self.queue = Some(legal_name(meta.value()?.parse()?, "queue name")?);
            }
            "aliases" => {
                let list;
                syn::parenthesized!(list in meta.input);
                for alias in list.parse_terminated(<LitStr as syn::parse::Parse>::parse, Token![,])? {
                    self.aliases.push(legal_name(alias, "alias")?);
                }
            }
            "version" => {
                once(self.version.is_some())?;
                self.version = Some(number(meta, 1, u64::from(u16::MAX))?);
            }
            "min_reader" => {
                once(self.min_reader.is_some())?;
                self.min_reader = Some(number(meta, 1, u64::from(u16::MAX))?);
            }
            "max_attempts" => {
                once(self.max_attempts.is_some())?;
                self.max_attempts = Some(number(meta, 1, 10_000)?);
            }
            "timeout" => {
                once(self.timeout.is_some())?;
                self.timeout = Some(crate::time::millis(&meta.value()?.parse()?)?);
            }
            "upgrades" => self.upgrades = Some(meta.value()?.parse()?),
            "retry" => self.retry = Some(meta.value()?.parse()?),
            "priority" => self.priority = Some(meta.value()?.parse()?),
            "output" => self.output = Some(meta.value()?.parse()?),
            "unique" => self.unique = Some(meta.value()?.parse()?),
            "limit" => self.limit = Some(meta.value()?.parse()?),
            "tags" => self.tags = Some(meta.value()?.parse()?),
            _ => return Err(meta.error(format!("`{key}` is not an option of a job: use one of {KNOWN}"))),
        }
        Ok(())
    }
}

fn number(meta: &ParseNestedMeta<'_>, least: u64, most: u64) -> Result<LitInt> {
    let literal: LitInt = meta.value()?.parse()?;
    match literal.base10_parse::<u64>() {
        Ok(n) if (least..=most).contains(&n) => Ok(literal),
        _ => Err(syn::Error::new(literal.span(), format!("out of range: use {least} to {most}"))),
    }
}

/// The rule of names, as `windlass_core` checks it at run time: here it points at the literal.
fn legal_name(literal: LitStr, what: &str) -> Result<LitStr> {
    let name = literal.value();
    let starts_well = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    let rest = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '.' | '-');
    if name.len() <= 128 && starts_well && name.chars().all(rest) {
        return Ok(literal);
    }
    Err(syn::Error::new(
        literal.span(),
        format!(
            "this {what} is not legal: use 1 to 128 bytes of a-z, 0-9, '_', '.', '-', beginning with a letter or a digit"
        ),
    ))
}

/// What a name would look like for a type: a suggestion, never a default.
fn snake_case(type_name: &str) -> String {
    let mut name = String::new();
    for (at, c) in type_name.char_indices() {
        if c.is_ascii_uppercase() && at > 0 {
            name.push('_');
        }
        name.push(c.to_ascii_lowercase());
    }
    name
}

pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let mut attributes = Attributes::default();
    for attribute in input.attrs.iter().filter(|attribute| attribute.path().is_ident("job")) {
        attribute.parse_nested_meta(|meta| attributes.read(&meta))?;
    }
    let ident = &input.ident;
    let Some(name) = &attributes.name else {
        return Err(syn::Error::new(
            Span::call_site(),
            format!(
                "a job needs a stable name, which is stored: add `#[job(name = \"{}\")]`",
                snake_case(&ident.to_string())
            ),
        ));
    };
    let output = attributes.output.map_or_else(|| quote!(()), |output| quote!(#output));
    let aliases = &attributes.aliases;
    let aliases =
        (!aliases.is_empty()).then(|| quote! { const ALIASES: &'static [&'static str] = &[#(#aliases),*]; });
    let queue = attributes.queue.map(|queue| quote! { const QUEUE: &'static str = #queue; });
    let version = attributes.version.map(|version| quote! { const VERSION: u16 = #version; });
    let min_reader = attributes.min_reader.map(|min| quote! { const MIN_READER: u16 = #min; });
    let upgrades = attributes.upgrades.map(|upgrades| {
        quote! { const UPGRADES: &'static [::windlass::Upgrade<Self>] = #upgrades; }
    });
    let attempts = attributes.max_attempts.map(|n| quote! { const MAX_ATTEMPTS: u16 = #n; });
    let retry = attributes.retry.map(|retry| quote! { const RETRY: ::windlass::Retry = #retry; });
    let timeout = attributes.timeout.map(|millis| {
        quote! {
            const TIMEOUT: ::core::option::Option<::core::time::Duration> =
                ::core::option::Option::Some(::core::time::Duration::from_millis(#millis));
        }
    });
    let priority = attributes.priority.map(|priority| {
        let level = match &priority {
            Expr::Lit(literal) => quote!(::windlass::Priority::level(#literal)),
            other => quote!(#other),
        };
        quote! { const PRIORITY: ::windlass::Priority = #level; }
    });
    let unique = attributes.unique.map(|unique| {
        quote! {
            fn unique(&self) -> ::core::option::Option<::windlass::UniqueBy> {
                (#unique)(self)
            }
        }
    });
    let limit = attributes.limit.map(|limit| {
        quote! {
            fn limit(&self) -> ::core::option::Option<::windlass::ConcurrencyLimit> {
                (#limit)(self)
            }
        }
    });
    let tags = attributes.tags.map(|tags| {
        quote! {
            fn tags(&self) -> ::std::vec::Vec<::std::string::String> {
                (#tags)(self)
            }
        }
    });
    let (impl_generics, type_generics, where_clause) = input.generics.split_for_impl();
    Ok(quote! {
        #[automatically_derived]
        impl #impl_generics ::windlass::Job for #ident #type_generics #where_clause {
            type Output = #output;
            const NAME: &'static str = #name;
            #aliases
            #queue
            #version
            #min_reader
            #upgrades
            #attempts
            #retry
            #timeout
            #priority
            #unique
            #limit
            #tags
        }
    })
}
