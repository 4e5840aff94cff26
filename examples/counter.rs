//! Shows a counter: blocks of ids that nobody else gets, and an addition that is sent twice and counts once.
//!
//! ```text
//! cargo run -p tenure --example counter
//! ```

use std::time::Duration;

use tenure::prelude::*;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let node = Node::builder("counters").ephemeral().start().await?;
    node.ready().await;
    let ids = node.client().counter("ids");

    let blocks: Vec<_> = (0..4)
        .map(|_| {
            let ids = node.client().counter("ids");
            tokio::spawn(async move { ids.add(100).await })
        })
        .collect();
    let mut ends = Vec::new();
    for block in blocks {
        let end = block.await??;
        println!("ids {} to {end} are ours alone", end - 99);
        ends.push(end);
    }
    ends.sort_unstable();
    assert_eq!(ends, [100, 200, 300, 400]);

    // Whoever does not know whether the first try arrived sends it again under the same key.
    let first = ids.add(100).once("request-9").await?;
    let again = ids.add(100).once("request-9").await?;
    println!("sent twice, counted once: {first} and {again}");
    assert_eq!((first, again, ids.get().await?), (500, 500, 500));

    node.shutdown(Duration::from_secs(5)).await;
    Ok(())
}
