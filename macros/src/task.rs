//! Attribute `#[task]`.

use proc_macro2::TokenStream;
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::parse::Parser;
use syn::visit::{self, Visit};
use syn::{Error, FnArg, Ident, ItemFn, LitInt, LitStr, Pat, Path, Result, ReturnType, Signature, Type};

use crate::import;
use crate::name::Naming;
use crate::nested;
use crate::options::{read_crate, read_name};
use crate::tokens::{Mistakes, as_generated, compact, crate_path, generated_at, ident_at};

/// Maximum number of arguments of a task: serde implements tuples up to this length.
const ARGUMENTS_MAX: usize = 16;

/// Expands to the function and its task type, or to the function and the errors.
pub(crate) fn expand(options: TokenStream, function: &ItemFn) -> TokenStream {
    let generated = check(options, &function.sig).map(|options| generate(&options, function));
    let generated = generated.unwrap_or_else(Error::into_compile_error);
    quote!(#function #generated)
}

#[derive(Default)]
struct Options {
    name: Option<LitStr>,
    parallel: Option<LitInt>,
    /// Name of the task type, if it differs from the function's.
    ty: Option<Ident>,
    krate: Option<Path>,
}

impl Options {
    fn read(tokens: TokenStream) -> Result<Self> {
        let mut options = Self::default();
        let parser = syn::meta::parser(|meta| {
            if meta.path.is_ident("name") {
                return read_name(&meta, &mut options.name);
            }
            if meta.path.is_ident("parallel") {
                options.parallel = Some(read_parallel(&meta)?);
                return Ok(());
            }
            if meta.path.is_ident("type") {
                options.ty = Some(meta.value()?.parse()?);
                return Ok(());
            }
            if meta.path.is_ident("crate") {
                return read_crate(&meta, &mut options.krate);
            }
            Err(meta.error(
                "unknown option; `#[roadshow::task(..)]` takes `parallel = 4`, `name = \"..\"`, \
                 `type = Type` and `crate = path`",
            ))
        });
        parser.parse2(tokens)?;
        Ok(options)
    }
}

fn read_parallel(meta: &syn::meta::ParseNestedMeta<'_>) -> Result<LitInt> {
    const TEXT: &str = "`parallel` takes a whole number from 1 on, such as `parallel = 4`; \
                        leave it out to run one task at a time in a worker";
    let number: syn::Expr = meta.value()?.parse()?;
    match &number {
        syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Int(n), .. })
            if n.base10_parse::<usize>().is_ok_and(|n| n > 0) =>
        {
            Ok(n.clone())
        }
        other => Err(Error::new_spanned(other, TEXT)),
    }
}

fn check(options: TokenStream, signature: &Signature) -> Result<Options> {
    let mut mistakes = Mistakes::default();
    let options = mistakes.keep(Options::read(options));
    check_kind(signature, &mut mistakes);
    check_arguments(signature, &mut mistakes);
    // A type with another name cannot conflict with the module.
    if options.as_ref().is_some_and(|options| options.ty.is_none()) {
        check_import(&signature.ident, &mut mistakes);
    }
    if let ReturnType::Type(_, output) = &signature.output {
        let text = "the result of a task travels back: return an owned type";
        Borrows { mistakes: &mut mistakes, text }.visit_type(output);
        if let Type::Never(never) = &**output {
            mistakes.at(never, "a task that never returns has no result: leave `-> !` out");
        }
    }
    mistakes.or(options.unwrap_or_default())
}

fn check_kind(signature: &Signature, mistakes: &mut Mistakes) {
    if let Some(token) = signature.asyncness {
        let text = "a task computes and does not wait: remove `async`; \
                    what waits for others is an actor (`#[derive(RemoteActor)]`)";
        mistakes.at(token, text);
    }
    if let Some(token) = signature.unsafety {
        mistakes
            .at(token, "a worker cannot keep an unsafe function's conditions: wrap it in a safe function");
    }
    let lifetimes = signature.generics.lifetimes().count();
    // Lifetimes alone have a more specific remedy than other generics.
    if lifetimes > 0 && lifetimes == signature.generics.params.len() {
        let text =
            "a task borrows nothing, since its arguments travel: remove the lifetime and take owned types";
        mistakes.at(&signature.generics, text);
    } else if !signature.generics.params.is_empty() {
        let text = "a task cannot be generic: other processes find it by its one name; \
                    use concrete types, or one task for each type that calls the generic function";
        mistakes.at(&signature.generics, text);
    }
    if let Some(token) = &signature.variadic {
        mistakes.at(token, "a task has a fixed number of arguments");
    }
}

