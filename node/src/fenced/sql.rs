//! The rule in SQL: one table, one statement, in the transaction of the effect.

use protocol::Fence;

/// How a database writes the places of parameters.
///
/// ```
/// use tenure::fenced::{Dialect, Sql};
///
/// assert!(Sql::new(Dialect::Postgres).claim().contains("VALUES ($1, $2)"));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// `?1`, `?2`: SQLite.
    #[default]
    Sqlite,
    /// `$1`, `$2`: PostgreSQL.
    Postgres,
}

/// The statements that fence a database.
///
/// Begin a transaction, run [`Sql::claim`] with the name of what is written and the fence, and go on only if **one** row
/// was changed. None means that a later holder was here: roll back. The row stays locked until the transaction ends, so
/// nobody comes between. Compare the number yourself in a statement of your own only if it does the same in one step.
///
/// ```
/// use tenure::fenced::{Dialect, Sql};
///
/// let sql = Sql::new(Dialect::Sqlite);
/// assert!(sql.schema().starts_with("CREATE TABLE IF NOT EXISTS tenure_fences"));
/// assert!(sql.claim().contains("VALUES (?1, ?2)"));
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Sql(Dialect);

impl Sql {
    /// For this kind of database.
    ///
    /// ```
    /// use tenure::fenced::{Dialect, Sql};
    ///
    /// let sql = Sql::new(Dialect::Sqlite);
    /// # let _ = sql;
    /// ```
    #[must_use]
    pub fn new(dialect: Dialect) -> Self {
        Self(dialect)
    }

    /// Creates the table, once.
    ///
    /// ```
    /// use tenure::fenced::{Dialect, Sql};
    ///
    /// println!("{}", Sql::new(Dialect::Sqlite).schema());
    /// ```
    #[must_use]
    pub fn schema(self) -> &'static str {
        "CREATE TABLE IF NOT EXISTS tenure_fences (name TEXT PRIMARY KEY, fence BIGINT NOT NULL)"
    }

    /// Takes a fence: parameters are the name and [`Sql::number`] of the fence. Changes one row, or none if a higher one
    /// was taken.
    ///
    /// ```
    /// use tenure::fenced::{Dialect, Sql};
    ///
    /// println!("{}", Sql::new(Dialect::Postgres).claim());
    /// ```
    #[must_use]
    pub fn claim(self) -> &'static str {
        match self.0 {
            Dialect::Sqlite => {
                "INSERT INTO tenure_fences (name, fence) VALUES (?1, ?2) ON CONFLICT (name) \
                 DO UPDATE SET fence = excluded.fence WHERE tenure_fences.fence <= excluded.fence"
            }
            Dialect::Postgres => {
                "INSERT INTO tenure_fences (name, fence) VALUES ($1, $2) ON CONFLICT (name) \
                 DO UPDATE SET fence = excluded.fence WHERE tenure_fences.fence <= excluded.fence"
            }
        }
    }

    /// A fence as databases store it. Fences are revisions, and stay below 2^63 for longer than anything lasts.
    ///
    /// ```
    /// use tenure::Fence;
    /// use tenure::fenced::{Dialect, Sql};
    ///
    /// assert_eq!(Sql::new(Dialect::Sqlite).number(Fence(4711)), 4711);
    /// ```
    #[must_use]
    pub fn number(self, fence: impl Into<Fence>) -> i64 {
        i64::try_from(fence.into().0).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    fn write(connection: &mut Connection, fence: u64, value: &str) -> bool {
        let sql = Sql::new(Dialect::Sqlite);
        let transaction = connection.transaction().unwrap();
        let taken = transaction.execute(sql.claim(), ("stock", sql.number(Fence(fence)))).unwrap();
        transaction.execute("UPDATE stock SET value = ?1", [value]).unwrap();
        if taken == 1 {
            transaction.commit().unwrap()
        } else {
            transaction.rollback().unwrap()
        }
        taken == 1
    }

    #[test]
    fn a_replaced_holder_changes_no_row() {
        let mut connection = Connection::open_in_memory().unwrap();
        let sql = Sql::new(Dialect::Sqlite);
        connection.execute(sql.schema(), ()).unwrap();
        connection.execute(sql.schema(), ()).unwrap();
        connection.execute_batch("CREATE TABLE stock (value TEXT); INSERT INTO stock VALUES ('')").unwrap();
        assert!(write(&mut connection, 7, "first"));
        assert!(write(&mut connection, 7, "first again"));
        assert!(write(&mut connection, 12, "second"));
        assert!(!write(&mut connection, 7, "late"));
        let value: String = connection.query_row("SELECT value FROM stock", (), |row| row.get(0)).unwrap();
        assert_eq!(value, "second");
    }
}
