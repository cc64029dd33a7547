//! `#[derive(RemoteActor)]`.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{DeriveInput, Ident, Path, Result};

use crate::name::Naming;
use crate::options::{Kind, Options};
use crate::tokens::{as_generated, crate_path, generated_at, ident_at};

pub(crate) fn derive(input: &DeriveInput) -> Result<TokenStream> {
    let options = Options::of(input, Kind::Actor)?;
    let ident = &input.ident;
    let krate = &crate_path(options.krate.as_ref());
    let Naming { name, marker } = Naming::of("actor", options.name.as_ref(), ident, ident);
    let spawn = if options.local { TokenStream::new() } else { spawn(krate, ident) };
    let deliveries = options.handles.iter().map(|message| delivery(krate, ident, message));
    let context = require_context(krate, ident);
    Ok(quote! {
        #context
        #marker
        #[automatically_derived]
        impl #krate::RemoteActor for #ident {
            const NAME: &'static ::core::primitive::str = #name;
        }
        #[automatically_derived]
        impl #krate::__private::actix::Handler<#krate::__private::ControlMessage> for #ident {
            type Result = ();
            fn handle(
                &mut self,
                control: #krate::__private::ControlMessage,
                ctx: &mut <Self as #krate::__private::actix::Actor>::Context,
            ) {
                control.apply(self, ctx);
            }
        }
        #krate::__private::inventory::submit! {
            #krate::__private::Registration::actor::<#ident>()
        }
        #spawn
        #(#deliveries)*
    })
}

/// Reports a context other than `Context<Self>` with a remedy, ahead of the compiler's own errors.
///
/// `RemoteActor` needs an equality of types, which cannot carry a text; a trait can.
fn require_context(krate: &TokenStream, actor: &Ident) -> TokenStream {
    quote_spanned! {generated_at(actor.span())=>
        const _: () = {
            #[diagnostic::on_unimplemented(
                message = "a remote actor cannot run in `{Self}`",
                label = "this actor does not run in `Context<Self>`",
                note = "give it `type Context = Context<Self>`; \
                        what computes on a pool of threads is a task: `#[roadshow::task(parallel = n)]`"
            )]
            trait Hosts<A> {}
            impl<A> Hosts<A> for #krate::__private::actix::Context<A>
            where
                A: #krate::__private::actix::Actor<Context = Self>,
            {
            }
            trait Hosted: #krate::__private::actix::Actor<Context: Hosts<Self>> {}
            impl Hosted for #actor {}
        };
    }
}

/// Registers the actor for remote spawning; an error points at the actor's name.
fn spawn(krate: &TokenStream, actor: &Ident) -> TokenStream {
    quote_spanned! {generated_at(actor.span())=>
        #krate::__private::inventory::submit! {
            #krate::__private::SpawnRegistration::of::<#actor>()
        }
    }
}

/// Implements the delivery of one message; an error points at the message in the list.
fn delivery(krate: &TokenStream, actor: &Ident, message: &Path) -> TokenStream {
    let span = generated_at(message.span());
    let (actor, message) = (ident_at(actor, message.span()), as_generated(message));
    quote_spanned! {span=>
        #[automatically_derived]
        impl #krate::Handles<#message> for #actor {}
        #[automatically_derived]
        impl #krate::__private::actix::Handler<#krate::__private::Delivery<#message>> for #actor {
            type Result = ();
            // As `Delivery::run`, for the same reason.
            #[inline(always)]
            fn handle(
                &mut self,
                delivery: #krate::__private::Delivery<#message>,
                ctx: &mut <Self as #krate::__private::actix::Actor>::Context,
            ) {
                // Method lookup selects the first of these that fits the handler's concrete result type.
                use #krate::__private::response::{
                    ActFutureForm as _, FutureForm as _, OtherForm as _, ResultForm as _, ValueForm as _,
                };
                delivery.run(self, ctx, |response, responder, ctx| {
                    let form = #krate::__private::response::ResponseKind::<
                        Self,
                        #message,
                        <Self as #krate::__private::actix::Handler<#message>>::Result,
                    >::new();
                    // Five references: method lookup removes one for each less specific trait.
                    (&&&&&form).respond(response, responder, ctx);
                });
            }
        }
        #krate::__private::inventory::submit! {
            #krate::__private::Registration::handler::<#actor, #message>()
        }
    }
}