/// Reports a conflicting import with its remedy; the compiler reports only a duplicate name.
fn check_import(ident: &Ident, mistakes: &mut Mistakes) {
    if !import::conflicts_with_module(ident) {
        return;
    }
    let text = format!(
        "`use {ident}::{ident}` brings a second `{ident}` beside the module, since a task has a type of its \
         name: give that another one, `#[roadshow::task(type = {}Task)]`, for `{0}Task::task(..)`; \
         or write `use {ident}::{ident} as ..`",
        import::camel_case(ident),
    );
    mistakes.at(ident, text);
}

fn check_arguments(signature: &Signature, mistakes: &mut Mistakes) {
    for argument in &signature.inputs {
        match argument {
            FnArg::Receiver(receiver) => {
                let text =
                    "a task has no `self`: move it out of the `impl`, and take what it needs as arguments";
                mistakes.at(receiver, text);
            }
            FnArg::Typed(typed) => {
                let text = "the arguments of a task travel: take owned types, such as `String` for `&str`";
                Borrows { mistakes, text }.visit_type(&typed.ty);
                if let Some(cfg) = typed.attrs.iter().find(|attribute| attribute.path().is_ident("cfg")) {
                    let text = "a task has the same arguments in every build: put `cfg` on the function";
                    mistakes.at(cfg, text);
                }
            }
        }
    }
    if let Some(beyond) = signature.inputs.iter().nth(ARGUMENTS_MAX) {
        mistakes.at(
            beyond,
            format_args!("a task has at most {ARGUMENTS_MAX} arguments: put some into one struct"),
        );
    }
}

/// Visitor that reports types without an owner or a name, which cannot be rebuilt elsewhere.
struct Borrows<'a> {
    mistakes: &'a mut Mistakes,
    text: &'static str,
}

impl<'ast> Visit<'ast> for Borrows<'_> {
    fn visit_type(&mut self, ty: &'ast Type) {
        match ty {
            Type::Reference(_) | Type::Ptr(_) | Type::ImplTrait(_) => self.mistakes.at(ty, self.text),
            Type::BareFn(_) => {}
            _ => visit::visit_type(self, ty),
        }
    }
}

