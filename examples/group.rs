//! Shows a group: who is here, each with something that it says of itself; whoever dies is not in it any more.
//!
//! ```text
//! cargo run -p tenure --example group
//! ```

use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use tenure::prelude::*;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let node = Node::builder("groups").ephemeral().start().await?;
    node.ready().await;
    let (ann, ben) = (node.client(), node.client());

    let first = ann.group("renderers").join(r#"{"gpu":1}"#).await?;
    let session = ben.session(Duration::from_secs(6)).await?;
    let _second = ben.group("renderers").join(r#"{"gpu":4}"#).session(&session).await?;
    for member in ann.group("renderers").members().await? {
        println!("{} is here since {}: {}", member.session, member.since, String::from_utf8_lossy(&member.value));
    }

    // Somebody's session ends, as it does when its process dies: everybody who watches hears of it.
    let mut lists = pin!(ann.group("renderers").watch());
    assert_eq!(lists.next().await.transpose()?.map_or(0, |list| list.len()), 2);
    ann.end_session(session.id()).await?;
    while let Some(list) = lists.next().await.transpose()? {
        println!("{} left", list.len());
        if list.len() == 1 {
            break;
        }
    }
    first.leave().await?;
    assert!(ann.group("renderers").members().await?.is_empty());

    node.shutdown(Duration::from_secs(5)).await;
    Ok(())
}
