//! Work on a thread that gives way to all others.

use super::{Error, Node};
use crate::supervise::Gone;

impl Node {
    /// Runs to its end, also if nobody waits for it any more.
    pub(super) async fn nice<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.0.supervisor.nice(name, work).await.map_err(|error| {
            let is_gone = error.get_ref().is_some_and(|inner| inner.is::<Gone>());
            if is_gone { Error::Stopped } else { Error::Internal(error.to_string()) }
        })?
    }
}
