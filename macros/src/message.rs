//! Derive macro `RemoteMessage`.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote, quote_spanned};
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned;
use syn::{Attribute, DeriveInput, Error, Ident, LitStr, Result, Token, Type};

use crate::data;
use crate::name::Naming;
use crate::nested;
use crate::options::{Kind, Options};
use crate::tokens::{as_generated, compact, crate_path, generated_at};

pub(crate) fn derive(input: &DeriveInput) -> Result<TokenStream> {
    let options = Options::of(input, Kind::Message)?;
    let ident = &input.ident;
    let krate = &crate_path(options.krate.as_ref());
    let Naming { name, marker } = Naming::of("message", options.name.as_ref(), ident, ident);
    // The compiler reports an unserializable result at the impl, so the span is that of the result.
    let rtype = rtype(input);
    if let (Some(given), Some(_)) = (&options.result, rtype) {
        let text = "the result is given twice: `#[rtype(..)]` is for actix's derive of `Message`, \
                    and `result = Type` is instead of it";
        return Err(Error::new_spanned(given, text));
    }
    // An error about the result should point at the place where the user wrote it.
    let span = match (&options.result, rtype) {
        (Some(given), _) => given.span(),
        (None, Some(attribute)) => attribute.bracket_token.span.join(),
        (None, None) => ident.span(),
    };
    let message = options.result.as_ref().map(|result| message(krate, ident, result));
    let result = options.result.or_else(|| rtype.and_then(result_type));
    let schema = schema(input, result.as_ref())?;
    let parts = nested::parts(krate, data::types(input).chain(&result));
    Ok(quote_spanned! {generated_at(span)=>
        #marker
        #message
        #[automatically_derived]
        impl #krate::RemoteMessage for #ident {
            const NAME: &'static ::core::primitive::str = #name;
            const SCHEMA: &'static ::core::primitive::str = #schema;
            #parts
        }
    })
}

/// Implements actix's own trait, for a program without a dependency `actix` to derive it from.
fn message(krate: &TokenStream, ident: &Ident, result: &Type) -> TokenStream {
    let result = as_generated(result);
    quote! {
        #[automatically_derived]
        impl #krate::__private::actix::Message for #ident {
            type Result = #result;
        }
    }
}

/// The message as written, and its result.
///
/// Without the attribute, actix's `Message` is implemented by hand and the result is unknown here.
fn schema(input: &DeriveInput, result: Option<&Type>) -> Result<String> {
    let result = result.map(|ty| format!(" -> {}", compact(ty.to_token_stream())));
    Ok(data::schema(input)? + &result.unwrap_or_default())
}

fn rtype(input: &DeriveInput) -> Option<&Attribute> {
    input.attrs.iter().find(|attribute| attribute.path().is_ident("rtype"))
}

/// Result type in actix's attribute; `None` if actix will report an error for it.
fn result_type(rtype: &Attribute) -> Option<Type> {
    rtype.parse_args().map(|ResultType(ty)| ty).ok()
}

/// Result in each form that actix accepts: `result = ".."`, `result = Type`, and either without `result
/// =`.
struct ResultType(Type);

impl Parse for ResultType {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        // The key is not checked: actix's derive reports a wrong one.
        if input.peek2(Token![=]) {
            input.parse::<Ident>()?;
            input.parse::<Token![=]>()?;
        }
        let ty = if input.peek(LitStr) { input.parse::<LitStr>()?.parse() } else { input.parse() };
        ty.map(Self)
    }
}

#[cfg(test)]
mod tests {
    use syn::parse_quote;

    use super::*;

    #[track_caller]
    fn check(input: &DeriveInput, expected: &str) {
        let result = rtype(input).and_then(result_type);
        assert_eq!(schema(input, result.as_ref()).unwrap(), expected);
    }

    #[test]
    fn a_message_is_shown_with_its_result() {
        check(
            &parse_quote! {
                #[rtype(result = "Result < Vec<u8>, std::io::Error >")]
                #[serde(rename = "a b")]
                struct Read { r#type: u8 }
            },
            "#[serde(rename=\"a b\")]struct Read{type:u8} -> Result<Vec<u8>,std::io::Error>",
        );
    }

    #[test]
    fn a_result_is_found_in_every_form_that_actix_accepts() {
        check(
            &parse_quote!(
                #[rtype(result = "u8")]
                struct M;
            ),
            "struct M -> u8",
        );
        check(
            &parse_quote!(
                #[rtype(result = a::B)]
                struct M;
            ),
            "struct M -> a::B",
        );
        check(
            &parse_quote!(
                #[rtype("u8")]
                struct M;
            ),
            "struct M -> u8",
        );
        check(
            &parse_quote!(
                #[rtype(u8)]
                struct M;
            ),
            "struct M -> u8",
        );
    }

    #[test]
    fn without_a_result_the_message_alone_is_shown() {
        check(
            &parse_quote!(
                struct M(u8);
            ),
            "struct M(u8)",
        );
        check(
            &parse_quote!(
                #[rtype(result = "?")]
                struct M(u8);
            ),
            "struct M(u8)",
        );
    }
}
