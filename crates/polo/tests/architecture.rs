//! The invariants of ARCHITECTURE.md that a test can keep, read from the sources of the workspace.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Crates by floor; a crate may use crates of lower floors alone.
const FLOORS: [&[&str]; 5] = [
    &["polo-run"],
    &["polo-nn"],
    &["polo-lm", "polo-sim"],
    &["polo-control", "polo-decision", "polo-preference"],
    &["polo"],
];

fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn floor(name: &str) -> usize {
    let floor = FLOORS.iter().position(|names| names.contains(&name));
    floor.unwrap_or_else(|| panic!("{name} has no floor: put it into FLOORS and into ARCHITECTURE.md"))
}

/// All files below `folder` with this extension.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn stem(path: PathBuf) -> String {
    path.file_stem().unwrap().to_str().unwrap().to_owned()
}

fn stems(folder: &Path) -> Vec<String> {
    files(folder, "rs").into_iter().map(stem).collect()
}

#[test]
fn crates_use_lower_floors_alone() {
    for entry in fs::read_dir(workspace().join("crates")).unwrap() {
        let manifest = fs::read_to_string(entry.unwrap().path().join("Cargo.toml")).unwrap();
        let manifest: toml::Table = manifest.parse().unwrap();
        let name = manifest["package"]["name"].as_str().unwrap();
        for table in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let used = manifest.get(table).and_then(toml::Value::as_table);
            for used in
                used.into_iter().flatten().map(|(used, _)| used).filter(|used| used.starts_with("polo"))
            {
                assert!(floor(used) < floor(name), "{name} uses {used}, which stands no lower");
            }
        }
    }
}

#[test]
fn crates_keep_the_lints_of_the_workspace() {
    for name in FLOORS.concat() {
        let manifest = workspace().join("crates").join(name).join("Cargo.toml");
        let manifest: toml::Table = fs::read_to_string(manifest).unwrap().parse().unwrap();
        assert_eq!(manifest["lints"]["workspace"].as_bool(), Some(true), "{name}");
    }
}

/// `unsafe_code` is denied by the workspace's lints; nobody may allow it again.
#[test]
fn no_file_allows_unsafe_code() {
    for path in files(&workspace().join("crates"), "rs") {
        let text = fs::read_to_string(&path).unwrap();
        let allowed = ["allow(unsafe", "expect(unsafe"].iter().any(|mark| text.contains(mark));
        assert!(!allowed || path.ends_with("architecture.rs"), "{} allows unsafe code", path.display());
    }
}

/// A method is found by its name, and a claim beside the method that it is about.
#[test]
fn a_method_is_a_file_and_a_claim_is_about_a_method() {
    let mut methods = Vec::new();
    for family in FLOORS[3] {
        let source = workspace().join("crates").join(family).join("src/methods");
        // A folder beside a method's file holds its parts.
        let own = |path: &PathBuf| path.parent() == Some(&source);
        methods.extend(files(&source, "rs").into_iter().filter(own).map(stem));
    }
    methods.retain(|stem| stem != "mod" && !stem.ends_with("tests"));
    methods.sort();
    let mut slugs: Vec<_> = polo::registry::cards().iter().map(|card| card.slug.replace('-', "_")).collect();
    slugs.sort();
    assert_eq!(methods, slugs);
    // Benches and tables that several claims share.
    let shared = ["mod", "tests", "bench", "cipher", "ope", "pendulum", "streams", "tabular"];
    let claims = FLOORS[3].iter().map(|family| workspace().join("crates").join(family).join("src/claims"));
    let claims: Vec<String> =
        claims.filter(|folder| folder.exists()).flat_map(|folder| stems(&folder)).collect();
    for claim in claims.iter().filter(|stem| !shared.contains(&stem.as_str())) {
        let about = slugs.iter().any(|slug| claim == slug || claim.starts_with(&format!("{slug}_")));
        assert!(about, "the claim {claim} is about no method");
    }
}

/// Losses and updates are pure: what a method file computes depends on its arguments alone.
#[test]
fn method_files_touch_neither_files_nor_clock_nor_environment() {
    let folders = FLOORS[3].iter().map(|family| workspace().join("crates").join(family).join("src/methods"));
    // Tests beside a method may make files to try it on.
    let methods = folders.flat_map(|folder| files(&folder, "rs"));
    for path in methods.filter(|path| !stem(path.clone()).ends_with("tests")) {
        let text = fs::read_to_string(&path).unwrap();
        for mark in ["fs::", "std::env", "std::time", "std::net", "std::process", "rand::rng"] {
            assert!(!text.contains(mark), "{} uses {mark}", path.display());
        }
    }
}

#[test]
fn every_crate_stands_in_the_code_map() {
    let map = fs::read_to_string(workspace().join("ARCHITECTURE.md")).unwrap();
    for name in FLOORS.concat() {
        assert!(map.contains(&format!("`crates/{name}`")), "{name} is missing in ARCHITECTURE.md");
    }
}
