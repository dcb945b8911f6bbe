//! The migrations, and what the code believes of the tables.

use std::collections::BTreeMap;

use diesel::sql_query;
use diesel::sql_types::{Bool, Text};
use diesel_async::RunQueryDsl;
use entropy_schema::{Db, Profile, migrations};

use crate::harness::servers::Database;
use crate::harness::{book, turn};

const TABLES: &str = include_str!("../../schema/src/tables.rs");

#[derive(diesel::QueryableByName)]
struct Column {
    #[diesel(sql_type = Text)]
    table_name: String,
    #[diesel(sql_type = Text)]
    column_name: String,
    #[diesel(sql_type = Text)]
    udt_name: String,
    #[diesel(sql_type = Bool)]
    nullable: bool,
}

/// Every column of every table, but for the migrations' own.
async fn columns(db: &Db) -> BTreeMap<(String, String), (String, bool)> {
    let mut conn = db.conn().await.expect("a connection");
    let columns: Vec<Column> = sql_query(
        "SELECT table_name::text, column_name::text, udt_name::text, is_nullable = 'YES' AS nullable \
         FROM information_schema.columns WHERE table_schema = 'public' AND table_name NOT LIKE '\\_\\_diesel%'",
    )
    .load(&mut conn)
    .await
    .expect("the columns");
    columns.into_iter().map(|c| ((c.table_name, c.column_name), (c.udt_name, c.nullable))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn migrations_go_up_down_and_up_again() {
    let _turn = turn::shared().await;
    let database = Database::empty().await;
    let db = Db::new(database.url(), 2, Profile::Api).expect("a pool");
    let objects = "SELECT count(*) AS n FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace \
        WHERE s.nspname = 'public' AND c.relname NOT LIKE '\\_\\_diesel%'";
    let before = book::number(&db, objects).await;

    let applied = migrations::run_pending(database.url()).await.expect("up");
    assert!(!applied.is_empty());
    assert_eq!(migrations::run_pending(database.url()).await.expect("again"), Vec::<String>::new());
    let first = columns(&db).await;
    assert!(first.len() > 100, "{} columns", first.len());

    for _ in &applied {
        migrations::revert_last(database.url()).await.expect("down");
    }
    assert_eq!(book::number(&db, objects).await, before, "the way back leaves nothing");
    migrations::run_pending(database.url()).await.expect("up again");
    assert_eq!(columns(&db).await, first);
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_migrate_at_once_take_turns() {
    let _turn = turn::shared().await;
    let database = Database::empty().await;
    let runs = (0..4).map(|_| {
        let url = database.url().to_owned();
        tokio::spawn(async move { migrations::run_pending(&url).await })
    });
    let mut applied = 0;
    for run in futures::future::join_all(runs).await {
        applied += usize::from(!run.expect("no panic").expect("migrated").is_empty());
    }
    assert_eq!(applied, 1, "one of them does the work");
}

#[tokio::test]
async fn the_tables_in_the_code_are_those_of_the_migrations() {
    let _turn = turn::shared().await;
    let database = Database::create().await;
    let db = Db::new(database.url(), 2, Profile::Api).expect("a pool");
    let real = columns(&db).await;
    let believed = believed();
    for (column, (kind, nullable)) in &believed {
        assert_eq!(real.get(column), Some(&(kind.clone(), *nullable)), "{column:?}");
    }
    for column in real.keys() {
        assert!(believed.contains_key(column), "{column:?} is missing in schema/src/tables.rs");
    }
}

/// Reads `schema/src/tables.rs`.
fn believed() -> BTreeMap<(String, String), (String, bool)> {
    let mut columns = BTreeMap::new();
    for table in TABLES.split("diesel::table! {").skip(1) {
        let mut lines = table.lines().map(str::trim).filter(|line| !line.is_empty());
        let head = lines.next().expect("a table's head");
        let name = head.split([' ', '(']).next().expect("a table's name");
        for line in lines.take_while(|line| *line != "}") {
            let (column, kind) = line.trim_end_matches(',').split_once(" -> ").expect("a column");
            let inner = kind.strip_prefix("Nullable<").and_then(|kind| kind.strip_suffix('>'));
            let kind = udt(inner.unwrap_or(kind));
            columns.insert((name.to_owned(), column.to_owned()), (kind.to_owned(), inner.is_some()));
        }
    }
    columns
}

fn udt(kind: &str) -> &str {
    match kind {
        "Uuid" => "uuid",
        "Text" => "text",
        "Timestamptz" => "timestamptz",
        "SmallInt" | "Int2" => "int2",
        "Integer" | "Int4" => "int4",
        "BigInt" | "Int8" => "int8",
        "Bool" => "bool",
        "Jsonb" => "jsonb",
        "Bytea" | "Binary" => "bytea",
        "Numeric" => "numeric",
        "Date" => "date",
        "Array<Date>" => "_date",
        "Array<Text>" => "_text",
        "Array<Uuid>" => "_uuid",
        other => other,
    }
}
