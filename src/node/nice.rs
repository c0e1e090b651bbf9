//! Work on a thread that gives way to all others.

use super::{Error, Node};

impl Node {
    /// Runs to its end, also if nobody waits for it any more.
    pub(super) async fn nice<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.0.supervisor.nice(name, work).await.map_err(|error| Error::of_thread(&error))?
    }
}
