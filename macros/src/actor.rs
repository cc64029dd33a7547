//! `#[derive(RemoteActor)]`.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{DeriveInput, Ident, Path, Result};

use crate::options::{Kind, Options};
use crate::tokens::{as_generated, generated_at, ident_at, name_of};

pub(crate) fn derive(input: &DeriveInput) -> Result<TokenStream> {
    let options = Options::of(input, Kind::Actor)?;
    let ident = &input.ident;
    let name = name_of(options.name.as_ref(), ident);
    let spawn = if options.local { TokenStream::new() } else { spawn(ident) };
    let deliveries = options.handles.iter().map(|message| delivery(ident, message));
    let context = require_context(ident);
    Ok(quote! {
        #context
        #[automatically_derived]
        impl ::roadshow::RemoteActor for #ident {
            const NAME: &'static str = #name;
        }
        #[automatically_derived]
        impl ::roadshow::__private::actix::Handler<::roadshow::__private::Control> for #ident {
            type Result = ();
            fn handle(
                &mut self,
                control: ::roadshow::__private::Control,
                ctx: &mut <Self as ::roadshow::__private::actix::Actor>::Context,
            ) {
                control.apply(self, ctx);
            }
        }
        ::roadshow::__private::inventory::submit! {
            ::roadshow::__private::Registration::actor::<#ident>()
        }
        #spawn
        #(#deliveries)*
    })
}

/// Says what to do about another context than `Context<Self>`, ahead of the compiler's own errors.
///
/// An equality of types, which is what `RemoteActor` needs, cannot carry a text; a trait can.
fn require_context(actor: &Ident) -> TokenStream {
    quote_spanned! {generated_at(actor.span())=>
        const _: () = {
            #[diagnostic::on_unimplemented(
                message = "a remote actor cannot run in `{Self}`",
                label = "this actor does not run in `Context<Self>`",
                note = "give it `type Context = Context<Self>`; \
                        what computes on a pool of threads is a task: `#[roadshow::task(parallel = n)]`"
            )]
            trait Hosts<A> {}
            impl<A> Hosts<A> for ::roadshow::__private::actix::Context<A>
            where
                A: ::roadshow::__private::actix::Actor<Context = Self>,
            {
            }
            trait Hosted: ::roadshow::__private::actix::Actor<Context: Hosts<Self>> {}
            impl Hosted for #actor {}
        };
    }
}

/// Registers that the actor can be spawned from afar; an error points at the actor's name.
fn spawn(actor: &Ident) -> TokenStream {
    quote_spanned! {generated_at(actor.span())=>
        ::roadshow::__private::inventory::submit! {
            ::roadshow::__private::SpawnRegistration::of::<#actor>()
        }
    }
}

/// Delivers one message; an error points at the message in the list.
fn delivery(actor: &Ident, message: &Path) -> TokenStream {
    let span = generated_at(message.span());
    let (actor, message) = (ident_at(actor, message.span()), as_generated(message));
    quote_spanned! {span=>
        #[automatically_derived]
        impl ::roadshow::Handles<#message> for #actor {}
        #[automatically_derived]
        impl ::roadshow::__private::actix::Handler<::roadshow::__private::Delivery<#message>> for #actor {
            type Result = ();
            #[inline]
            fn handle(
                &mut self,
                delivery: ::roadshow::__private::Delivery<#message>,
                ctx: &mut <Self as ::roadshow::__private::actix::Actor>::Context,
            ) {
                // Method lookup takes the first of these that fits the handler's concrete result type.
                use ::roadshow::__private::form::{ActFutureForm as _, FutureForm as _, OtherForm as _, ValueForm as _};
                delivery.run(self, ctx, |response, responder, ctx| {
                    let form = ::roadshow::__private::form::Form::<
                        Self,
                        #message,
                        <Self as ::roadshow::__private::actix::Handler<#message>>::Result,
                    >::new();
                    (&&&&form).respond(response, responder, ctx);
                });
            }
        }
        ::roadshow::__private::inventory::submit! {
            ::roadshow::__private::Registration::handler::<#actor, #message>()
        }
    }
}