fn generate(options: &Options, function: &ItemFn) -> TokenStream {
    let signature = &function.sig;
    let krate = &crate_path(options.krate.as_ref());
    let function_ident = ident_at(&signature.ident, signature.ident.span());
    // In another namespace than the function, so that one `use` imports both.
    let ident = options.ty.as_ref().map_or_else(|| function_ident.clone(), |ty| ident_at(ty, ty.span()));
    let vis = as_generated(&function.vis);
    // The type must exist in the same builds as the function.
    let cfgs = function.attrs.iter().filter(|attribute| attribute.path().is_ident("cfg"));
    let cfgs = cfgs.map(as_generated).collect::<TokenStream>();
    let Naming { name, marker } = Naming::of("task", options.name.as_ref(), &ident, &signature.ident);
    let marker = marker.map(|marker| quote!(#cfgs #marker));
    let parallel = match &options.parallel {
        Some(n) => quote!(::core::option::Option::Some(#n)),
        None => quote!(::core::option::Option::None),
    };
    let (names, types): (Vec<_>, Vec<_>) = arguments(signature).unzip();
    // An unserializable argument is reported at the list of arguments.
    let args = quote_spanned!(generated_at(signature.paren_token.span.join())=> (#(#types,)*));
    let output = match &signature.output {
        ReturnType::Default => quote!(()),
        ReturnType::Type(_, output) => as_generated(output),
    };
    let schema = schema(signature);
    let parts = nested::parts(krate, named_types(signature));
    let unpacked =
        (0..names.len()).map(|n| format_ident!("argument_{n}", span = proc_macro2::Span::mixed_site()));
    // Their hygiene keeps them from shadowing the function that is called below.
    let unpacked = unpacked.collect::<Vec<_>>();
    let doc = format!("Task of [`{function_ident}()`], which a cluster runs in another process.");
    let task_doc = format!("Call of [`{function_ident}()`] with these arguments, for a cluster to run.");
    quote! {
        #marker
        #cfgs
        #[doc = #doc]
        #[derive(::core::fmt::Debug)]
        #vis enum #ident {}
        #cfgs
        #[automatically_derived]
        impl #ident {
            #[doc = #task_doc]
            #vis fn task(#(#names: #types),*) -> #krate::Task<Self> {
                #krate::Task::new((#(#names,)*))
            }
        }
        #cfgs
        #[automatically_derived]
        impl #krate::TaskFn for #ident {
            type Args = #args;
            type Output = #output;
            const NAME: &'static ::core::primitive::str = #name;
            const PARALLEL: ::core::option::Option<::core::primitive::usize> = #parallel;
            const SCHEMA: &'static ::core::primitive::str = #schema;
            #parts
            fn call((#(#unpacked,)*): Self::Args) -> Self::Output {
                #function_ident(#(#unpacked),*)
            }
        }
        #cfgs
        #krate::__private::inventory::submit! {
            #krate::__private::Registration::task::<#ident>()
        }
    }
}

/// Signature that must be equal on both sides: the types, in order.
fn schema(signature: &Signature) -> String {
    let arguments = argument_types(signature).map(|ty| compact(ty.to_token_stream()));
    let output = match &signature.output {
        ReturnType::Default => "()".to_owned(),
        ReturnType::Type(_, output) => compact(output.to_token_stream()),
    };
    format!("fn({})->{output}", arguments.collect::<Vec<_>>().join(","))
}

/// Types of the arguments and of the result.
fn named_types(signature: &Signature) -> impl Iterator<Item = &Type> {
    let output = match &signature.output {
        ReturnType::Default => None,
        ReturnType::Type(_, output) => Some(&**output),
    };
    argument_types(signature).chain(output)
}

fn argument_types(signature: &Signature) -> impl Iterator<Item = &Type> {
    signature.inputs.iter().filter_map(|argument| match argument {
        FnArg::Typed(typed) => Some(&*typed.ty),
        FnArg::Receiver(_) => None,
    })
}

/// Name and type of each argument; the name is the user's if there is one.
fn arguments(signature: &Signature) -> impl Iterator<Item = (Ident, TokenStream)> {
    let typed = signature.inputs.iter().filter_map(|argument| match argument {
        FnArg::Typed(typed) => Some(typed),
        FnArg::Receiver(_) => None,
    });
    typed.enumerate().map(|(n, typed)| {
        let name = match &*typed.pat {
            Pat::Ident(pattern) => ident_at(&pattern.ident, pattern.ident.span()),
            _ => format_ident!("argument_{n}"),
        };
        (name, as_generated(&typed.ty))
    })
}

#[cfg(test)]
mod tests {
    use syn::parse_quote;

    use super::*;

    #[track_caller]
    fn check(signature: &Signature, expected: &str) {
        assert_eq!(schema(signature), expected);
    }

    #[test]
    fn the_schema_has_the_types_of_arguments_and_result_and_no_names() {
        check(
            &parse_quote!(fn add(mut a: u64, (b, _): (u8, Vec<String>)) -> u64),
            "fn(u64,(u8,Vec<String>))->u64",
        );
        check(&parse_quote!(fn twice(r#type: r#type::Kind)), "fn(r#type::Kind)->()");
        check(&parse_quote!(fn nothing() -> ()), "fn()->()");
    }

    #[test]
    fn types_of_arguments_and_result_are_queried_for_their_schemas() {
        let signature = parse_quote!(fn add(a: A, b: Vec<B>) -> C);
        let types = named_types(&signature).map(|ty| compact(ty.to_token_stream()));
        assert_eq!(types.collect::<Vec<_>>(), ["A", "Vec<B>", "C"]);
    }
}
