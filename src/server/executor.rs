//! Starts the tasks that hyper wants for the requests of a connection.

use std::future::Future;

use hyper::rt::Executor;

use crate::supervise::Supervisor;

/// Serves the requests of one connection side by side, each in a task of its own.
#[derive(Clone)]
pub(super) struct Requests(pub Supervisor);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Requests {
    fn execute(&self, request: F) {
        self.0.task("request", request);
    }
}
