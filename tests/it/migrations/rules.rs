//! What a migration must not do while the platform runs, and what to do instead. Pure.
//!
//! A file is cut into statements by the tokens of SQL and each is parsed as Postgres would. What cannot be parsed is
//! refused too: a check that looks away is none.

use std::collections::HashSet;

use sqlparser::ast::{
    AlterColumnOperation, AlterTable, AlterTableOperation, ColumnDef, ColumnOption, ContextModifier,
    CreateIndex, CreateTable, Expr, FromTable, ObjectName, ObjectType, Set, Statement, TableConstraint,
    TableFactor, TableObject, UnaryOperator,
};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Token, Tokenizer, Whitespace};

/// Every rule: its name, and what to do instead. `migrations/README.md` has the same list.
pub(super) const RULES: [(&str, &str); 19] = [
    ("drop_table", "stop using the table in one release and drop it in a later one, with an allowance"),
    ("drop_column", "stop using the column in one release and drop it in a later one, with an allowance"),
    ("rename", "add the new name beside the old one; running processes use the old one"),
    ("column_type", "add a column of the new type, fill it from a job, and read it in a later release"),
    ("set_not_null", "add a `CHECK (… IS NOT NULL) NOT VALID`, validate it in a later migration"),
    ("column_not_null", "give it a constant default, or leave it nullable; old processes insert without it"),
    ("drop_default", "leave the default until no running version inserts without the column"),
    ("volatile_default", "add the column without a default or with a constant one, and fill it from a job"),
    ("validated_constraint", "add it as `NOT VALID` and validate it in a later migration"),
    (
        "validate_apart",
        "validate in a migration of its own: locks of the others would last as long as the scan",
    ),
    ("unique_constraint", "create a unique index concurrently, then add the constraint `USING INDEX`"),
    ("blocking_index", "create and drop indexes `CONCURRENTLY`; otherwise writers wait"),
    ("concurrently_alone", "give it a folder of its own, one statement, with `run_in_transaction = false`"),
    ("not_repeatable", "write `IF NOT EXISTS` or `IF EXISTS`: outside of a transaction it may stop half way"),
    ("data_change", "change rows from a job, in slices; a migration holds its locks until it ends"),
    ("table_lock", "no statement may keep writers or readers out while it works"),
    (
        "lock_timeout",
        "begin with `SET LOCAL lock_timeout = '3s'`: whoever waits for a lock holds up all behind it",
    ),
    ("hot_table", "no foreign keys on hot tables, and no index on what changes at a job's end"),
    ("not_understood", "write it so that this check can read it, or allow it with a reason"),
];

/// Tables with many writers at any moment; see `migrations/README.md`.
pub(super) const HOT: [&str; 9] = [
    "jobs",
    "pending",
    "leases",
    "lanes",
    "attempts",
    "sends",
    "idempotency_keys",
    "unique_keys",
    "job_endings",
];

/// Columns of `jobs` that the update at a job's end changes.
const CHANGED_AT_THE_END: [&str; 6] =
    ["final_state", "attempt", "result", "error", "started_at", "finalized_at"];

/// Something that a migration must not do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Violation {
    /// Which rule.
    pub(super) rule: &'static str,
    /// What was found and what to do instead.
    pub(super) says: String,
}

/// Returns what is wrong with an `up.sql`. `in_transaction` is what its `metadata.toml` says, true without one.
pub(super) fn violations(sql: &str, in_transaction: bool) -> Vec<Violation> {
    let pieces = match pieces(sql) {
        Ok(pieces) => pieces,
        Err(error) => return vec![violation("not_understood", &error)],
    };
    let mut check = Check { in_transaction, statements: pieces.len(), ..Check::default() };
    let mut found = Vec::new();
    for piece in &pieces {
        check.found.clear();
        check.piece(piece);
        let mut unused: HashSet<&str> = HashSet::new();
        for (rule, reason) in &piece.allowed {
            if reason.is_empty() || RULES.iter().all(|(name, _)| name != rule) {
                let wrong = format!("`-- allowed: {rule}: {reason}` names no rule or gives no reason");
                found.push(violation("not_understood", &wrong));
            }
            unused.insert(rule);
        }
        let allowed = unused.clone();
        for one in check.found.drain(..) {
            unused.remove(one.rule);
            if !allowed.contains(one.rule) {
                found.push(one);
            }
        }
        for rule in unused {
            let wrong = format!("`-- allowed: {rule}` stands before a statement that does not need it");
            found.push(violation("not_understood", &wrong));
        }
    }
    found
}

