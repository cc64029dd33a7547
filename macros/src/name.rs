//! Names by which both sides know actors, messages and tasks.
//!
//! Within a crate, module path and identifier are unique, except in the bodies of functions:
//! `module_path!` ends at the module. The name of such an item includes its source position, as in
//! `app::shop::{12:5}::Add`, the same in every build of the same source. Names of items in modules do not
//! change when lines are added above them.
//!
//! A macro does not see the surroundings of an item, so the compiler decides: the macro adds a marker
//! beside the item. If a glob import of the module finds the marker, the item belongs to the module.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use proc_macro2::TokenStream;
use quote::{ToTokens, format_ident, quote};
use syn::ext::IdentExt;
use syn::{Ident, LitStr};

use crate::tokens::ident_at;

/// Name of a registered type.
pub(crate) struct Naming {
    /// Value of `NAME`.
    pub(crate) name: TokenStream,
    /// Item that must be added beside the type.
    pub(crate) marker: Option<TokenStream>,
}

impl Naming {
    /// The user's name, or the path of `item`, which is or belongs to the type `ty`.
    ///
    /// A type may have a name of each `kind`.
    pub(crate) fn of(kind: &str, given: Option<&LitStr>, ty: &Ident, item: &Ident) -> Self {
        if let Some(given) = given {
            return Self { name: given.to_token_stream(), marker: None };
        }
        let marker = format_ident!("__roadshow_{kind}_{}", ty.unraw());
        let marker = ident_at(&marker, ty.span());
        let path = path_of(item);
        let (position, item) = (position_of(item), item.unraw().to_string());
        let name = quote! {{
            // An inherent constant takes precedence over that of a trait. The inherent one exists only
            // for the marker beside the item, so the probe tells which marker the glob import has
            // found.
            struct __RoadshowProbe<T>(::core::marker::PhantomData<T>);
            impl __RoadshowProbe<#marker> {
                const IS_OF_MODULE: ::core::primitive::bool = true;
            }
            trait __RoadshowElse {
                const IS_OF_MODULE: ::core::primitive::bool = false;
            }
            impl<T> __RoadshowElse for __RoadshowProbe<T> {}
            const IS_OF_MODULE: ::core::primitive::bool = {
                // The result of the glob import takes precedence over this.
                struct #marker;
                {
                    use self::*;
                    __RoadshowProbe::<#marker>::IS_OF_MODULE
                }
            };
            match IS_OF_MODULE {
                true => #path,
                false => ::core::concat!(::core::module_path!(), "::", #position, "::", #item),
            }
        }};
        Self { name, marker: Some(quote!(#[doc(hidden)] struct #marker;)) }
    }
}

/// Path of an item in a module.
pub(crate) fn path_of(item: &Ident) -> TokenStream {
    let item = item.unraw().to_string();
    quote!(::core::concat!(::core::module_path!(), "::", #item))
}

/// Source position of an item: line and column.
///
/// Items that a user's macro repeats have the same position, and are numbered in the order of their
/// expansion.
fn position_of(item: &Ident) -> String {
    static REPEATED: Mutex<Option<HashMap<String, u32>>> = Mutex::new(None);
    let position = match proc_macro::is_available() {
        true => format!("{}:{}", item.span().unwrap().line(), item.span().unwrap().column()),
        false => String::new(),
    };
    let mut repeated = REPEATED.lock().unwrap_or_else(PoisonError::into_inner);
    let count = repeated.get_or_insert_default().entry(format!("{item} {position}")).or_default();
    let number = std::mem::replace(count, *count + 1);
    if number == 0 { format!("{{{position}}}") } else { format!("{{{position}#{number}}}") }
}
