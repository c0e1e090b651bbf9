//! Work on a thread that gives way to all others.

use tokio::sync::oneshot;

use super::Error;
use crate::limits::SNAPSHOT_NICENESS;

/// Runs to its end, also if nobody waits for it any more.
pub(super) async fn run<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let (done, outcome) = oneshot::channel();
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        // Where it is not allowed, it competes.
        let _ = rustix::process::setpriority_process(None, SNAPSHOT_NICENESS);
        // Who waited may be gone.
        let _ = done.send(work());
    });
    thread.map_err(|error| Error::Internal(error.to_string()))?;
    outcome.await.map_err(|_| Error::Stopped)?
}
