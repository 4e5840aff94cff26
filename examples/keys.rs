//! Shows keys and their revisions: several writers add to one number, and no addition is lost.
//!
//! ```text
//! cargo run -p tenure --example keys
//! ```

use tenure::prelude::*;

/// Adds one to the number under `key`: reads it, and writes only if nobody was faster.
async fn add_one(kv: &Kv, key: &str) -> Result<(), Error> {
    loop {
        let (number, revision) = match kv.get(key).await? {
            Some(value) => (std::str::from_utf8(&value.value).unwrap_or("0").parse().unwrap_or(0), value.modified),
            // Revision zero stands for "there is no such key".
            None => (0, Revision(0)),
        };
        match kv.cas(key, revision, (number + 1u64).to_string()).await {
            Ok(_) => return Ok(()),
            Err(Error::Conflict { .. }) => {} // somebody was faster: read again
            Err(error) => return Err(error),
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let node = Node::builder("keys").ephemeral().start().await?;
    node.ready().await;

    let writers: Vec<_> = (0..4)
        .map(|_| {
            let kv = node.client().kv();
            tokio::spawn(async move {
                for _ in 0..10 {
                    add_one(&kv, "visits").await?;
                }
                Ok::<_, Error>(())
            })
        })
        .collect();
    for writer in writers {
        writer.await??;
    }

    let visits = node.client().kv().get("visits").await?.expect("it was written");
    println!("40 additions by 4 writers: {}", String::from_utf8_lossy(&visits.value));
    assert_eq!(visits.value, "40");

    node.shutdown(std::time::Duration::from_secs(5)).await;
    Ok(())
}
