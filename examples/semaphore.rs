//! Shows a semaphore: six jobs, of which at most two run at a time in the whole cluster.
//!
//! ```text
//! cargo run -p tenure --example semaphore
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tenure::prelude::*;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let node = Node::builder("semaphores").ephemeral().start().await?;
    node.ready().await;

    let (running, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let jobs: Vec<_> = (1..=6)
        .map(|job| {
            let (client, running, most) = (node.client(), running.clone(), most.clone());
            tokio::spawn(async move {
                let permit = client.semaphore("ffmpeg", 2).acquire(1).await?;
                let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                most.fetch_max(now, Ordering::SeqCst);
                println!("job {job} runs beside {} other", now - 1);
                tokio::time::sleep(Duration::from_millis(20)).await;
                running.fetch_sub(1, Ordering::SeqCst);
                permit.release().await
            })
        })
        .collect();
    for job in jobs {
        job.await??;
    }
    println!("at most {} ran at a time", most.load(Ordering::SeqCst));
    assert!(most.load(Ordering::SeqCst) <= 2);

    node.shutdown(Duration::from_secs(5)).await;
    Ok(())
}
