//! Options of `#[remote(..)]` on a type, and the requirements on every remote type.

use quote::ToTokens;
use syn::meta::ParseNestedMeta;
use syn::parse::Parse;
use syn::{Attribute, DeriveInput, Error, LitStr, Meta, Path, Result, Token, Type};

use crate::tokens::{Mistakes, compact};

/// Kind of the deriving type, which determines the valid options.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Actor,
    Durable,
    Message,
    Data,
}

/// Options of a type.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) name: Option<LitStr>,
    pub(crate) handles: Vec<Path>,
    pub(crate) local: bool,
    pub(crate) result: Option<Type>,
    pub(crate) krate: Option<Path>,
}

impl Options {
    /// Reads the options of `input`, and rejects types that cannot be remote.
    pub(crate) fn of(input: &DeriveInput, kind: Kind) -> Result<Self> {
        let mut mistakes = Mistakes::default();
        mistakes.keep(reject_generics(input));
        let mut options = Self::default();
        for attribute in input.attrs.iter().filter(|attribute| attribute.path().is_ident("remote")) {
            mistakes.keep(options.read(attribute, kind));
        }
        mistakes.or(options)
    }

    fn read(&mut self, attribute: &Attribute, kind: Kind) -> Result<()> {
        if !matches!(attribute.meta, Meta::List(_)) {
            return Err(Error::new_spanned(
                attribute,
                format!("put the options in parentheses: {}", kind.options()),
            ));
        }
        attribute.parse_nested_meta(|meta| self.read_one(&meta, kind))
    }

    fn read_one(&mut self, meta: &ParseNestedMeta<'_>, kind: Kind) -> Result<()> {
        if meta.path.is_ident("name") {
            return read_name(meta, &mut self.name);
        }
        if meta.path.is_ident("crate") {
            return read_crate(meta, &mut self.krate);
        }
        if kind == Kind::Message && meta.path.is_ident("result") {
            return self.read_result(meta);
        }
        if kind.list_of_messages().is_some_and(|list| meta.path.is_ident(list)) {
            return self.read_handles(meta, kind);
        }
        if kind == Kind::Actor && meta.path.is_ident("local") {
            self.local = true;
            return Ok(());
        }
        Err(meta.error(format!("unknown option; {}", kind.options())))
    }

    fn read_result(&mut self, meta: &ParseNestedMeta<'_>) -> Result<()> {
        let value = meta.value()?;
        let given =
            if value.peek(LitStr) { value.parse::<LitStr>()?.parse()? } else { value.parse::<Type>()? };
        match self.result.replace(given) {
            Some(_) => Err(meta.error("the result is given twice; remove one of the two")),
            None => Ok(()),
        }
    }

    fn read_handles(&mut self, meta: &ParseNestedMeta<'_>, kind: Kind) -> Result<()> {
        if !meta.input.peek(syn::token::Paren) {
            let list = kind.list_of_messages().unwrap_or_default();
            return Err(meta.error(format!("list the messages in parentheses: `{list}(First, Second)`")));
        }
        let content;
        syn::parenthesized!(content in meta.input);
        for message in content.parse_terminated(Path::parse, Token![,])? {
            // Compared as written, since names are not resolved yet.
            let written = |message: &Path| compact(message.to_token_stream());
            if self.handles.iter().any(|listed| written(listed) == written(&message)) {
                return Err(Error::new_spanned(
                    message,
                    "this message is listed twice; remove one of the two",
                ));
            }
            self.handles.push(message);
        }
        Ok(())
    }
}

/// Reads `crate = path`, at most once. The path may be a string, as in serde.
pub(crate) fn read_crate(meta: &ParseNestedMeta<'_>, krate: &mut Option<Path>) -> Result<()> {
    let value = meta.value()?;
    let given = if value.peek(LitStr) {
        // Module style: a crate path has no generic arguments.
        value.parse::<LitStr>().and_then(|given| given.parse_with(Path::parse_mod_style))
    } else {
        value.call(Path::parse_mod_style)
    };
    let text =
        "`crate` takes the path of this crate, such as `crate = rs` or `crate = \"company::roadshow\"`";
    let given = given.map_err(|error| Error::new(error.span(), text))?;
    match krate.replace(given) {
        Some(_) => Err(meta.error("the crate is given twice; remove one of the two")),
        None => Ok(()),
    }
}

/// Reads `name = ".."`, at most once.
pub(crate) fn read_name(meta: &ParseNestedMeta<'_>, name: &mut Option<LitStr>) -> Result<()> {
    let given: LitStr = meta.value()?.parse()?;
    if name.is_some() {
        return Err(meta.error("the name is given twice; remove one of the two"));
    }
    if given.value().trim().is_empty() {
        return Err(Error::new_spanned(
            given,
            "a name cannot be empty; leave `name` out to use the module path",
        ));
    }
    *name = Some(given);
    Ok(())
}

fn reject_generics(input: &DeriveInput) -> Result<()> {
    if input.generics.params.is_empty() {
        return Ok(());
    }
    let text = format!(
        "remote types cannot be generic: other processes find `{0}` by its one name; \
         wrap it in a concrete type, such as `struct Concrete({0}<..>);`",
        input.ident
    );
    Err(Error::new_spanned(&input.generics, text))
}

impl Kind {
    /// Name of the option that lists messages.
    fn list_of_messages(self) -> Option<&'static str> {
        match self {
            Self::Actor => Some("handles"),
            Self::Durable => Some("decides"),
            Self::Message | Self::Data => None,
        }
    }

    fn options(self) -> &'static str {
        match self {
            Self::Actor => {
                "`#[remote(..)]` on an actor takes `handles(..)`, `name = \"..\"`, `local` and `crate = path`"
            }
            Self::Durable => {
                "`#[remote(..)]` on a durable state takes `decides(..)`, `name = \"..\"` and `crate = path`"
            }
            Self::Message => {
                "`#[remote(..)]` on a message takes `name = \"..\"`, `result = Type` and `crate = path`"
            }
            Self::Data => "`#[remote(..)]` on data takes `name = \"..\"` and `crate = path`",
        }
    }
}
