//! Attribute `#[main]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::parse::Parser;
use syn::{ItemFn, Path, Result};

use crate::options::read_crate;
use crate::tokens::{Mistakes, as_generated, crate_path};

/// Expands to the entry, or to the errors and an empty function.
pub(crate) fn expand(options: &TokenStream, function: &ItemFn) -> TokenStream {
    check(options, function).map_or_else(
        |error| {
            let error = error.into_compile_error();
            let (vis, ident) = (&function.vis, &function.sig.ident);
            quote!(#error #vis fn #ident() {})
        },
        |krate| generate(&crate_path(krate.as_ref()), function),
    )
}

fn check(options: &TokenStream, function: &ItemFn) -> Result<Option<Path>> {
    let signature = &function.sig;
    let mut mistakes = Mistakes::default();
    let krate = mistakes.keep(read(options)).flatten();
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
    mistakes.or(krate)
}

/// Reads the only option: the path of the crate.
fn read(options: &TokenStream) -> Result<Option<Path>> {
    let mut krate = None;
    let parser = syn::meta::parser(|meta| {
        if meta.path.is_ident("crate") {
            return read_crate(&meta, &mut krate);
        }
        Err(meta.error("unknown option; `#[roadshow::main]` takes `crate = path` alone: remove this"))
    });
    parser.parse2(options.clone())?;
    Ok(krate)
}

/// Nests the user's function in a plain one of its name, which runs workers first.
///
/// Nesting preserves the signature, so that the compiler's errors about the result point at the user's
/// code.
fn generate(krate: &TokenStream, function: &ItemFn) -> TokenStream {
    let ItemFn { attrs, vis, sig, block } = function;
    let (ident, output) = (&sig.ident, &sig.output);
    let inner = as_generated(sig);
    quote! {
        #(#attrs)*
        #vis fn #ident() #output {
            #inner #block
            // Before the body, since a worker must not run any code of the user's `main`.
            #krate::run_if_worker();
            #krate::__private::block_on(#ident())
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
    fn all_mistakes_are_reported_together() {
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
