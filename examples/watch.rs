//! Shows a watch: what is there, then every change in order, without a gap; and why a key is gone.
//!
//! ```text
//! cargo run -p tenure --example watch
//! ```

use std::time::Duration;

use tenure::kv::WatchEvent;
use tenure::prelude::*;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let node = Node::builder("watches").ephemeral().start().await?;
    node.ready().await;
    let (client, kv) = (node.client(), node.client().kv());

    kv.put("workers/w1", "idle").await?;
    let mut watch = kv.watch("workers/").with_snapshot().await?;

    let session = client.session(Duration::from_secs(6)).await?;
    kv.put("workers/w2", "here").ephemeral(&session).await?;
    kv.put("workers/w1", "busy").await?;
    kv.put("elsewhere", "is not told").await?;
    kv.delete("workers/w1").await?;
    session.close().await?;

    let mut told = Vec::new();
    while told.len() < 5 {
        let Some(event) = watch.next().await.transpose()? else { break };
        match event {
            WatchEvent::Snapshot(page) => {
                told.extend(page.entries.iter().map(|(key, _)| format!("{key} is there")));
            }
            WatchEvent::Put { key, value } => told.push(format!("{key} = {}", String::from_utf8_lossy(&value.value))),
            WatchEvent::Delete { key, why, .. } => told.push(format!("{key} is gone: {why:?}")),
            WatchEvent::Resync { .. } => println!("a snapshot follows: forget what you know"),
            _ => {} // nothing happened for a while
        }
    }
    told.iter().for_each(|line| println!("{line}"));
    assert_eq!(
        told,
        [
            "workers/w1 is there",
            "workers/w2 = here",
            "workers/w1 = busy",
            "workers/w1 is gone: Deleted",
            "workers/w2 is gone: SessionEnded",
        ]
    );

    node.shutdown(Duration::from_secs(5)).await;
    Ok(())
}
