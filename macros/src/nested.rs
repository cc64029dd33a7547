//! Schemas of the types that a declaration names.
//!
//! Only the compiler knows which of them have a schema. The macro therefore generates a query for every
//! path in the position of a type, at any depth, which the module `registry::schema` of `roadshow`
//! resolves.

use std::collections::HashSet;

use proc_macro2::TokenStream;
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Expr, GenericArgument, Type, TypePath};

use crate::tokens::{as_generated, compact, generated_at};

/// Generates the function `collect_schemas` of a trait with a schema; nothing if there is no type to
/// query.
pub(crate) fn parts<'a>(krate: &TokenStream, types: impl IntoIterator<Item = &'a Type>) -> TokenStream {
    let mut named = Named::default();
    types.into_iter().for_each(|ty| named.visit_type(ty));
    if named.paths.is_empty() {
        return TokenStream::new();
    }
    // Types without a schema are queried, too: only the compiler can tell them apart.
    let queries = named.paths.into_iter().map(|path| query(krate, path));
    quote! {
        fn collect_schemas(parts: &mut #krate::__private::schema::SchemaCollector) {
            use #krate::__private::schema::{Described as _, Opaque as _};
            #(#queries)*
        }
    }
}

/// Generates the query for a type; an error points at the type.
fn query(krate: &TokenStream, path: &TypePath) -> TokenStream {
    let ty = as_generated(path);
    quote_spanned!(generated_at(path.span())=>
        // Method lookup selects `Described` if it applies, and adds a reference for `Opaque` otherwise.
        (&#krate::__private::schema::Probe::<#ty>::new()).describe(parts);
    )
}

/// Collector of the paths that name types, without duplicates.
#[derive(Default)]
struct Named<'ast> {
    written: HashSet<String>,
    paths: Vec<&'ast TypePath>,
}

impl<'ast> Visit<'ast> for Named<'ast> {
    fn visit_type(&mut self, ty: &'ast Type) {
        match ty {
            // Values of these are not serializable, and their lifetimes may be known only within them.
            Type::TraitObject(_) | Type::BareFn(_) | Type::ImplTrait(_) => return,
            Type::Path(path) if self.written.insert(compact(path.to_token_stream())) => self.paths.push(path),
            _ => {}
        }
        visit::visit_type(self, ty);
    }

    fn visit_generic_argument(&mut self, argument: &'ast GenericArgument) {
        if !is_constant(argument) {
            visit::visit_generic_argument(self, argument);
        }
    }

    /// Skips expressions: the length of an array is not a type, whatever it contains.
    fn visit_expr(&mut self, _: &'ast Expr) {}
}

/// True if an argument must be treated as a constant, because of its capitals.
///
/// `ROWS` could be a type, against all convention. But a query for a constant is a compile error, while a
/// type without a query is only not compared.
fn is_constant(argument: &GenericArgument) -> bool {
    let GenericArgument::Type(Type::Path(TypePath { qself: None, path })) = argument else {
        return false;
    };
    path.segments
        .last()
        .is_some_and(|last| last.arguments.is_none() && !last.ident.to_string().contains(char::is_lowercase))
}

#[cfg(test)]
mod tests {
    use syn::parse_quote;

    use super::*;

    #[track_caller]
    fn check(ty: &Type, expected: &[&str]) {
        let mut named = Named::default();
        named.visit_type(ty);
        let found = named.paths.into_iter().map(|path| compact(path.to_token_stream()));
        assert_eq!(found.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn types_are_found_at_every_depth() {
        check(
            &parse_quote!(Vec<(a::B, [Option<Item>; 2])>),
            &["Vec<(a::B,[Option<Item>;2])>", "a::B", "Option<Item>", "Item"],
        );
        check(&parse_quote!(<r#type::A as B<Item>>::D), &["<r#type::A as B<Item>>::D", "r#type::A", "Item"]);
        check(&parse_quote!(&'static mut [A]), &["A"]);
    }

    #[test]
    fn a_type_is_queried_once() {
        check(&parse_quote!((Item, Vec<Item>, Vec<Item>)), &["Item", "Vec<Item>"]);
    }

    #[test]
    fn constants_and_unserializable_types_are_not_queried() {
        check(&parse_quote!(Matrix<f64, ROWS, { COLUMNS }, 3>), &["Matrix<f64,ROWS,{COLUMNS},3>", "f64"]);
        check(&parse_quote!([A; size_of::<B>() as usize]), &["A"]);
        check(
            &parse_quote!(Box<dyn for<'a> Fn(&'a A) -> Cow<'a, str>>),
            &["Box<dyn for<'a>Fn(&'a A)->Cow<'a,str>>"],
        );
        check(&parse_quote!(PhantomData<fn() -> A>), &["PhantomData<fn()->A>"]);
    }

    #[test]
    fn a_declaration_without_types_has_no_query() {
        let krate = quote!(::roadshow);
        assert!(parts(&krate, []).is_empty());
        assert!(parts(&krate, [&parse_quote!(())]).is_empty());
    }
}