fn violation(rule: &'static str, what: &str) -> Violation {
    let (_, instead) = RULES.iter().find(|(name, _)| *name == rule).expect("a rule of the list");
    Violation { rule, says: format!("{what}: {instead}") }
}

/// One statement of a file, with the allowances in the comments before it.
struct Piece {
    tokens: Vec<Token>,
    allowed: Vec<(String, String)>,
}

impl Piece {
    /// The n-th word in capitals; empty if it is none.
    fn word(&self, n: usize) -> String {
        match self.tokens.get(n) {
            Some(Token::Word(word)) => word.value.to_uppercase(),
            _ => String::new(),
        }
    }

    fn has_word(&self, word: &str) -> bool {
        (0..self.tokens.len()).any(|n| self.word(n) == word)
    }

    fn text(&self) -> String {
        let words: Vec<String> = self.tokens.iter().map(ToString::to_string).collect();
        words.join(" ").chars().take(100).collect()
    }
}

fn pieces(sql: &str) -> Result<Vec<Piece>, String> {
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, sql).tokenize().map_err(|error| error.to_string())?;
    let mut pieces = Vec::new();
    let mut piece = Piece { tokens: Vec::new(), allowed: Vec::new() };
    for token in tokens {
        match token {
            Token::SemiColon => {
                pieces.push(std::mem::replace(&mut piece, Piece { tokens: Vec::new(), allowed: Vec::new() }));
            }
            Token::Whitespace(Whitespace::SingleLineComment { comment, .. }) => {
                if let Some(allowance) = comment.trim().strip_prefix("allowed:") {
                    let (rule, reason) = allowance.split_once(':').unwrap_or((allowance, ""));
                    piece.allowed.push((rule.trim().to_owned(), reason.trim().to_owned()));
                }
            }
            Token::Whitespace(_) => {}
            token => piece.tokens.push(token),
        }
    }
    pieces.push(piece);
    pieces.retain(|piece| !piece.tokens.is_empty() || !piece.allowed.is_empty());
    Ok(pieces)
}

/// What is known while the statements of one file are looked at.
#[derive(Default)]
struct Check {
    in_transaction: bool,
    statements: usize,
    /// Tables that this file has made: nobody uses them yet.
    made: HashSet<String>,
    has_lock_timeout: bool,
    found: Vec<Violation>,
}

impl Check {
    fn report(&mut self, rule: &'static str, what: impl AsRef<str>) {
        self.found.push(violation(rule, what.as_ref()));
    }

    fn is_old(&self, table: &ObjectName) -> bool {
        !self.made.contains(&name(table))
    }

    /// A lock that readers or writers wait for is taken on a table in use.
    fn locks(&mut self, what: &str) {
        if !self.has_lock_timeout {
            self.report("lock_timeout", what);
        }
    }

    fn piece(&mut self, piece: &Piece) {
        let text = piece.text();
        if piece.has_word("CONCURRENTLY") {
            if self.in_transaction || self.statements > 1 {
                self.report("concurrently_alone", &text);
            }
            if !piece.has_word("EXISTS") && piece.word(0) != "REINDEX" {
                self.report("not_repeatable", &text);
            }
        } else if !self.in_transaction {
            self.report("not_repeatable", "only what is done concurrently may run outside of a transaction");
        }
        // What the parser does not know, or reads differently from Postgres.
        match (piece.word(0).as_str(), piece.word(1).as_str()) {
            ("REINDEX" | "CLUSTER" | "LOCK" | "REFRESH", _) | ("VACUUM", "FULL") => {
                if !piece.has_word("CONCURRENTLY") {
                    self.report("table_lock", &text);
                }
                return;
            }
            ("DROP", "INDEX") => {
                if !piece.has_word("CONCURRENTLY") {
                    self.report("blocking_index", &text);
                }
                return;
            }
            _ => {}
        }
        let mut parser = Parser::new(&PostgreSqlDialect {}).with_tokens(piece.tokens.clone());
        match parser.parse_statement() {
            Ok(statement) if parser.peek_token().token == Token::EOF => self.statement(&statement, &text),
            Ok(_) => self.report("not_understood", format!("{text} … goes on after its end")),
            Err(error) => self.report("not_understood", format!("{text} ({error})")),
        }
    }

