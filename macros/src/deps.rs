//! `#[derive(Deps)]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Result};

pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let Data::Struct(data) = &input.data else {
        return Err(syn::Error::new(input.span(), "only a struct can list dependencies, one in each field"));
    };
    if let Some(parameter) = input.generics.params.first() {
        return Err(syn::Error::new(
            parameter.span(),
            "a list of dependencies cannot be generic: name the types",
        ));
    }
    let ident = &input.ident;
    let members: Vec<_> = data.fields.members().collect();
    let types: Vec<_> = data.fields.iter().map(|field| &field.ty).collect();
    Ok(quote! {
        #[automatically_derived]
        impl<__Container: ?Sized #(+ ::windlass::Provide<#types>)*> ::windlass::FromContainer<__Container> for #ident {
            fn from_container(container: &__Container) -> Self {
                let _ = container;
                Self { #(#members: ::windlass::Provide::<#types>::provide(container)),* }
            }
        }
    })
}
