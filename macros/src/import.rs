//! A task that has the name of its module, and is imported beside it.
//!
//! In `mod square; use square::square;` the import brings the function, which is welcome, and the type beside
//! it, which the module's name is in the way of. The compiler says of this that a name is defined twice. What
//! to write instead is known here; so the source around the task is looked into, where the names are equal.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use syn::ext::IdentExt;
use syn::{Attribute, Ident, Item, ItemMod, UseTree};

/// Whether the module around this task is called like it, and what is around that imports the task.
pub(crate) fn doubles_module(task: &Ident) -> bool {
    if !proc_macro::is_available() {
        return false;
    }
    let Some(file) = task.span().unwrap().local_file() else { return false };
    let name = task.unraw().to_string();
    let is_double = |file: &PathBuf, in_file: bool| {
        fs::read_to_string(file).is_ok_and(|source| imports_double(&source, &name, in_file))
    };
    is_double(&file, true) || parents(&file, &name).iter().any(|file| is_double(file, false))
}

/// `count_words` as types are written.
pub(crate) fn camel_case(name: &Ident) -> String {
    let capitalized = |word: &str| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_uppercase().chain(letters).collect::<String>())
    };
    name.unraw().to_string().split('_').filter_map(capitalized).collect()
}

/// The files that `mod name;` for this one may be in; none if it is not called so.
fn parents(file: &Path, name: &str) -> Vec<PathBuf> {
    let name = OsStr::new(name);
    let folder = file.parent();
    let folder = match file.file_stem() {
        Some(stem) if stem == name => folder,
        Some(stem) if stem == "mod" && folder.and_then(Path::file_name) == Some(name) => {
            folder.and_then(Path::parent)
        }
        _ => return Vec::new(),
    };
    let Some(folder) = folder else { return Vec::new() };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let sources = entries.filter(|path| path.extension().is_some_and(|end| end == "rs"));
    sources.chain([folder.with_extension("rs")]).collect()
}

/// Whether somewhere in the source there is a module of that name, and an import of the task from it. A
/// module whose contents stand `in_file` has the task.
fn imports_double(source: &str, name: &str, in_file: bool) -> bool {
    // To parse takes long; in most files nothing is called so.
    if !source.contains(&format!("{name}::{name}")) && !source.contains(&format!("{name}::{{")) {
        return false;
    }
    syn::parse_file(source).is_ok_and(|file| items_double(&file.items, name, in_file))
}

fn items_double(items: &[Item], name: &str, in_file: bool) -> bool {
    let is_imported = items.iter().any(|item| match item {
        Item::Use(import) => brings_double(&import.tree, name),
        _ => false,
    });
    let mut modules = items.iter().filter_map(|item| match item {
        Item::Mod(module) => Some(module),
        _ => None,
    });
    modules.any(|module| {
        is_imported && module.ident.unraw() == name && has_task(module, name) == in_file
            || module.content.iter().any(|(_, items)| items_double(items, name, in_file))
    })
}

fn has_task(module: &ItemMod, name: &str) -> bool {
    let is_task = |attribute: &Attribute| {
        attribute.path().segments.last().is_some_and(|segment| segment.ident == "task")
    };
    module.content.iter().flat_map(|(_, items)| items).any(|item| match item {
        Item::Fn(function) => function.sig.ident.unraw() == name && function.attrs.iter().any(is_task),
        _ => false,
    })
}

/// Whether it is `name::name`, and under that name.
fn brings_double(tree: &UseTree, name: &str) -> bool {
    match tree {
        UseTree::Path(path) if path.ident == "self" => brings_double(&path.tree, name),
        UseTree::Path(path) if path.ident.unraw() == name => is_or_has(&path.tree, name),
        UseTree::Group(group) => group.items.iter().any(|tree| brings_double(tree, name)),
        _ => false,
    }
}

fn is_or_has(tree: &UseTree, name: &str) -> bool {
    match tree {
        UseTree::Name(leaf) => leaf.ident.unraw() == name,
        UseTree::Group(group) => group.items.iter().any(|tree| is_or_has(tree, name)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(source: &str, in_file: bool, expected: bool) {
        assert_eq!(imports_double(source, "square", in_file), expected, "{source}");
    }

    #[test]
    fn an_import_beside_the_module_is_a_double() {
        check("mod square; use square::square;", false, true);
        check("mod a { pub mod square; pub use self::square::{other, square}; }", false, true);
        check("mod square { #[roadshow::task] fn square() {} } use {square::square, b::c};", true, true);
    }

    #[test]
    fn any_other_import_is_none() {
        check("mod square; use square::square as other;", false, false);
        check("mod square; use other::square::square;", false, false);
        check("use square::square; mod a { mod square; }", false, false);
        check("mod square; fn main() { square::square(4); }", false, false);
        check("mod square { fn square() {} } use square::square;", true, false);
    }

    #[test]
    fn the_file_of_the_module_has_to_be_called_so() {
        assert!(parents(Path::new("src/shapes.rs"), "square").is_empty());
        assert_eq!(parents(Path::new("no/such/square.rs"), "square"), [PathBuf::from("no/such.rs")]);
        assert_eq!(parents(Path::new("no/such/square/mod.rs"), "square"), [PathBuf::from("no/such.rs")]);
    }

    #[test]
    fn a_type_is_written_as_types_are() {
        assert_eq!(camel_case(&syn::parse_quote!(count_words)), "CountWords");
        assert_eq!(camel_case(&syn::parse_quote!(r#match)), "Match");
    }
}