    fn statement(&mut self, statement: &Statement, text: &str) {
        match statement {
            Statement::Set(Set::SingleAssignment {
                scope: Some(ContextModifier::Local), variable, ..
            }) => {
                self.has_lock_timeout |= name(variable) == "lock_timeout";
            }
            Statement::CreateTable(table) => self.create_table(table),
            Statement::CreateIndex(index) => self.create_index(index, text),
            Statement::AlterTable(table) => self.alter_table(table),
            Statement::Drop { object_type: ObjectType::Table, names, .. } => {
                if names.iter().any(|table| self.is_old(table)) {
                    self.report("drop_table", text);
                    self.locks(text);
                }
            }
            Statement::CreateTrigger(trigger) => {
                if self.is_old(&trigger.table_name) {
                    self.locks(text);
                }
            }
            Statement::Update(update) => self.changes(&table_of(&update.table.relation), text),
            Statement::Delete(delete) => {
                let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
                self.changes(&from.first().map(|from| table_of(&from.relation)).unwrap_or_default(), text);
            }
            Statement::Insert(insert) => {
                let rows = insert.source.as_ref().map(|query| query.body.to_string()).unwrap_or_default();
                // A few rows that are written out hold no lock for long.
                if !rows.to_uppercase().starts_with("VALUES") {
                    let table = match &insert.table {
                        TableObject::TableName(table) => name(table),
                        _ => String::new(),
                    };
                    self.changes(&table, text);
                }
            }
            Statement::Truncate(truncate) => {
                if truncate.table_names.iter().any(|table| self.is_old(&table.name)) {
                    self.report("data_change", text);
                }
            }
            Statement::CreateExtension(_)
            | Statement::CreateFunction(_)
            | Statement::CreateView(_)
            | Statement::CreateSequence { .. }
            | Statement::CreateType { .. }
            | Statement::Comment { .. } => {}
            _ => self.report("not_understood", text),
        }
    }

    fn changes(&mut self, table: &str, text: &str) {
        if !self.made.contains(table) {
            self.report("data_change", text);
        }
    }

    fn create_table(&mut self, table: &CreateTable) {
        self.made.insert(name(&table.name));
        let foreign = |option: &ColumnOption| match option {
            ColumnOption::ForeignKey(key) => Some(key.foreign_table.clone()),
            _ => None,
        };
        let columns = table.columns.iter().flat_map(|column| &column.options);
        let mut referred: Vec<ObjectName> = columns.filter_map(|option| foreign(&option.option)).collect();
        referred.extend(table.constraints.iter().filter_map(|constraint| match constraint {
            TableConstraint::ForeignKey(key) => Some(key.foreign_table.clone()),
            _ => None,
        }));
        for other in &referred {
            if self.is_old(other) {
                self.locks(&format!("a foreign key locks {other}, which is in use"));
            }
        }
        // Lanes are made once per account; the reasons are in the README.
        let made = name(&table.name);
        if !referred.is_empty() && HOT.contains(&made.as_str()) && made != "lanes" {
            self.report("hot_table", format!("a foreign key on {made}"));
        }
    }

    fn create_index(&mut self, index: &CreateIndex, text: &str) {
        if self.is_old(&index.table_name) && !index.concurrently {
            self.report("blocking_index", text);
        }
        let columns = index.columns.iter().map(|column| column.column.expr.to_string());
        let said: Vec<String> = columns.chain(index.predicate.as_ref().map(ToString::to_string)).collect();
        let said = said.join(" ");
        let words: HashSet<&str> = said.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
        if name(&index.table_name) == "jobs" && CHANGED_AT_THE_END.iter().any(|column| words.contains(column))
        {
            self.report("hot_table", text);
        }
    }

    fn alter_table(&mut self, alter: &AlterTable) {
        if !self.is_old(&alter.name) {
            return;
        }
        let validates = |operation: &AlterTableOperation| {
            matches!(operation, AlterTableOperation::ValidateConstraint { .. })
        };
        if alter.operations.iter().any(validates) {
            if self.statements > 1 + usize::from(self.has_lock_timeout) || alter.operations.len() > 1 {
                self.report("validate_apart", alter.to_string());
            }
            return;
        }
        self.locks(&alter.to_string());
        for operation in &alter.operations {
            self.alteration(&name(&alter.name), operation);
        }
    }

