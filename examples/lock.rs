//! Shows a lock: three workers change one number in turn, each under a fence greater than the one before, and whoever was replaced changes
//! nothing any more.
//!
//! ```text
//! cargo run -p tenure --example lock
//! ```

use std::time::Duration;

use tenure::kv::{held, put};
use tenure::prelude::*;

async fn work(name: &'static str, client: Client) -> Result<Fence, Error> {
    let guard = client.lock("inventory").wait(Duration::from_secs(10)).await?;
    let kv = client.kv();
    // The work is dropped if the lock is about to be lost. The transaction asks once more, where it counts.
    let work = async {
        let stock =
            kv.get("stock").await?.map_or(0, |stock| String::from_utf8_lossy(&stock.value).parse().unwrap_or(0));
        kv.txn().when(held(&guard)).then(put("stock", (stock + 1).to_string())).await
    };
    match guard.run(work).await {
        Ok(done) => println!("{name} holds the lock under fence {}; changed: {}", guard.fence(), done?.held),
        Err(lost) => println!("{name} lost the lock: {lost}"),
    }
    let fence = guard.fence();
    guard.release().await?;
    Ok(fence)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let node = Node::builder("locks").ephemeral().start().await?;
    node.ready().await;
    let client = node.client();

    let workers: Vec<_> = ["ann", "ben", "cem"].map(|name| tokio::spawn(work(name, node.client()))).into();
    for worker in workers {
        worker.await??;
    }
    assert_eq!(client.kv().get("stock").await?.expect("it was counted").value, "3");

    // Readers hold it together; a writer is told at once that it is not free.
    let (one, two) = (client.lock("inventory").shared().await?, client.lock("inventory").shared().await?);
    match client.lock("inventory").await {
        Err(Error::Held { .. }) => println!("two readers are in, so no writer is"),
        other => panic!("a writer beside readers: {other:?}"),
    }
    drop((one, two));

    // Whoever lost the lock and does not know it yet is refused by whatever looks at the fence.
    let slow = client.lock("inventory").wait_long().await?;
    let late = held(&slow);
    slow.release().await?;
    let done = client.kv().txn().when(late).then(put("stock", "0")).await?;
    println!("a write under a lock that was given back is done: {}", done.held);
    assert!(!done.held);

    node.shutdown(Duration::from_secs(5)).await;
    Ok(())
}
