//! Detection of an import that conflicts with a task of its module's name.
//!
//! In `mod square; use square::square;` the import brings both the function and the type of the task. The
//! type conflicts with the module, and the compiler only reports that a name is defined twice. The macro
//! knows the remedy, so it searches the source around the task if the names are equal.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use syn::ext::IdentExt;
use syn::{Attribute, Ident, Item, ItemMod, UseTree};

/// True if the enclosing module has the task's name, and source around it imports the task.
pub(crate) fn conflicts_with_module(task: &Ident) -> bool {
    // Unit tests run outside of the compiler, where spans have no file.
    if !proc_macro::is_available() {
        return false;
    }
    let Some(file) = task.span().unwrap().local_file() else { return false };
    let name = task.unraw().to_string();
    let is_conflict = |file: &PathBuf, in_file: bool| {
        fs::read_to_string(file).is_ok_and(|source| has_conflict(&source, &name, in_file))
    };
    is_conflict(&file, true) || parents(&file, &name).iter().any(|file| is_conflict(file, false))
}

/// `count_words` in camel case.
pub(crate) fn camel_case(name: &Ident) -> String {
    let capitalized = |word: &str| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_uppercase().chain(letters).collect::<String>())
    };
    name.unraw().to_string().split('_').filter_map(capitalized).collect()
}

/// Files that may contain `mod name;` for this file; none if the file has another name.
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
    // `mod name;` may be in any file of the folder, or in the file that declares the folder.
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let sources = entries.filter(|path| path.extension().is_some_and(|end| end == "rs"));
    sources.chain([folder.with_extension("rs")]).collect()
}

/// True if the source has a module of that name, and an import of the task from it.
///
/// With `in_file` the module's contents in the same source must contain the task.
fn has_conflict(source: &str, name: &str, in_file: bool) -> bool {
    // Parsing is slow, and most files do not contain the name in this form.
    if !source.contains(&format!("{name}::{name}")) && !source.contains(&format!("{name}::{{")) {
        return false;
    }
    syn::parse_file(source).is_ok_and(|file| items_conflict(&file.items, name, in_file))
}

fn items_conflict(items: &[Item], name: &str, in_file: bool) -> bool {
    let is_imported = items.iter().any(|item| match item {
        Item::Use(import) => imports_task(&import.tree, name),
        _ => false,
    });
    let mut modules = items.iter().filter_map(|item| match item {
        Item::Mod(module) => Some(module),
        _ => None,
    });
    modules.any(|module| {
        is_imported && module.ident.unraw() == name && has_task(module, name) == in_file
            || module.content.iter().any(|(_, items)| items_conflict(items, name, in_file))
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

/// True if the tree contains `name::name` without a renaming.
fn imports_task(tree: &UseTree, name: &str) -> bool {
    match tree {
        UseTree::Path(path) if path.ident == "self" => imports_task(&path.tree, name),
        UseTree::Path(path) if path.ident.unraw() == name => is_or_has(&path.tree, name),
        UseTree::Group(group) => group.items.iter().any(|tree| imports_task(tree, name)),
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
        assert_eq!(has_conflict(source, "square", in_file), expected, "{source}");
    }

    #[test]
    fn an_import_beside_the_module_conflicts() {
        check("mod square; use square::square;", false, true);
        check("mod a { pub mod square; pub use self::square::{other, square}; }", false, true);
        check("mod square { #[roadshow::task] fn square() {} } use {square::square, b::c};", true, true);
    }

    #[test]
    fn any_other_import_is_no_conflict() {
        check("mod square; use square::square as other;", false, false);
        check("mod square; use other::square::square;", false, false);
        check("use square::square; mod a { mod square; }", false, false);
        check("mod square; fn main() { square::square(4); }", false, false);
        check("mod square { fn square() {} } use square::square;", true, false);
    }

    #[test]
    fn the_file_of_the_module_must_have_its_name() {
        assert!(parents(Path::new("src/shapes.rs"), "square").is_empty());
        assert_eq!(parents(Path::new("no/such/square.rs"), "square"), [PathBuf::from("no/such.rs")]);
        assert_eq!(parents(Path::new("no/such/square/mod.rs"), "square"), [PathBuf::from("no/such.rs")]);
    }

    #[test]
    fn a_type_is_in_camel_case() {
        assert_eq!(camel_case(&syn::parse_quote!(count_words)), "CountWords");
        assert_eq!(camel_case(&syn::parse_quote!(r#match)), "Match");
    }
}
