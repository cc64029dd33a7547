//! `#[derive(RemoteMessage)]`.

use proc_macro2::TokenStream;
use quote::quote_spanned;
use syn::{DeriveInput, Result};

use crate::options::{Kind, Options};
use crate::tokens::{generated_at, name_of};

pub(crate) fn derive(input: &DeriveInput) -> Result<TokenStream> {
    let options = Options::of(input, Kind::Message)?;
    let ident = &input.ident;
    let name = name_of(options.name.as_ref(), ident);
    // The compiler reports a result that cannot travel at the impl: let that be where the result is named.
    let result = input.attrs.iter().find(|attribute| attribute.path().is_ident("rtype"));
    let span = result.map_or_else(|| ident.span(), |attribute| attribute.bracket_token.span.join());
    Ok(quote_spanned! {generated_at(span)=>
        #[automatically_derived]
        impl ::roadshow::RemoteMessage for #ident {
            const NAME: &'static str = #name;
        }
    })
}
