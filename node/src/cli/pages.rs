//! Lists that a node shows page by page.

use serde_json::Value;

use super::http::escape;
use super::{Cluster, Diagnostic};

/// A list of a node.
pub(crate) struct List<'a> {
    /// The question, with a parameter at least.
    pub(crate) path: &'a str,
    /// Where the rows are in an answer.
    pub(crate) rows: &'a str,
    /// What a row has that the next page comes after.
    pub(crate) name: &'a str,
}

/// Page after page, until the limit or the end: the rows after `after`.
pub(crate) async fn rows(
    cluster: &Cluster,
    list: List<'_>,
    after: Option<String>,
    limit: u32,
) -> Result<Vec<Value>, Diagnostic> {
    let List { path, rows, name } = list;
    let (mut after, mut left, mut all) = (after, limit, Vec::new());
    while left > 0 {
        let asked = left.min(PAGE);
        let begin = after.map_or(String::new(), |after| format!("&after={}", escape(&after)));
        let answer = cluster.get(format!("{path}&limit={asked}{begin}")).await?;
        let page = answer[rows].as_array().cloned().unwrap_or_default();
        let shown = u32::try_from(page.len()).unwrap_or(asked).min(asked);
        left -= shown;
        after = page.last().and_then(|row| row[name].as_str()).map(str::to_owned);
        all.extend(page);
        if shown < asked || after.is_none() {
            break;
        }
    }
    Ok(all)
}

/// A right with all who hold it; begins anew if it changed between two pages.
pub(crate) async fn holders(cluster: &Cluster, path: &str) -> Result<Value, Diagnostic> {
    let mut whole = cluster.get(path).await?;
    while whole["more"] == true {
        let Some(last) = whole["holders"].as_array().and_then(|holders| holders.last()) else { break };
        let mut page = cluster.get(format!("{path}?after_fence={}", last["fence"])).await?;
        if page["revision"] != whole["revision"] {
            whole = cluster.get(path).await?;
            continue;
        }
        whole["more"] = page["more"].take();
        if let (Some(all), Some(more)) = (whole["holders"].as_array_mut(), page["holders"].as_array_mut()) {
            all.append(more);
        }
    }
    Ok(whole)
}

/// How many rows one question asks for, and the most that a node shows.
const PAGE: u32 = 1_000;
