//! The picture of the layers in `docs/design.md`: imports run downward only.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// From the bottom up. A module may import from its own layer and from the ones before it.
const LAYERS: [&[&str]; 5] = [
    &["model"],
    &["env", "error", "code", "epoch", "format", "layout", "sync"],
    &[
        "journal",
        "identity",
        "port_file",
        "trim_note",
        "backup_file",
        "tree",
        "snapshot",
    ],
    &["engine", "options"],
    &["view", "port", "reader", "store", "json"],
];

/// Upward on purpose: `Options::open` gives what the face is.
const EXCEPTIONS: [(&str, &str); 2] = [("options", "store"), ("options", "reader")];

#[test]
fn imports_run_downward_only() {
    let layer_of: BTreeMap<&str, usize> = LAYERS
        .iter()
        .enumerate()
        .flat_map(|(layer, modules)| modules.iter().map(move |module| (*module, layer)))
        .collect();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut imports = 0;
    for file in rust_files(&source) {
        let module = module_of(&source, &file);
        if ["lib", "cli"].contains(&module.as_str()) || is_tests(&file) {
            continue;
        }
        let layer = layer_of
            .get(module.as_str())
            .unwrap_or_else(|| panic!("{module} has no layer"));
        let text = std::fs::read_to_string(&file).unwrap();
        let (code, _) = text
            .split_once("#[cfg(test)]\nmod tests {")
            .unwrap_or((&text, ""));
        for imported in code.split("crate::").skip(1) {
            let name = imported
                .split(|c: char| !c.is_alphanumeric() && c != '_')
                .next()
                .unwrap();
            let Some(below) = layer_of.get(name) else { continue };
            imports += 1;
            let is_allowed = below <= layer || EXCEPTIONS.contains(&(module.as_str(), name));
            assert!(is_allowed, "{} imports {name}, which is above it", file.display());
        }
    }
    assert!(imports > 30, "the test has lost the imports");
}

#[test]
fn the_picture_names_every_module() {
    let design = include_str!("../docs/design.md");
    let (_, picture) = design.split_once("## Layers").unwrap();
    let (picture, _) = picture.split_once("## Commits").unwrap();
    for module in LAYERS.concat().iter().filter(|module| **module != "model") {
        assert!(picture.contains(module), "{module}");
    }
}

#[test]
fn unsafe_code_is_allowed_in_one_file() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let is_allowed = |file: &PathBuf| {
        std::fs::read_to_string(file)
            .unwrap()
            .contains("allow(unsafe_code)")
    };
    let files: Vec<_> = rust_files(&source).into_iter().filter(is_allowed).collect();
    assert_eq!(files, [source.join("env/mmap.rs")]);
}

fn is_tests(file: &Path) -> bool {
    file.to_str().is_some_and(|file| file.ends_with("tests.rs"))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

fn module_of(source: &Path, file: &Path) -> String {
    let first = file.strip_prefix(source).unwrap().components().next().unwrap();
    first
        .as_os_str()
        .to_str()
        .unwrap()
        .trim_end_matches(".rs")
        .to_owned()
}
