//! Migrates a ledger file to the schema version that this program writes.

use rusqlite::Connection;

/// Each migration goes from one version to the next. A released migration never changes.
const MIGRATIONS: &[&str] = &[
    include_str!("../../assets/migrations/0001_ledger.sql"),
    include_str!("../../assets/migrations/0002_task.sql"),
    include_str!("../../assets/migrations/0003_caller.sql"),
];

/// Identifies a file as an aiproxy ledger: "aipx".
const APPLICATION_ID: i32 = 0x6169_7078;

/// Why a ledger file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    #[error("it holds something else than a ledger")]
    Foreign,
    #[error("it was written by a newer aiproxy (version {0} of its form; this one knows {known})", known = MIGRATIONS.len())]
    Newer(usize),
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
}

/// Returns the schema version that this program writes.
#[must_use]
pub fn latest_version() -> usize {
    MIGRATIONS.len()
}

/// Applies all missing migrations in one transaction.
///
/// # Errors
///
/// The file is from a newer version or another program (it is left unchanged), or SQLite fails.
pub fn migrate(connection: &mut Connection) -> Result<(), MigrateError> {
    run_steps(connection, MIGRATIONS)
}

fn run_steps(connection: &mut Connection, steps: &[&str]) -> Result<(), MigrateError> {
    let tx = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let number = |name: &str| tx.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let version = usize::try_from(number("user_version")?).unwrap_or(usize::MAX);
    if number("application_id")? != APPLICATION_ID {
        let tables: i64 =
            tx.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        if tables > 0 || version > 0 {
            return Err(MigrateError::Foreign);
        }
    }
    if version > steps.len() {
        return Err(MigrateError::Newer(version));
    }
    for step in &steps[version..] {
        tx.execute_batch(step)?;
    }
    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    tx.pragma_update(None, "user_version", i32::try_from(steps.len()).unwrap_or(i32::MAX))?;
    tx.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(connection: &Connection) -> Vec<(String, String)> {
        let mut query = connection
            .prepare("SELECT name, coalesce(sql, '') FROM sqlite_schema ORDER BY name")
            .unwrap();
        let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.map(Result::unwrap).collect()
    }

    #[test]
    fn every_earlier_version_migrates_to_the_same_schema() {
        let mut fresh = Connection::open_in_memory().unwrap();
        migrate(&mut fresh).unwrap();
        for version in 0..=MIGRATIONS.len() {
            let mut old = Connection::open_in_memory().unwrap();
            if version > 0 {
                run_steps(&mut old, &MIGRATIONS[..version]).unwrap();
            }
            migrate(&mut old).unwrap();
            assert_eq!(schema(&old), schema(&fresh), "from version {version}");
            migrate(&mut old).unwrap();
        }
    }

    #[test]
    fn newer_and_foreign_files_are_not_modified() {
        let mut newer = Connection::open_in_memory().unwrap();
        migrate(&mut newer).unwrap();
        newer.pragma_update(None, "user_version", 99).unwrap();
        assert!(matches!(migrate(&mut newer), Err(MigrateError::Newer(99))));

        let mut other = Connection::open_in_memory().unwrap();
        other.execute_batch("CREATE TABLE bookmarks (url TEXT)").unwrap();
        let before = schema(&other);
        assert!(matches!(migrate(&mut other), Err(MigrateError::Foreign)));
        assert_eq!(schema(&other), before);
    }

    #[test]
    fn failed_migration_step_changes_nothing() {
        let mut file = Connection::open_in_memory().unwrap();
        assert!(run_steps(&mut file, &["CREATE TABLE a (x)", "CREATE TABLE a (x)"]).is_err());
        assert!(schema(&file).is_empty());
    }
}
