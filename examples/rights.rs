//! Shows a lock, an election and a counter: three workers of one process add to a number one after the other, and one of them leads.
//!
//! ```text
//! cargo run -p tenure --example rights
//! ```

use std::future::IntoFuture as _;
use std::time::Duration;

use tenure::prelude::*;

async fn work(name: &'static str, client: Client) -> Result<(), Error> {
    let guard = client.lock("inventory").wait(Duration::from_secs(10)).await?;
    let fence = guard.fence();
    // The work is stopped if the lock is about to be lost; whatever it changes should look at the fence too.
    let sum = guard.run(client.counter("visits").add(1).into_future()).await;
    match sum {
        Ok(sum) => println!("{name} holds the lock under fence {fence} and counts {}", sum?),
        Err(lost) => println!("{name} lost the lock: {lost}"),
    }
    guard.release().await
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let node = Node::builder("rights").ephemeral().start().await?;
    node.ready().await;

    let leadership = node.client().election("reporter").campaign("this process").await?;
    println!("leads under fence {}", leadership.fence());

    let workers: Vec<_> = ["ann", "ben", "cem"].map(|name| tokio::spawn(work(name, node.client()))).into();
    for worker in workers {
        worker.await??;
    }
    assert_eq!(node.client().counter("visits").get().await?, 3);

    leadership.resign().await?;
    println!("nobody leads now: {:?}", node.client().election("reporter").leader().await?);
    node.shutdown(Duration::from_secs(5)).await;
    Ok(())
}
