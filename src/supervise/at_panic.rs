//! What the process of a member does at a panic: it says what panicked, and ends.
//!
//! A release build aborts at a panic (`panic = "abort"`), without which the binary would be larger by
//! what unwinding takes. Other builds end in the same way, so that their tests show it. Only
//! where several members live in one process, as in the simulator, nobody calls [`end_at_panic`], and
//! the panic is caught and ends its member alone.

use std::any::Any;
use std::panic::set_hook;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use super::Panicked;
use crate::limits;

tokio::task_local! {
    /// The name of the supervised work that this thread does.
    pub(super) static NAME: &'static str;
}

/// Lets each panic end the process with this exit code. `log` gets the place of the panic, the thread,
/// and what panicked.
pub fn end_at_panic(exit_code: i32, log: fn(&str, &str, &Panicked)) {
    static IS_ENDING: AtomicBool = AtomicBool::new(false);
    set_hook(Box::new(move |info| {
        if IS_ENDING.swap(true, Ordering::SeqCst) {
            // The first panic has the last word. This thread must do nothing more.
            loop {
                std::thread::park();
            }
        }
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
        let name = NAME.try_with(|name| (*name).to_owned()).unwrap_or_else(|_| thread.clone());
        let panicked = Panicked { name, why: text(info.payload()).to_owned() };
        with_patience(move || log(&place, &thread, &panicked));
        signal_hook::low_level::exit(exit_code);
    }));
}

/// The message of a panic.
pub(super) fn text(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("unknown")
}

/// Logs why the member stops. Waits no longer than `LAST_LINE_MAX`: a log that takes nothing must not
/// keep a leader that applies nothing in office.
pub(super) fn with_patience(log: impl Fn() + Send + Sync + 'static) {
    let (logged, is_logged) = mpsc::sync_channel(1);
    let log = Arc::new(log);
    let in_thread = Arc::clone(&log);
    let thread = std::thread::Builder::new().name("last-line".to_owned()).spawn(move || {
        in_thread();
        let _ = logged.send(());
    });
    match thread {
        Ok(_) => drop(is_logged.recv_timeout(limits::LAST_LINE_MAX)),
        Err(_) => log(),
    }
}
