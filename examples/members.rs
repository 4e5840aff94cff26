//! Shows who is here: a second node comes and says goodbye. The first one sees it, and a client outside of both hears when it takes part.
//!
//! ```text
//! cargo run -p tenure --example members
//! ```

use std::time::Duration;

use tenure::prelude::*;
use tenure::{MemberEvent, NodeEvent};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let first = Node::builder("members").ephemeral().label("name", "first").start().await?;
    first.ready().await;
    let mut members = first.members();
    if let Some(MemberEvent::Snapshot(all)) = members.next().await {
        println!("{} is here", all.iter().map(|member| &*member.name).collect::<Vec<_>>().join(" and "));
    }

    let list = [first.address().to_string()];
    let client = Client::connect("members", list.clone()).await?;
    let mut sessions = client.members();
    if let Some(NodeEvent::Snapshot(all)) = sessions.next().await.transpose()? {
        println!("{} of them is given work", all.len());
    }

    let second = Node::builder("members").ephemeral().label("name", "second").join(list).start().await?;
    while let Some(event) = members.next().await {
        match event {
            // Its name and its place may travel behind it.
            MemberEvent::Up(member) | MemberEvent::Changed(member) if member.name == "second" => {
                println!("{} came", member.name);
                break;
            }
            other => println!("{other:?}"),
        }
    }
    while let Some(event) = sessions.next().await.transpose()? {
        if let NodeEvent::Up(node) = event {
            println!("{} is given work, under session {}", node.offer.label, node.session);
            break;
        }
    }

    second.shutdown(Duration::from_secs(5)).await;
    while let Some(event) = members.next().await {
        if let MemberEvent::Left(member) = event {
            println!("{} said goodbye", member.name);
            break;
        }
    }
    while let Some(event) = sessions.next().await.transpose()? {
        if let NodeEvent::Down(node) = event {
            println!("{} is given no work any more", node.offer.label);
            break;
        }
    }
    first.shutdown(Duration::from_secs(5)).await;
    Ok(())
}
