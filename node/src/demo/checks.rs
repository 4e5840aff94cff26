//! What must be true in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::faults::{Fault, Late};
use super::job::{self, Result as Drawn};
use super::render::{FRAMES, golden};
use crate::cli::{Diagnostic, Patient};
use crate::processes::Processes;

/// One check and how it went.
#[derive(Clone, Debug)]
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) pass: bool,
    pub(super) text: String,
}

/// Every frame is there and is the one that was shipped.
pub(super) fn frames(results: &BTreeMap<u32, Drawn>) -> Check {
    let wrong: Vec<String> = golden()
        .enumerate()
        .filter_map(|(number, sum)| {
            let result = results.get(&u32::try_from(number).expect("a few dozen"));
            match result.map(|result| &result.drawn) {
                Some(Ok(frame)) if frame.sha256() == sum => None,
                Some(Ok(_)) => Some(format!("frame {number} differs")),
                Some(Err(why)) => Some(format!("frame {number}: {why}")),
                None => Some(format!("frame {number} is missing")),
            }
        })
        .collect();
    let good = FRAMES as usize - wrong.len();
    let mut text = format!("{good} of {FRAMES} frames match the shipped SHA-256 list");
    if let Some(first) = wrong.first() {
        text = format!("{text} ({first})");
    }
    Check { name: "frames", pass: wrong.is_empty(), text }
}

/// Every task has exactly one recorded result, by the tasks' own histories and by the cluster's count.
pub(super) async fn results(cluster: &Patient, results: &BTreeMap<u32, Drawn>) -> Result<Check, Diagnostic> {
    let (mut recorded, mut attempts, mut doubled) = (0, 0, 0);
    for result in results.values() {
        let history = job::history(cluster, &result.task).await?;
        let count = |event: &str| history.iter().filter(|line| line["event"] == event).count();
        recorded += count("done");
        attempts += count("assigned");
        doubled += count("done").saturating_sub(1);
    }
    let counted = counted(cluster).await?;
    let pass = recorded == FRAMES as usize && doubled == 0 && counted == Some(FRAMES.into());
    let mut text =
        format!("{recorded} results recorded for {FRAMES} tasks · {attempts} attempts · {doubled} duplicates");
    if counted != Some(FRAMES.into()) {
        text = format!("{text} (the cluster counts {})", counted.map_or("?".into(), |count| count.to_string()));
    }
    Ok(Check { name: "results", pass, text })
}

/// How many results the cluster has recorded by its own count. A node tells what it has applied, which may lag a moment
/// behind what another one has told already: too few are asked for again, too many are an answer.
async fn counted(cluster: &Patient) -> Result<Option<u64>, Diagnostic> {
    let begin = Instant::now();
    loop {
        let counted = cluster.get("/v1/status").await?["tasks"]["results_recorded"].as_u64();
        if counted >= Some(FRAMES.into()) || begin.elapsed() > PATIENCE {
            return Ok(counted);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What the paused master did after it woke up was refused.
pub(super) fn late(faults: &BTreeSet<Fault>, late: Option<&Late>) -> Option<Check> {
    faults.contains(&Fault::Pause).then(|| match late {
        Some(late) => Check { name: "late-result", pass: true, text: format!("1 late result refused ({})", late.task) },
        None => Check { name: "late-result", pass: false, text: "no late result was refused".into() },
    })
}

/// No epoch had two masters.
pub(super) fn masters(leaders: &BTreeMap<u64, BTreeSet<usize>>) -> Check {
    let doubled: Vec<u64> = leaders.iter().filter(|(_, nodes)| nodes.len() > 1).map(|(epoch, _)| *epoch).collect();
    let text = match doubled.first() {
        None => format!("never two masters in one epoch ({} seen)", leaders.len()),
        Some(epoch) => format!("two masters in epoch {epoch}"),
    };
    Check { name: "masters", pass: doubled.is_empty() && !leaders.is_empty(), text }
}

/// All nodes hold the same state. They are compared at one place of the log, which each of them must reach first.
pub(super) async fn states(processes: &Processes) -> Check {
    let begin = Instant::now();
    let mut text = "no two looks at the nodes met at one place of the log".to_owned();
    while begin.elapsed() < PATIENCE {
        let asked = (0..processes.len()).map(|place| processes.get(place, "/v1/status"));
        let statuses: Vec<Option<Value>> = futures_util::future::join_all(asked).await;
        let Some(statuses) = statuses.into_iter().collect::<Option<Vec<Value>>>() else {
            text = "not every node answers".into();
            tokio::time::sleep(LOOK_EVERY).await;
            continue;
        };
        let same = |key: &str| statuses.iter().all(|status| status[key] == statuses[0][key] && !status[key].is_null());
        if same("applied") {
            let pass = same("state_hash") && same("revision");
            let names: Vec<&str> = (0..processes.len()).map(|place| processes.label(place)).collect();
            let word = if pass { "identical" } else { "different" };
            let hash = statuses[0]["state_hash"].as_str().unwrap_or("?");
            text =
                format!("state of {} {word} at revision {} (digest {hash})", names.join(", "), statuses[0]["revision"]);
            return Check { name: "states", pass, text };
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Check { name: "states", pass: false, text }
}

const PATIENCE: Duration = Duration::from_secs(20);

/// Not a divisor of any timer of the nodes, so that looks do not always fall on the moment of a change.
const LOOK_EVERY: Duration = Duration::from_millis(37);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_nodes_that_led_in_one_epoch_fail_the_check() {
        let one = BTreeMap::from([(1, BTreeSet::from([0])), (2, BTreeSet::from([1]))]);
        assert!(masters(&one).pass);
        let two = BTreeMap::from([(1, BTreeSet::from([0, 2]))]);
        assert!(!masters(&two).pass && masters(&two).text.contains("epoch 1"));
        assert!(!masters(&BTreeMap::new()).pass, "nobody was seen leading: nothing is proven");
    }

    #[test]
    fn a_frame_that_is_missing_fails_the_check_by_name() {
        let check = frames(&BTreeMap::new());
        assert!(!check.pass && check.text.contains("0 of 48") && check.text.contains("frame 0 is missing"));
    }
}
