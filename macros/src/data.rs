//! Derive macro `RemoteData`: a type's name and its shape as written.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::ext::IdentExt;
use syn::{Attribute, Data, DeriveInput, Error, Field, Fields, Result, Type, Variant};

use crate::name::path_of;
use crate::nested;
use crate::options::{Kind, Options};
use crate::tokens::{compact, crate_path};

pub(crate) fn derive(input: &DeriveInput) -> Result<TokenStream> {
    let options = Options::of(input, Kind::Data)?;
    let schema = schema(input)?;
    let ident = &input.ident;
    let krate = &crate_path(options.krate.as_ref());
    // Types in two functions may share a name; their schemas are then compared as a set.
    let name = options.name.as_ref().map_or_else(|| path_of(ident), ToTokens::to_token_stream);
    let parts = nested::parts(krate, types(input));
    Ok(quote! {
        #[automatically_derived]
        impl #krate::RemoteData for #ident {
            const NAME: &'static ::core::primitive::str = #name;
            const SCHEMA: &'static ::core::primitive::str = #schema;
            #parts
        }
    })
}

/// Shape of a type with everything that changes its bytes: order, names, types, and serde's attributes.
pub(crate) fn schema(input: &DeriveInput) -> Result<String> {
    // serde drops the `r#` of a raw identifier as well.
    let ident = input.ident.unraw();
    let attributes = serde_attributes(&input.attrs);
    match &input.data {
        Data::Struct(data) => Ok(format!("{attributes}struct {ident}{}", fields(&data.fields))),
        Data::Enum(data) => Ok(format!("{attributes}enum {ident}{{{}}}", list(&data.variants, variant))),
        Data::Union(data) => Err(Error::new_spanned(
            data.union_token,
            "a union cannot travel: use an enum, which says what it holds",
        )),
    }
}

/// Types of all fields.
pub(crate) fn types(input: &DeriveInput) -> impl Iterator<Item = &Type> {
    let fields: Vec<&Fields> = match &input.data {
        Data::Struct(data) => vec![&data.fields],
        Data::Enum(data) => data.variants.iter().map(|variant| &variant.fields).collect(),
        Data::Union(_) => Vec::new(),
    };
    fields.into_iter().flatten().map(|field| &field.ty)
}

fn variant(variant: &Variant) -> String {
    format!("{}{}{}", serde_attributes(&variant.attrs), variant.ident.unraw(), fields(&variant.fields))
}

fn fields(fields: &Fields) -> String {
    match fields {
        Fields::Named(fields) => format!("{{{}}}", list(&fields.named, field)),
        Fields::Unnamed(fields) => format!("({})", list(&fields.unnamed, field)),
        Fields::Unit => String::new(),
    }
}

fn field(field: &Field) -> String {
    let name = field.ident.as_ref().map(|ident| format!("{}:", ident.unraw())).unwrap_or_default();
    format!("{}{name}{}", serde_attributes(&field.attrs), compact(field.ty.to_token_stream()))
}

fn serde_attributes(attributes: &[Attribute]) -> String {
    let ours = attributes.iter().filter(|attribute| attribute.path().is_ident("serde"));
    ours.map(|attribute| compact(attribute.to_token_stream())).collect()
}

fn list<'a, T: 'a>(items: impl IntoIterator<Item = &'a T>, show: fn(&T) -> String) -> String {
    items.into_iter().map(show).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use syn::parse_quote;

    use super::*;

    #[track_caller]
    fn check(input: &DeriveInput, expected: &str) {
        assert_eq!(schema(input).unwrap(), expected);
    }

    #[test]
    fn structs_show_fields_and_types_in_order() {
        check(
            &parse_quote!(
                struct Unit;
            ),
            "struct Unit",
        );
        check(
            &parse_quote!(
                struct Pair(u8, Vec<(u8, String)>);
            ),
            "struct Pair(u8,Vec<(u8,String)>)",
        );
        check(
            &parse_quote!(
                struct Named {
                    r#type: [u8; 4],
                    next: Option<Box<Named>>,
                }
            ),
            "struct Named{type:[u8;4],next:Option<Box<Named>>}",
        );
    }

    #[test]
    fn enums_show_each_variant() {
        check(
            &parse_quote!(
                enum Shape {
                    Dot,
                    Line(f32),
                    Box { w: f32, h: f32 },
                }
            ),
            "enum Shape{Dot,Line(f32),Box{w:f32,h:f32}}",
        );
    }

    #[test]
    fn words_do_not_run_together() {
        check(
            &parse_quote!(
                struct S(Box<dyn Fn(&'static mut u8) -> Result<u8, ()>>, std::borrow::Cow<'static, str>);
            ),
            "struct S(Box<dyn Fn(&'static mut u8)->Result<u8,()>>,std::borrow::Cow<'static,str>)",
        );
    }

    #[test]
    fn serde_attributes_are_part_of_the_shape_and_docs_are_not() {
        check(
            &parse_quote! {
                /// Documented.
                #[serde(rename_all = "kebab-case")]
                struct S { #[serde(skip)] a: u8, #[allow(unused)] b: u8 }
            },
            "#[serde(rename_all=\"kebab-case\")]struct S{#[serde(skip)]a:u8,b:u8}",
        );
    }

    #[test]
    fn a_union_is_refused() {
        let union: DeriveInput = parse_quote!(union U { a: u8 });
        assert!(schema(&union).unwrap_err().to_string().contains("use an enum"));
    }
}
