//! Shows the smallest whole program: one node, one kind of task, one result.
//!
//! ```text
//! cargo run -p tenure --example hello
//! ```

use tenure::prelude::*;

/// The work. Every node of a real cluster would register it.
#[task]
async fn greet(cx: &TaskCx, name: String) -> Result<String, TaskError> {
    if name.is_empty() {
        return Err(TaskError::fatal("nobody to greet")); // another attempt would not help
    }
    Ok(format!("hello, {name} (attempt {})", cx.attempt()))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // `ephemeral` keeps the example from leaving a folder behind; with `data_dir` nothing acknowledged is lost.
    let node = Node::builder("hello").ephemeral().task::<greet>().start().await?;
    node.ready().await;

    let client = node.client();
    let handle = client.submit::<greet>("Ada".to_owned()).key("greet-ada").await?;
    println!("{} recorded", handle.id());
    println!("{}", handle.result().await?);

    // The same key again names the same task: it does not run twice.
    let again = client.submit::<greet>("Ada".to_owned()).key("greet-ada").await?;
    assert_eq!((again.id(), again.is_fresh()), (handle.id(), false));

    let refused = client.submit::<greet>(String::new()).await?.result().await;
    println!("and without a name: {}", refused.expect_err("nobody is greeted"));

    node.shutdown(std::time::Duration::from_secs(5)).await;
    Ok(())
}
