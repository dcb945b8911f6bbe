//! The steps in the sources, in the document and in the matrix are the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::steps::{After, DELIVERIES, STEPS};
use crate::harness::process::ENTROPY;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the steps in a source text, comments left out.
fn steps_in(text: &str) -> Vec<String> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let names = |line: &str| {
        let parts = line.split("step!(\"").skip(1);
        parts.filter_map(|part| part.split_once('"').map(|(name, _)| name.to_owned())).collect::<Vec<_>>()
    };
    code.flat_map(names).collect()
}

/// Collects the steps below a directory, with the file in which each stands.
fn collect(dir: &Path, found: &mut BTreeMap<String, PathBuf>) {
    for entry in fs::read_dir(dir).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            for name in steps_in(&fs::read_to_string(&path).expect("a source file")) {
                let before = found.insert(name.clone(), path.clone());
                assert_eq!(before, None, "{name} stands twice, again in {}", path.display());
            }
        }
    }
}

/// One row of the document: number, name, process, and a word for each delivery semantics.
fn rows_in(document: &str) -> Vec<Vec<String>> {
    let (_, after) = document.split_once("<!-- steps -->").expect("the section begins");
    let (section, _) = after.split_once("<!-- /steps -->").expect("the section ends");
    let cells = |line: &str| -> Vec<String> {
        let cells = line.trim().trim_matches('|').split('|');
        cells.map(|cell| cell.trim().trim_matches('`').to_owned()).collect()
    };
    let rows = section.lines().filter(|line| line.starts_with('|')).map(cells);
    rows.filter(|cells| cells[0].parse::<usize>().is_ok()).collect()
}

#[test]
fn every_step_of_the_document_has_a_failpoint_and_a_case() {
    let mut in_sources = BTreeMap::new();
    for dir in ["api/src", "jobs/src", "schedules/src", "schema/src", "src", "workers/src"] {
        collect(&root().join(dir), &mut in_sources);
    }
    let in_sources: BTreeSet<&str> = in_sources.keys().map(String::as_str).collect();
    let in_matrix: BTreeSet<&str> = STEPS.iter().map(|step| step.name).collect();
    assert_eq!(in_sources, in_matrix, "the sources and the matrix");

    let document = fs::read_to_string(root().join("docs/RELIABILITY.md")).expect("the document");
    let mut rows = rows_in(&document);
    for row in &mut rows {
        assert_eq!(row.len(), 8, "{row:?}");
        assert!(
            row[3..5].iter().all(|text| text.ends_with('.')),
            "it says what holds and what follows: {row:?}"
        );
        row.drain(3..5);
    }
    let expected = STEPS.iter().zip(1..).map(|(step, number)| {
        let words = DELIVERIES.map(|delivery| step.after(delivery).word(delivery).to_owned());
        let [a, b, c] = words;
        vec![i32::to_string(&number), step.name.to_owned(), step.role.as_str().to_owned(), a, b, c]
    });
    assert_eq!(rows, expected.collect::<Vec<_>>(), "the document and the matrix");
}

#[test]
fn every_step_is_on_the_way_of_some_job() {
    for step in STEPS {
        let here = DELIVERIES.iter().any(|&delivery| step.after(delivery) != After::NotHere);
        assert!(here, "{} has no case", step.name);
    }
}

#[test]
fn steps_and_rows_are_found_as_they_are_written() {
    let text = "    step!(\"a.b\");\n    // step!(\"not.this\");\n    Ok(_) => step!(\"c.d\"),\n";
    assert_eq!(steps_in(text), ["a.b", "c.d"]);
    let table =
        "| 9 | no |\n<!-- steps -->\n| # | Step |\n|---|---|\n| 1 | `a.b` |\n<!-- /steps -->\n| 2 | no |";
    assert_eq!(rows_in(table), [["1", "a.b"]]);
}

/// Returns the features with which `fail` is built.
fn features_of_fail(edges: &str) -> String {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(["tree", "--offline", "--workspace", "--target", "all", "--invert", "fail", "--edges", edges])
        .current_dir(root())
        .output()
        .expect("cargo tree");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Only the tests' own build has failpoints: `cargo build` leaves out what only tests depend on.
#[test]
fn what_is_built_for_use_cannot_be_made_to_die() {
    let failpoints = "fail feature \"failpoints\"";
    assert!(!features_of_fail("normal,build,features").contains(failpoints));
    // The same question about the build that this test is part of is answered differently.
    assert!(features_of_fail("normal,build,dev,features").contains(failpoints));
}

#[test]
fn the_program_under_test_can_be_made_to_die() {
    // Without failpoints the variable would not be read.
    let output = Command::new(ENTROPY).arg("openapi").env_clear().env("FAILPOINTS", "nonsense").output();
    let output = output.expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("FAILPOINTS: nonsense"), "{said}");
}
