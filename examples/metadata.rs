//! Shows keys that go with a session, a transaction, and a watch that sees all of it.
//!
//! ```text
//! cargo run -p tenure --example metadata
//! ```

use std::time::Duration;

use tenure::kv::{WatchEvent, get, put, rev_of};
use tenure::prelude::*;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let node = Node::builder("metadata").ephemeral().start().await?;
    node.ready().await;
    let kv = node.client().kv();

    let stock = kv.put("shop/apples", "42").await?;
    let mut watch = kv.watch("shop/").with_snapshot().await?;

    // Sold once: the second buyer has read the same revision, and comes too late.
    for buyer in ["ada", "bob"] {
        let sale = kv
            .txn()
            .when(rev_of("shop/apples").eq(stock))
            .then(put("shop/apples", "41"))
            .then(put(format!("shop/orders/{buyer}"), "1 apple"))
            .or_else(get("shop/apples"))
            .await?;
        println!("{buyer}: {}", if sale.held { "sold" } else { "somebody was faster" });
        assert_eq!(sale.held, buyer == "ada");
    }

    // A cashier is there as long as its session.
    let session = node.client().session(Duration::from_secs(6)).label("cashier").await?;
    kv.put("shop/cashier", "open").ephemeral(&session).if_absent().await?;
    session.close().await?;

    while let Some(event) = watch.next().await {
        match event? {
            WatchEvent::Snapshot(page) => page.entries.iter().for_each(|(key, _)| println!("  {key} is there")),
            WatchEvent::Put { key, value } => println!("  {key} = {}", String::from_utf8_lossy(&value.value)),
            WatchEvent::Delete { key, why, .. } => {
                println!("  {key} is gone: {why:?}");
                break;
            }
            _ => {}
        }
    }
    node.shutdown(Duration::from_secs(5)).await;
    Ok(())
}
