//! One thread for what must go on whatever the application's handlers do: HTTP, and passing on what membership sees.

use std::io;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// The thread and its runtime. Dropped, it ends at once what still runs there.
pub(crate) struct Backstage {
    handle: Handle,
    stop: CancellationToken,
}

impl Backstage {
    /// Starts the thread.
    pub(crate) fn start() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        std::thread::Builder::new().name("tenure-door".into()).spawn(move || {
            runtime.block_on(stopped.cancelled());
            runtime.shutdown_background();
        })?;
        Ok(Self { handle, stop })
    }

    /// Where to spawn.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Backstage {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
