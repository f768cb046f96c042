//! `#[derive(Provide)]`.

use std::collections::HashMap;

use proc_macro2::TokenStream;
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Field, Fields, LitStr, Member, Result, Token, Type};

/// How one field is provided.
enum How {
    Skip,
    Clone,
    As(Type),
    Delegate(Vec<Type>),
}

fn how(field: &Field) -> Result<How> {
    let mut how = How::Clone;
    for attribute in field.attrs.iter().filter(|attribute| attribute.path().is_ident("provide")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("skip") {
                how = How::Skip;
            } else if meta.path.is_ident("as") {
                let target: LitStr = meta.value()?.parse()?;
                how = How::As(target.parse()?);
            } else if meta.path.is_ident("delegate") {
                let list;
                syn::parenthesized!(list in meta.input);
                let types = list.parse_terminated(<Type as syn::parse::Parse>::parse, Token![,])?;
                how = How::Delegate(types.into_iter().collect());
            } else {
                return Err(meta.error(
                    "not an option of `provide`: use `skip`, `as = \"Type\"` or `delegate(Type, ..)`",
                ));
            }
            Ok(())
        })?;
    }
    Ok(how)
}

pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let Data::Struct(data) = &input.data else {
        return Err(syn::Error::new(
            input.span(),
            "only a struct can provide dependencies, one for each field",
        ));
    };
    if matches!(data.fields, Fields::Unit) {
        return Err(syn::Error::new(
            input.span(),
            "this struct has no fields to provide: give it some, or register the jobs on `()`",
        ));
    }
    let ident = &input.ident;
    let (impl_generics, type_generics, where_clause) = input.generics.split_for_impl();
    let mut provided: HashMap<String, Member> = HashMap::new();
    let mut impls = TokenStream::new();
    for (member, field) in data.fields.members().zip(&data.fields) {
        let parts: Vec<(Type, TokenStream)> = match how(field)? {
            How::Skip => continue,
            How::Clone => vec![(field.ty.clone(), quote!(::core::clone::Clone::clone(&self.#member)))],
            How::As(target) => vec![(
                target,
                quote!({
                    let value = ::core::clone::Clone::clone(&self.#member);
                    value
                }),
            )],
            How::Delegate(types) => types
                .into_iter()
                .map(|ty| (ty.clone(), quote!(::windlass::Provide::<#ty>::provide(&self.#member))))
                .collect(),
        };
        for (ty, value) in parts {
            // Said here, in the user's words, before the compiler says it as conflicting implementations.
            let key = ty.to_token_stream().to_string();
            if let Some(first) = provided.insert(key.clone(), member.clone()) {
                let (first, second) = (first.to_token_stream(), member.to_token_stream());
                return Err(syn::Error::new(
                    field.span(),
                    format!(
                        "the fields `{first}` and `{second}` both provide `{}`: wrap one in a type of its own, or mark it \
                         `#[provide(skip)]`",
                        key.replace(" < ", "<").replace(" >", ">").replace(" :: ", "::")
                    ),
                ));
            }
            impls.extend(quote_spanned! {field.span()=>
                #[automatically_derived]
                impl #impl_generics ::windlass::Provide<#ty> for #ident #type_generics #where_clause {
                    fn provide(&self) -> #ty {
                        #value
                    }
                }
            });
        }
    }
    Ok(impls)
}
