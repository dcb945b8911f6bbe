//! The map of the code, held by tests and not by review.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Our crates, and which of ours each depends on.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .expect("cargo metadata");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let name = |value: &Value| value["name"].as_str().expect("a name").to_owned();
    let packages = metadata["packages"].as_array().expect("packages");
    let ours: BTreeSet<String> = packages.iter().map(name).collect();
    let of = |package: &Value| {
        let all = package["dependencies"].as_array().expect("dependencies").iter().map(name);
        (name(package), all.filter(|dependency| ours.contains(dependency)).collect())
    };
    packages.iter().map(of).collect()
}

#[test]
fn crates_depend_in_one_direction() {
    let allowed = |package: &str| -> &[&str] {
        match package {
            "entropy-schema" | "entropy-sandbox" => &[],
            "entropy-jobs" => &["entropy-schema"],
            "entropy-api" | "entropy-workers" | "entropy-schedules" => &["entropy-schema", "entropy-jobs"],
            "entropy" => &[
                "entropy-schema",
                "entropy-jobs",
                "entropy-api",
                "entropy-workers",
                "entropy-schedules",
                "entropy-sandbox",
            ],
            other => panic!("{other} is new: say here what it may depend on"),
        }
    };
    let dependencies = dependencies();
    assert_eq!(dependencies.len(), 7, "{:?}", dependencies.keys());
    for (package, depends_on) in &dependencies {
        for dependency in depends_on {
            assert!(allowed(package).contains(&dependency.as_str()), "{package} must not know {dependency}");
        }
    }
}

/// Every Rust file below `dir`, with its text.
fn sources(dir: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source file");
            found.push((path, text));
        }
    }
    found
}

/// The files outside comments of which `word` stands, relative to the root.
fn files_that_name(word: &str) -> Vec<String> {
    let mut files = Vec::new();
    for dir in ["api/src", "jobs/src", "sandbox/src", "schedules/src", "schema/src", "src", "workers/src"] {
        for (path, text) in sources(&root().join(dir)) {
            let code = text.lines().map(str::trim_start).filter(|line| !line.starts_with("//"));
            if code.into_iter().any(|line| line.contains(word)) {
                files.push(path.strip_prefix(root()).expect("inside").display().to_string());
            }
        }
    }
    files.sort();
    files
}

#[test]
fn one_file_knows_the_broker() {
    assert_eq!(files_that_name("apalis_redis"), ["workers/src/broker.rs"]);
}

#[test]
fn only_the_edge_and_the_sandbox_know_http_servers() {
    let files = files_that_name("poem");
    let stray: Vec<_> =
        files.iter().filter(|file| !file.starts_with("api/") && !file.starts_with("sandbox/")).collect();
    assert!(stray.is_empty(), "{stray:?}");
}

#[test]
fn only_the_guard_knows_governor() {
    assert_eq!(files_that_name("governor::"), ["workers/src/guard.rs"]);
}

#[test]
fn every_kind_is_registered() {
    let list = fs::read_to_string(root().join("jobs/src/kinds/mod.rs")).expect("the list");
    let kinds = sources(&root().join("jobs/src/kinds"));
    let mut files = 0;
    for (path, text) in &kinds {
        let module = path.file_stem().expect("a name").to_string_lossy();
        if module == "mod" {
            continue;
        }
        files += 1;
        assert!(text.contains("const KIND: &'static str ="), "{module} is no kind");
        assert!(list.contains(&format!("register::<{module}::")), "{module} is not registered");
    }
    assert_eq!(entropy_jobs::kinds::registry().kinds().count(), files);
}

/// Kinds are stored by name and their promises are relied on: a change here is a decision.
#[test]
fn kinds_are_as_recorded() {
    let mut found = String::from("kind | queue | delivery | attempts | timeout\n");
    for info in entropy_jobs::kinds::registry().kinds() {
        let delivery = serde_json::to_value(info.delivery).expect("a word");
        found += &format!(
            "{} | {} | {} | {} | {} s\n",
            info.kind,
            info.queue,
            delivery.as_str().expect("a word"),
            info.max_attempts,
            info.timeout.as_secs()
        );
    }
    let path = root().join("tests/snapshots/kinds.txt");
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        fs::create_dir_all(path.parent().expect("a directory")).expect("the directory");
        fs::write(&path, &found).expect("the snapshot is written");
    }
    let recorded = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        found, recorded,
        "if this is meant: UPDATE_SNAPSHOTS=1 cargo test --test it kinds_are_as_recorded"
    );
}
