//! What a migration must not do while old processes run: every rule has an example that it refuses and one that it
//! lets pass, and every migration keeps them all.

mod rules;

use std::path::{Path, PathBuf};

use rules::{HOT, RULES, violations};

/// A rule, statements that it refuses, and their harmless neighbours.
type Example = (&'static str, &'static [&'static str], &'static [&'static str]);

/// Statements that wait for a lock on a table in use stand behind this.
const TIMEOUT: &str = "SET LOCAL lock_timeout = '3s'; ";

const EXAMPLES: [Example; 19] = [
    (
        "drop_table",
        &["DROP TABLE jobs", "DROP TABLE IF EXISTS a, b"],
        &["CREATE TABLE a (x int); DROP TABLE a"],
    ),
    ("drop_column", &["ALTER TABLE jobs DROP COLUMN args", "ALTER TABLE users DROP IF EXISTS role"], &[]),
    ("rename", &["ALTER TABLE jobs RENAME TO tasks", "ALTER TABLE jobs RENAME COLUMN args TO input"], &[]),
    ("column_type", &["ALTER TABLE jobs ALTER COLUMN attempt TYPE integer"], &[]),
    (
        "set_not_null",
        &["ALTER TABLE jobs ALTER COLUMN lane_id SET NOT NULL"],
        &[
            "ALTER TABLE jobs ALTER COLUMN lane_id DROP NOT NULL",
            "ALTER TABLE jobs ADD CONSTRAINT c CHECK (lane_id IS NOT NULL) NOT VALID",
        ],
    ),
    (
        "column_not_null",
        &["ALTER TABLE jobs ADD COLUMN source text NOT NULL"],
        &[
            "ALTER TABLE jobs ADD COLUMN source text",
            "ALTER TABLE jobs ADD COLUMN source text NOT NULL DEFAULT 'api'",
        ],
    ),
    (
        "drop_default",
        &["ALTER TABLE sends ALTER COLUMN counts DROP DEFAULT"],
        &["ALTER TABLE sends ALTER COLUMN counts SET DEFAULT false"],
    ),
    (
        "volatile_default",
        &[
            "ALTER TABLE jobs ADD COLUMN at timestamptz DEFAULT clock_timestamp()",
            "ALTER TABLE jobs ADD COLUMN token uuid DEFAULT gen_random_uuid()",
            "ALTER TABLE jobs ADD COLUMN n bigserial",
            "ALTER TABLE jobs ADD COLUMN n bigint GENERATED ALWAYS AS IDENTITY",
            "ALTER TABLE jobs ADD COLUMN n text GENERATED ALWAYS AS (kind || queue) STORED",
        ],
        &[
            "ALTER TABLE jobs ADD COLUMN n int DEFAULT -1",
            "ALTER TABLE jobs ADD COLUMN n jsonb NOT NULL DEFAULT '{}'::jsonb",
            "ALTER TABLE jobs ADD COLUMN at timestamptz DEFAULT now()",
        ],
    ),
    (
        "validated_constraint",
        &[
            "ALTER TABLE users ADD CONSTRAINT c CHECK (role <> '')",
            "ALTER TABLE users ADD CONSTRAINT c FOREIGN KEY (a) REFERENCES organizations (id)",
            "ALTER TABLE users ADD COLUMN a int CHECK (a > 0)",
        ],
        &["ALTER TABLE users ADD CONSTRAINT c FOREIGN KEY (a) REFERENCES organizations (id) NOT VALID"],
    ),
    (
        "validate_apart",
        &[
            "ALTER TABLE users ADD CONSTRAINT c CHECK (role <> '') NOT VALID; ALTER TABLE users VALIDATE CONSTRAINT c",
        ],
        &["ALTER TABLE users VALIDATE CONSTRAINT c"],
    ),
    (
        "unique_constraint",
        &[
            "ALTER TABLE users ADD CONSTRAINT u UNIQUE (username)",
            "ALTER TABLE users ADD PRIMARY KEY (id)",
            "ALTER TABLE users ADD COLUMN n int UNIQUE",
        ],
        &["ALTER TABLE users ADD CONSTRAINT u UNIQUE USING INDEX users_u_key"],
    ),
    (
        "blocking_index",
        &[
            "CREATE INDEX i ON jobs (trace_id)",
            "CREATE UNIQUE INDEX i ON users (id)",
            "DROP INDEX jobs_lane_idx",
        ],
        &["CREATE TABLE a (x int); CREATE INDEX i ON a (x)"],
    ),
    (
        "concurrently_alone",
        &[
            "CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON jobs (trace_id)",
            "DROP INDEX CONCURRENTLY IF EXISTS i",
        ],
        &[],
    ),
    ("not_repeatable", &["CREATE INDEX CONCURRENTLY i ON jobs (trace_id)", "DROP INDEX CONCURRENTLY i"], &[]),
    (
        "data_change",
        &[
            "UPDATE jobs SET class = 2",
            "DELETE FROM sends WHERE state = 'failed'",
            "TRUNCATE audit_log",
            "INSERT INTO users SELECT * FROM people",
        ],
        &[
            "INSERT INTO organizations (id, name) VALUES ('00000000-0000-0000-0000-000000000000', 'system')",
            "CREATE TABLE a (x int); INSERT INTO a SELECT 1; UPDATE a SET x = 2; DELETE FROM a; TRUNCATE a",
        ],
    ),
    (
        "table_lock",
        &["LOCK TABLE jobs", "VACUUM FULL sends", "CLUSTER jobs USING jobs_pkey", "REINDEX TABLE pending"],
        &[],
    ),
    // Checked below: its examples must not stand behind a timeout.
    ("lock_timeout", &[], &[]),
    (
        "hot_table",
        &[
            "CREATE TABLE o (id int); ALTER TABLE sends ADD CONSTRAINT f FOREIGN KEY (a) REFERENCES o (id) NOT VALID",
            "CREATE TABLE attempts (x int REFERENCES attempts (x))",
            "CREATE INDEX i ON jobs (kind) WHERE final_state IS NULL",
            "CREATE INDEX i ON jobs (organization_id, finalized_at)",
        ],
        &["ALTER TABLE users ADD CONSTRAINT f FOREIGN KEY (a) REFERENCES organizations (id) NOT VALID"],
    ),
    (
        "not_understood",
        &[
            "DO $$ BEGIN DELETE FROM jobs; END $$",
            "ALTER TABLE jobs DISABLE TRIGGER ALL",
            "FROBNICATE jobs",
            "-- allowed: frobnicate: there is no such rule\nSELECT 1",
            "-- allowed: rename: nothing is renamed here\nCREATE TABLE a (x int)",
        ],
        &["COMMENT ON TABLE jobs IS 'work'", "CREATE TYPE mood AS ENUM ('sad', 'happy')"],
    ),
];

/// Returns the rules that an `up.sql` breaks.
pub(crate) fn refused(sql: &str, in_transaction: bool) -> Vec<&'static str> {
    violations(sql, in_transaction).into_iter().map(|violation| violation.rule).collect()
}

#[test]
fn every_rule_refuses_its_examples_and_lets_their_neighbours_pass() {
    let named: Vec<&str> = EXAMPLES.iter().map(|(rule, ..)| *rule).collect();
    assert_eq!(named, RULES.map(|(name, _)| name), "an example for every rule");
    for (rule, refused, harmless) in EXAMPLES {
        for sql in refused {
            let found = violations(&format!("{TIMEOUT}{sql};"), true);
            let says = found.iter().find(|violation| violation.rule == rule);
            let says = says.unwrap_or_else(|| panic!("{rule} lets {sql} pass: {found:?}"));
            let (_, instead) = RULES.iter().find(|(name, _)| *name == rule).expect("a rule");
            assert!(says.says.ends_with(instead), "{says:?} says what to do instead");
        }
        for sql in harmless {
            // Validation stands alone.
            let sql = if rule == "validate_apart" { (*sql).to_owned() } else { format!("{TIMEOUT}{sql};") };
            assert_eq!(violations(&sql, true), [], "{rule} lets {sql} pass");
        }
    }
}

#[test]
fn a_lock_on_a_table_in_use_is_not_waited_for_without_end() {
    for sql in [
        "ALTER TABLE jobs ADD COLUMN a int",
        "CREATE TABLE a (id int, user_id uuid REFERENCES users (id))",
        "CREATE TABLE a (id int, FOREIGN KEY (id) REFERENCES users (id))",
        "CREATE TRIGGER t BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION f()",
    ] {
        assert_eq!(refused(sql, true), ["lock_timeout"], "{sql}");
        assert_eq!(refused(&format!("{TIMEOUT}{sql}"), true), [""; 0], "{sql}");
        let after = format!("{sql}; {TIMEOUT}");
        assert_eq!(refused(&after, true), ["lock_timeout"], "too late: {after}");
        let other = format!("SET LOCAL statement_timeout = '3s'; {sql}");
        assert_eq!(refused(&other, true), ["lock_timeout"], "another one: {other}");
    }
    let own =
        "CREATE TABLE a (id int); CREATE TABLE b (a int REFERENCES a (id)); ALTER TABLE a ADD COLUMN c int";
    assert_eq!(refused(own, true), [""; 0]);
}

#[test]
fn what_is_done_concurrently_stands_alone_outside_of_a_transaction() {
    let create = "CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON jobs (trace_id)";
    for alone in [create, "DROP INDEX CONCURRENTLY IF EXISTS i", "REINDEX INDEX CONCURRENTLY jobs_pkey"] {
        assert_eq!(refused(alone, false), [""; 0], "{alone}");
        assert_eq!(refused(alone, true), ["concurrently_alone"], "{alone}");
    }
    let two = format!("{create}; {create}");
    assert_eq!(refused(&two, false), ["concurrently_alone"; 2]);
    assert!(refused("ALTER TABLE jobs ADD COLUMN a int", false).contains(&"not_repeatable"));
}

#[test]
fn an_allowance_holds_for_its_rule_and_the_statement_after_it() {
    let allowed = "-- allowed: drop_column: no version since 0.3 reads it\nALTER TABLE users DROP COLUMN a;";
    assert_eq!(refused(&format!("{TIMEOUT}{allowed}"), true), [""; 0]);
    assert_eq!(refused(allowed, true), ["lock_timeout"]);
    let next = format!("{TIMEOUT}{allowed} ALTER TABLE users DROP COLUMN b;");
    assert_eq!(refused(&next, true), ["drop_column"]);
    let no_reason = format!("{TIMEOUT}-- allowed: drop_column:\nALTER TABLE users DROP COLUMN a;");
    assert_eq!(refused(&no_reason, true), ["not_understood"]);
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations")
}

#[test]
fn every_migration_keeps_the_rules() {
    let mut seen = 0;
    for entry in std::fs::read_dir(folder()).expect("the migrations").flatten() {
        let path = entry.path();
        let Ok(sql) = std::fs::read_to_string(path.join("up.sql")) else { continue };
        assert!(path.join("down.sql").exists(), "{} has no way back", path.display());
        let metadata = std::fs::read_to_string(path.join("metadata.toml")).unwrap_or_default();
        let in_transaction = !metadata.lines().any(|line| line.trim() == "run_in_transaction = false");
        assert_eq!(violations(&sql, in_transaction), [], "{}", path.display());
        seen += 1;
    }
    assert!(seen >= 4, "{seen} migrations");
}

#[test]
fn the_readme_lists_the_rules_and_the_hot_tables() {
    let readme = std::fs::read_to_string(folder().join("README.md")).expect("the README");
    let (_, list) = readme.split_once("| Rule | Instead |\n|---|---|\n").expect("the table of rules");
    let listed: Vec<(String, String)> = list
        .lines()
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').splitn(2, '|').map(str::trim).collect();
            (cells[0].trim_matches('`').to_owned(), cells[1].to_owned())
        })
        .collect();
    let rules = RULES.map(|(name, instead)| (name.to_owned(), instead.to_owned()));
    assert_eq!(listed, rules, "migrations/README.md and tests/it/migrations/rules.rs say the same");
    let hot = HOT.map(|table| format!("`{table}`")).join(", ");
    assert!(readme.replace('\n', " ").contains(&hot), "the README names the hot tables: {hot}");
}
