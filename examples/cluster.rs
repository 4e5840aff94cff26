//! Shows a cluster of identical processes: this program starts itself three times, gives the cluster work from outside,
//! kills one of the nodes in the middle, and gets every result all the same.
//!
//! ```text
//! cargo run -p tenure --example cluster
//! ```

use std::net::TcpListener;
use std::process::{Child, Command};
use std::time::Duration;

use tenure::prelude::*;

/// A task that takes a moment.
#[task]
async fn square(number: u64) -> Result<(u64, u32), TaskError> {
    tokio::time::sleep(Duration::from_millis(200)).await;
    Ok((number * number, std::process::id()))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [listen, join @ ..] => be_a_node(listen, join).await,
        [] => ask_a_cluster().await,
    }
}

/// What every one of the three processes does.
async fn be_a_node(listen: &str, join: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let node = Node::builder("squares").ephemeral().listen(listen).join(join).slots(2).task::<square>().start().await?;
    Err(node.fatal().await.into())
}

async fn ask_a_cluster() -> Result<(), Box<dyn std::error::Error>> {
    let addresses = free_addresses(3)?;
    let program = std::env::current_exe()?;
    let start = |listen: &String| Command::new(&program).arg(listen).args(&addresses).spawn().map(Killed);
    let mut nodes = addresses.iter().map(start).collect::<Result<Vec<_>, _>>()?;

    let client = Client::connect("squares", addresses.clone()).await?.timeout(Duration::from_secs(60));
    let mut handles = Vec::new();
    for number in 1..=20 {
        handles.push(client.submit::<square>(number).await?);
    }
    for (number, handle) in (1u64..).zip(handles) {
        let (square, process) = handle.result().await?;
        println!("{number:>2}² = {square:>3}  by process {process}");
        assert_eq!(square, number * number);
        if number == 5 {
            println!("     kill -9 {} — the others go on", nodes[0].0.id());
            drop(nodes.remove(0));
        }
    }
    Ok(())
}

/// A child that does not outlive its owner.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It can only have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Addresses that nobody uses. A real cluster has fixed ones.
fn free_addresses(count: usize) -> std::io::Result<Vec<String>> {
    let listeners = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?.to_string())).collect()
}
