//! `#[derive(Durable)]`.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{DeriveInput, Ident, Path, Result};

use crate::name::Naming;
use crate::options::{Kind, Options};
use crate::tokens::{as_generated, crate_path, generated_at, ident_at};

pub(crate) fn derive(input: &DeriveInput) -> Result<TokenStream> {
    let options = Options::of(input, Kind::Durable)?;
    let ident = &input.ident;
    let krate = &crate_path(options.krate.as_ref());
    let Naming { name, marker } = Naming::of("durable", options.name.as_ref(), ident, ident);
    let decisions = options.handles.iter().map(|message| decision(krate, ident, message));
    let actor = actor(krate, ident);
    Ok(quote! {
        #marker
        #[automatically_derived]
        impl #krate::DurableState for #ident {
            const NAME: &'static ::core::primitive::str = #name;
        }
        #actor
        #(#decisions)*
    })
}

/// Registers the actor that runs the state; an error points at the state's name.
fn actor(krate: &TokenStream, state: &Ident) -> TokenStream {
    quote_spanned! {generated_at(state.span())=>
        #krate::__private::inventory::submit! {
            #krate::__private::Registration::actor::<#krate::DurableActor<#state>>()
        }
        #krate::__private::inventory::submit! {
            #krate::__private::SpawnRegistration::of::<#krate::DurableActor<#state>>()
        }
    }
}

/// Registers the decision about one message; an error points at the message in the list.
fn decision(krate: &TokenStream, state: &Ident, message: &Path) -> TokenStream {
    let span = generated_at(message.span());
    let (state, message) = (ident_at(state, message.span()), as_generated(message));
    quote_spanned! {span=>
        #krate::__private::inventory::submit! {
            #krate::__private::durable_handler::<#state, #message>()
        }
        #krate::__private::inventory::submit! {
            #krate::__private::OutboxRegistration::of::<#state, #message>()
        }
    }
}