    fn alteration(&mut self, table: &str, operation: &AlterTableOperation) {
        let what = format!("ALTER TABLE {table} {operation}");
        match operation {
            AlterTableOperation::AddColumn { column_def, .. } => self.add_column(table, column_def, &what),
            AlterTableOperation::AddConstraint { constraint, not_valid } => {
                self.add_constraint(table, constraint, *not_valid, &what);
            }
            AlterTableOperation::DropColumn { .. } => self.report("drop_column", what),
            AlterTableOperation::RenameColumn { .. } | AlterTableOperation::RenameTable { .. } => {
                self.report("rename", what);
            }
            AlterTableOperation::AlterColumn { op, .. } => match op {
                AlterColumnOperation::SetNotNull => self.report("set_not_null", what),
                AlterColumnOperation::SetDataType { .. } => self.report("column_type", what),
                AlterColumnOperation::DropDefault => self.report("drop_default", what),
                AlterColumnOperation::AddGenerated { .. } => self.report("volatile_default", what),
                AlterColumnOperation::DropNotNull | AlterColumnOperation::SetDefault { .. } => {}
            },
            AlterTableOperation::DropConstraint { .. }
            | AlterTableOperation::RenameConstraint { .. }
            | AlterTableOperation::SetOptionsParens { .. } => {}
            _ => self.report("not_understood", what),
        }
    }

    fn add_column(&mut self, table: &str, column: &ColumnDef, what: &str) {
        let options: Vec<&ColumnOption> = column.options.iter().map(|option| &option.option).collect();
        let default = options.iter().find_map(|option| match option {
            ColumnOption::Default(value) => Some(value),
            _ => None,
        });
        let is = |wanted: fn(&ColumnOption) -> bool| options.iter().any(|option| wanted(option));
        if is(|option| matches!(option, ColumnOption::NotNull)) && default.is_none() {
            self.report("column_not_null", what);
        }
        let serial = column.data_type.to_string().to_uppercase().contains("SERIAL");
        if serial
            || default.is_some_and(|value| !is_constant(value))
            || is(|option| matches!(option, ColumnOption::Generated { .. }))
        {
            self.report("volatile_default", what);
        }
        if is(|option| matches!(option, ColumnOption::Check(_) | ColumnOption::ForeignKey(_))) {
            self.report("validated_constraint", what);
        }
        if is(|option| matches!(option, ColumnOption::ForeignKey(_))) && HOT.contains(&table) {
            self.report("hot_table", what);
        }
        if is(|option| matches!(option, ColumnOption::Unique(_) | ColumnOption::PrimaryKey(_))) {
            self.report("unique_constraint", what);
        }
    }

    fn add_constraint(&mut self, table: &str, constraint: &TableConstraint, not_valid: bool, what: &str) {
        match constraint {
            TableConstraint::Check(_) | TableConstraint::ForeignKey(_) if !not_valid => {
                self.report("validated_constraint", what);
            }
            TableConstraint::Check(_) | TableConstraint::ForeignKey(_) => {}
            TableConstraint::Unique(_) | TableConstraint::PrimaryKey(_) | TableConstraint::Exclude(_) => {
                self.report("unique_constraint", what);
            }
            TableConstraint::UniqueUsingIndex(_) | TableConstraint::PrimaryKeyUsingIndex(_) => {}
            _ => self.report("not_understood", what),
        }
        if matches!(constraint, TableConstraint::ForeignKey(_)) && HOT.contains(&table) {
            self.report("hot_table", what);
        }
    }
}

/// Whether Postgres computes the default once, so that no row is rewritten.
fn is_constant(value: &Expr) -> bool {
    match value {
        Expr::Value(_) | Expr::TypedString(_) => true,
        Expr::Nested(inner) | Expr::Cast { expr: inner, .. } => is_constant(inner),
        Expr::UnaryOp { op: UnaryOperator::Minus | UnaryOperator::Plus, expr } => is_constant(expr),
        Expr::Array(array) => array.elem.iter().all(is_constant),
        // The time of the transaction is one and the same for all rows.
        Expr::Function(function) => matches!(
            function.name.to_string().to_lowercase().as_str(),
            "now" | "current_timestamp" | "transaction_timestamp" | "statement_timestamp"
        ),
        _ => false,
    }
}

fn table_of(relation: &TableFactor) -> String {
    match relation {
        TableFactor::Table { name: table, .. } => name(table),
        _ => String::new(),
    }
}

fn name(object: &ObjectName) -> String {
    object.0.last().map(ToString::to_string).unwrap_or_default().trim_matches('"').to_lowercase()
}
