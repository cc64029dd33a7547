//! Small things about tokens that more than one macro needs.

use proc_macro2::{Delimiter, Group, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::{Error, Ident, Path};

/// The same tokens at the same places, but counted as the macro's own.
///
/// Compilers and clippy judge the user's tokens by the user's lints; what the macro adds is not the
/// user's to answer for, even where an error should point at what the user wrote.
pub(crate) fn as_generated(tokens: impl ToTokens) -> TokenStream {
    tokens.into_token_stream().into_iter().map(generated).collect()
}

fn generated(mut token: TokenTree) -> TokenTree {
    let span = generated_at(token.span());
    match &mut token {
        TokenTree::Group(group) => {
            let mut inner = Group::new(group.delimiter(), as_generated(group.stream()));
            inner.set_span(span);
            *group = inner;
        }
        // What `$crate` stands for is part of its span.
        TokenTree::Ident(ident) if *ident == "$crate" => {}
        other => other.set_span(span),
    }
    token
}

/// The same word, with the span of generated code at `at`.
pub(crate) fn ident_at(ident: &Ident, at: Span) -> Ident {
    let mut ident = ident.clone();
    ident.set_span(generated_at(at));
    ident
}

/// The place `at`, in the name of the macro.
pub(crate) fn generated_at(at: Span) -> Span {
    Span::call_site().located_at(at)
}

/// The path of the crate in generated code: what `crate = path` says, or its own name.
pub(crate) fn crate_path(given: Option<&Path>) -> TokenStream {
    given.map_or_else(|| quote!(::roadshow), as_generated)
}

/// Tokens as one line of text that does not depend on how the source is laid out.
///
/// Only words that would run together are separated. The compiler's own rendering is no use here:
/// its spaces differ from version to version.
pub(crate) fn compact(tokens: TokenStream) -> String {
    let mut text = String::new();
    write_compact(tokens, &mut text);
    text
}

fn write_compact(tokens: TokenStream, text: &mut String) {
    for token in tokens {
        if let TokenTree::Group(group) = token {
            let (open, close) = brackets(group.delimiter());
            text.push_str(open);
            write_compact(group.stream(), text);
            text.push_str(close);
            continue;
        }
        let token = token.to_string();
        let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '"');
        if text.ends_with(is_word) && token.starts_with(is_word) {
            text.push(' ');
        }
        text.push_str(&token);
    }
}

fn brackets(delimiter: Delimiter) -> (&'static str, &'static str) {
    match delimiter {
        Delimiter::Parenthesis => ("(", ")"),
        Delimiter::Brace => ("{", "}"),
        Delimiter::Bracket => ("[", "]"),
        Delimiter::None => ("", ""),
    }
}

/// Gathers every mistake of one item, so that the user sees them all at once.
#[derive(Default)]
pub(crate) struct Mistakes(Option<Error>);

impl Mistakes {
    /// Notes a mistake at `tokens`.
    pub(crate) fn at(&mut self, tokens: impl ToTokens, text: impl std::fmt::Display) {
        self.add(Error::new_spanned(tokens, text));
    }

    /// Notes a mistake that is an error already.
    pub(crate) fn add(&mut self, mistake: Error) {
        match &mut self.0 {
            Some(first) => first.combine(mistake),
            none => *none = Some(mistake),
        }
    }

    /// Keeps what a step made, or its mistake.
    pub(crate) fn keep<T>(&mut self, outcome: syn::Result<T>) -> Option<T> {
        outcome.map_err(|mistake| self.add(mistake)).ok()
    }

    /// `value`, if there was no mistake.
    pub(crate) fn or<T>(self, value: T) -> syn::Result<T> {
        self.0.map_or(Ok(value), Err)
    }
}
