//! Shows who is here: a second node comes and says goodbye, and the first one is told.
//!
//! ```text
//! cargo run -p tenure --example members
//! ```

use std::time::Duration;

use tenure::MemberEvent;
use tenure::prelude::*;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let first = Node::builder("members").ephemeral().label("name", "first").start().await?;
    first.ready().await;
    let mut members = first.members();
    if let Some(MemberEvent::Snapshot(all)) = members.next().await {
        println!("{} is here", all.iter().map(|member| &*member.name).collect::<Vec<_>>().join(" and "));
    }

    let list = [first.address().to_string()];
    let mut second = Some(Node::builder("members").ephemeral().label("name", "second").join(list).start().await?);
    while let Some(event) = members.next().await {
        match event {
            MemberEvent::Up(member) => println!("{} came", member.node),
            MemberEvent::Changed(member) if member.name == "second" => {
                // Its name and its place travel behind it.
                println!("it is called {}", member.name);
                if let Some(second) = second.take() {
                    tokio::spawn(second.shutdown(Duration::from_secs(5)));
                }
            }
            MemberEvent::Left(member) => {
                println!("{} said goodbye", member.name);
                break;
            }
            other => println!("{other:?}"),
        }
    }
    first.shutdown(Duration::from_secs(5)).await;
    Ok(())
}
