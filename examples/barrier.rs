//! Shows a barrier: three workers begin a phase together, one of them leads it, and none goes on before all have finished.
//!
//! ```text
//! cargo run -p tenure --example barrier
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tenure::prelude::*;

async fn worker(name: u32, client: Client, finished: Arc<AtomicU32>) -> Result<bool, Error> {
    tokio::time::sleep(Duration::from_millis(10) * name).await;
    let pass = client.barrier("phase-1", 3).wait().await?;
    println!("worker {name} begins{}", if pass.is_leader() { ", and leads" } else { "" });
    let leads = pass.is_leader();
    tokio::time::sleep(Duration::from_millis(10) * (4 - name)).await;
    finished.fetch_add(1, Ordering::SeqCst);
    // A second barrier at the end: it opens when all three have left.
    pass.leave().await?;
    println!("worker {name} goes on: {} have finished", finished.load(Ordering::SeqCst));
    assert_eq!(finished.load(Ordering::SeqCst), 3);
    Ok(leads)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let node = Node::builder("barriers").ephemeral().start().await?;
    node.ready().await;

    let finished = Arc::new(AtomicU32::new(0));
    let workers: Vec<_> = (1..=3).map(|name| tokio::spawn(worker(name, node.client(), finished.clone()))).collect();
    let mut leaders = 0;
    for worker in workers {
        leaders += u32::from(worker.await??);
    }
    assert_eq!(leaders, 1, "exactly one leads");

    node.shutdown(Duration::from_secs(5)).await;
    Ok(())
}
