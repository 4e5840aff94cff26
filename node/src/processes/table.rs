//! The nodes of a cluster of child processes, as one table.

use super::Processes;
use crate::cli::{Output, Paint};

/// The heads and rows of the table: who is where, and what it says of itself right now.
pub(crate) async fn table(processes: &mut Processes, output: &Output) -> (Vec<&'static str>, Vec<Vec<String>>) {
    let mut rows = Vec::with_capacity(processes.len());
    for place in 0..processes.len() {
        let status = processes.get(place, "/v1/status").await;
        let (role, state) = match &status {
            Some(status) if status["master"].is_string() && status["master"] == status["node"] => {
                (output.paint(Paint::Good, &format!("{} master", output.symbol("★"))), true)
            }
            Some(status) => (status["part"].as_str().unwrap_or("-").to_owned(), true),
            None => ("-".to_owned(), processes.is_alive(place)),
        };
        let state = match (state, status.is_some()) {
            (true, true) => output.paint(Paint::Good, &format!("{} alive", output.symbol("●"))),
            (true, false) => output.paint(Paint::Odd, &format!("{} silent", output.symbol("○"))),
            (false, _) => output.paint(Paint::Bad, &format!("{} ended", output.symbol("✕"))),
        };
        rows.push(vec![
            processes.label(place).to_owned(),
            processes.pid(place).map_or("-".to_owned(), |pid| pid.to_string()),
            processes.link(place).to_string(),
            processes.http(place).to_string(),
            role,
            state,
        ]);
    }
    (vec!["NODE", "PID", "CLUSTER", "HTTP", "ROLE", "STATE"], rows)
}
