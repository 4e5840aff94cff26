//! Shows a session: what it owns goes with it, and its owner hears of that.
//!
//! ```text
//! cargo run -p tenure --example session
//! ```

use std::time::Duration;

use tenure::prelude::*;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let node = Node::builder("sessions").ephemeral().start().await?;
    node.ready().await;
    let client = node.client();

    let session = client.session(Duration::from_secs(6)).label("indexer").await?;
    println!("{} lives for {:.1} s more, and is renewed by itself", session.id(), session.expires_in().as_secs_f64());

    // Somebody ends it: `tenure session kill` does the same.
    client.end_session(session.id()).await?;
    println!("the session is over for its owner: {}", session.lost().await);
    assert!(session.expires_in().is_zero());

    // Closed in time, it costs nobody a wait.
    let session = client.session(Duration::from_secs(60)).await?;
    session.close().await?;

    node.shutdown(Duration::from_secs(5)).await;
    Ok(())
}
