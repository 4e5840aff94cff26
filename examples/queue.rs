//! Shows a queue: items by priority, each taken by one worker, and back in its place if that worker does not finish.
//!
//! ```text
//! cargo run -p tenure --example queue
//! ```

use std::time::Duration;

use tenure::prelude::*;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let node = Node::builder("queues").ephemeral().start().await?;
    node.ready().await;
    let client = node.client();
    let queue = client.queue("thumbs");

    queue.push("holiday.png").await?;
    queue.push("backup.png").priority(-1).await?;
    queue.push("front-page.png").priority(10).await?;

    // A worker takes the first item and dies: its session ends, and the item is the first one again.
    let session = node.client().session(Duration::from_secs(6)).await?;
    let taken = node.client().queue("thumbs").pop().session(&session).await?;
    println!("a worker takes {} and dies", String::from_utf8_lossy(taken.value()));
    let id = taken.id();
    client.end_session(session.id()).await?;

    let mut done = Vec::new();
    while queue.waiting_items().await? > 0 {
        let item = queue.pop().await?;
        println!("done: {} (item {})", String::from_utf8_lossy(item.value()), item.id());
        done.push(item.id());
        item.done().await?;
    }
    assert_eq!((done.len(), done[0]), (3, id), "the item came back to its place");

    node.shutdown(Duration::from_secs(5)).await;
    Ok(())
}
