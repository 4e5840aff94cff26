//! One client that writes all the time, and knows what was acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::{TestCluster, put};

/// Writes numbered keys, one after the other, until it is stopped.
pub struct Writer {
    is_over: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Writer {
    /// Lets it begin.
    pub fn start(cluster: &TestCluster) -> Self {
        let (is_over, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (over, count) = (Arc::clone(&is_over), Arc::clone(&acknowledged));
        // A write of the same value may be repeated: what counts is that it is there once it is acknowledged.
        let http = cluster.http().timeout(Duration::from_secs(20)).patient();
        let task = cluster.spawn(async move {
            while !over.load(Ordering::SeqCst) {
                let number = count.load(Ordering::SeqCst);
                let key = format!("load-{number}");
                if http.send(put(&key, &key).repeatable()).await.is_ok() {
                    count.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        Self { is_over, acknowledged, task }
    }

    /// How many writes were acknowledged.
    pub fn count(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// Waits for a few more acknowledged writes: whatever was done, the cluster still serves.
    pub fn goes_on(&self, cluster: &TestCluster) {
        let before = self.count();
        cluster.until("writes go on", || self.count() >= before + 5);
    }

    /// Ends it and reads back all that was acknowledged.
    pub fn finish(self, cluster: &TestCluster) {
        self.is_over.store(true, Ordering::SeqCst);
        let Self { acknowledged, task, .. } = self;
        cluster.wait(task).expect("it ends");
        let count = acknowledged.load(Ordering::SeqCst);
        assert!(count > 0, "something was acknowledged");
        for number in 0..count {
            let key = format!("load-{number}");
            assert_eq!(cluster.get(&key).as_ref(), Some(&key), "of {count} acknowledged writes");
        }
    }
}
