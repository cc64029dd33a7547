//! `#[main]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{ItemFn, Result};

use crate::tokens::{Mistakes, as_generated};

/// The entry, or the errors and an empty function in its place.
pub(crate) fn expand(options: &TokenStream, function: &ItemFn) -> TokenStream {
    check(options, function).map_or_else(
        |error| {
            let error = error.into_compile_error();
            let (vis, ident) = (&function.vis, &function.sig.ident);
            quote!(#error #vis fn #ident() {})
        },
        |()| generate(function),
    )
}

fn check(options: &TokenStream, function: &ItemFn) -> Result<()> {
    let signature = &function.sig;
    let mut mistakes = Mistakes::default();
    if !options.is_empty() {
        mistakes.at(options, "`#[roadshow::main]` takes no options: remove this");
    }
    if signature.asyncness.is_none() {
        mistakes.at(signature.fn_token, "`#[roadshow::main]` runs an async function: write `async fn`");
    }
    if !signature.generics.params.is_empty() {
        mistakes.at(&signature.generics, "the entry of a program cannot be generic: use concrete types");
    }
    if !signature.inputs.is_empty() {
        let text = "the entry of a program takes no arguments: read `std::env::args()` inside";
        mistakes.at(&signature.inputs, text);
    }
    mistakes.or(())
}

/// The user's function, nested in a plain one of its name that diverts workers first.
///
/// Nesting keeps the signature, so that the compiler's messages about the result stay the user's.
fn generate(function: &ItemFn) -> TokenStream {
    let ItemFn { attrs, vis, sig, block } = function;
    let (ident, output) = (&sig.ident, &sig.output);
    let inner = as_generated(sig);
    quote! {
        #(#attrs)*
        #vis fn #ident() #output {
            #inner #block
            ::roadshow::divert();
            ::roadshow::__private::block_on(#ident())
        }
    }
}

#[cfg(test)]
mod tests {
    use syn::parse_quote;

    use super::*;

    #[track_caller]
    fn refusals(options: &TokenStream, function: &ItemFn) -> Vec<String> {
        let refused = check(options, function).err();
        refused.into_iter().flat_map(syn::Error::into_iter).map(|error| error.to_string()).collect()
    }

    #[test]
    fn every_mistake_is_reported_at_once() {
        let refused = refusals(
            &quote!(threads),
            &parse_quote!(
                fn main<T>(arguments: T) {}
            ),
        );
        assert_eq!(refused.len(), 4, "{refused:?}");
    }

    #[test]
    fn the_result_type_and_the_name_are_free() {
        let function = parse_quote!(
            pub async fn entry() -> Result<(), std::fmt::Error> {
                Ok(())
            }
        );
        assert!(refusals(&TokenStream::new(), &function).is_empty());
    }
}
