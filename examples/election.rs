//! Shows an election: two candidates, an observer who is told of each leader, and work that stops before anybody else can lead.
//!
//! ```text
//! cargo run -p tenure --example election
//! ```

use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::try_join_all;
use tenure::prelude::*;

/// Leads until it has done its part, and steps down.
async fn candidate(name: &'static str, client: Client) -> Result<(), Error> {
    let leadership = client.election("reporter").campaign(name).await?;
    let report = async {
        for part in 1..=2 {
            println!("  {name} writes part {part} under fence {}", leadership.fence());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if let Err(lost) = leadership.run(report).await {
        println!("  {name} has stopped, before anybody else can lead: {lost}");
    }
    leadership.proclaim(format!("{name}, done")).await?;
    leadership.resign().await
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let node = Node::builder("elections").ephemeral().start().await?;
    node.ready().await;

    let mut leaders = pin!(node.client().election("reporter").observe());
    assert_eq!(leaders.next().await.transpose()?, Some(None), "nobody leads at first");

    // Whoever led for a moment only may be passed over; nobody is told in the wrong order.
    let mut fences = Vec::new();
    let observer = async {
        while let Some(leader) = leaders.next().await.transpose()? {
            let Some(leader) = leader else { continue };
            println!("{} leads since {}", String::from_utf8_lossy(&leader.value), leader.fence);
            fences.push(leader.fence);
        }
        Ok::<_, Error>(())
    };
    let candidates = try_join_all(["ann", "ben"].map(|name| candidate(name, node.client())));
    tokio::select! {
        done = candidates => drop(done?),
        ended = observer => ended?,
    }
    assert!(fences.is_sorted(), "no leader has a smaller fence than one before: {fences:?}");
    assert_eq!(node.client().election("reporter").leader().await?, None);

    node.shutdown(Duration::from_secs(5)).await;
    Ok(())
}
