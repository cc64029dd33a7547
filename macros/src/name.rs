//! The names that both sides know things by.
//!
//! Within a crate the path of the module and the identifier are unique, but for what stands in the bodies
//! of functions: `module_path!` ends at the module. Of such items the place in the source becomes part of
//! the name, `app::shop::{12:5}::Add`, the same in every build of the same source. Names of items of
//! modules do not change when lines are added above them.
//!
//! A macro does not see what surrounds an item; the compiler finds it out. Beside the item stands a marker.
//! Where a glob import of the module finds the marker, the item is the module's.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use proc_macro2::TokenStream;
use quote::{ToTokens, format_ident, quote};
use syn::ext::IdentExt;
use syn::{Ident, LitStr};

use crate::tokens::ident_at;

/// The name of a type that is registered.
pub(crate) struct Naming {
    /// The value of `NAME`.
    pub(crate) name: TokenStream,
    /// An item that has to stand beside the type.
    pub(crate) marker: Option<TokenStream>,
}

impl Naming {
    /// The name that the user gave, or the path of `item`, which is or belongs to the type `ty`. A type may
    /// have a name of each `kind`.
    pub(crate) fn of(kind: &str, given: Option<&LitStr>, ty: &Ident, item: &Ident) -> Self {
        if let Some(given) = given {
            return Self { name: given.to_token_stream(), marker: None };
        }
        let marker = format_ident!("__roadshow_{kind}_{}", ty.unraw());
        let marker = ident_at(&marker, ty.span());
        let path = path_of(item);
        let (place, item) = (place_of(item), item.unraw().to_string());
        let name = quote! {{
            struct __RoadshowProbe<T>(::core::marker::PhantomData<T>);
            impl __RoadshowProbe<#marker> {
                const IS_OF_MODULE: ::core::primitive::bool = true;
            }
            trait __RoadshowElse {
                const IS_OF_MODULE: ::core::primitive::bool = false;
            }
            impl<T> __RoadshowElse for __RoadshowProbe<T> {}
            const IS_OF_MODULE: ::core::primitive::bool = {
                // What the glob import finds comes before this.
                struct #marker;
                {
                    use self::*;
                    __RoadshowProbe::<#marker>::IS_OF_MODULE
                }
            };
            match IS_OF_MODULE {
                true => #path,
                false => ::core::concat!(::core::module_path!(), "::", #place, "::", #item),
            }
        }};
        Self { name, marker: Some(quote!(#[doc(hidden)] struct #marker;)) }
    }
}

/// The path of an item of a module.
pub(crate) fn path_of(item: &Ident) -> TokenStream {
    let item = item.unraw().to_string();
    quote!(::core::concat!(::core::module_path!(), "::", #item))
}

/// Where an item stands: line and column. What a macro of the user repeats stands at one place, and is
/// numbered in the order in which the compiler expands it.
fn place_of(item: &Ident) -> String {
    static REPEATED: Mutex<Option<HashMap<String, u32>>> = Mutex::new(None);
    let place = match proc_macro::is_available() {
        true => format!("{}:{}", item.span().unwrap().line(), item.span().unwrap().column()),
        false => String::new(),
    };
    let mut repeated = REPEATED.lock().unwrap_or_else(PoisonError::into_inner);
    let count = repeated.get_or_insert_default().entry(format!("{item} {place}")).or_default();
    let number = std::mem::replace(count, *count + 1);
    if number == 0 { format!("{{{place}}}") } else { format!("{{{place}#{number}}}") }
}
