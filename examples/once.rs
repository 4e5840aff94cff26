//! Shows something that is done once in the whole cluster: three processes try, the first one fails, one succeeds, and all get its outcome.
//!
//! ```text
//! cargo run -p tenure --example once
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tenure::prelude::*;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let node = Node::builder("once").ephemeral().start().await?;
    node.ready().await;

    let runs = Arc::new(AtomicU32::new(0));
    let processes: Vec<_> = (1..=3)
        .map(|process| {
            let (client, runs) = (node.client(), runs.clone());
            tokio::spawn(async move {
                let migrate = || async move {
                    let run = runs.fetch_add(1, Ordering::SeqCst) + 1;
                    println!("process {process} runs the migration: run {run}");
                    if run == 1 { Err("the disk is full") } else { Ok(7_u32) }
                };
                let outcome = client.once("migrate-v7").run(migrate).await;
                println!("process {process} hears {outcome:?}");
                outcome.ok()
            })
        })
        .collect();
    let mut outcomes = Vec::new();
    for process in processes {
        outcomes.extend(process.await?);
    }
    assert_eq!(
        (outcomes, runs.load(Ordering::SeqCst)),
        (vec![7, 7], 2),
        "one failure, one success, one who only hears"
    );

    node.shutdown(Duration::from_secs(5)).await;
    Ok(())
}
