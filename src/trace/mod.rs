//! Spans: what was done for a call and how long it took, for OpenTelemetry.
//!
//! ```text
//!   rpc: a span for each call ─► node: a span for what the call asks for
//!              │ parent: `traceparent`          │
//!              └───────── ended ────────────────┴─► a bounded queue ─► server: OTLP, in batches
//! ```
//!
//! Spans are made at the rim, by `rpc` and `node`: the rooms that must be deterministic know
//! nothing of them. A call carries its [`Context`] within its credentials, which every door of
//! `node` takes anyway; each span hangs under the context that its maker was given.
//!
//! A [`Tracer`] that is off is an empty option, and so is every span that it makes: a call then
//! pays a branch for each, and no name or attribute is made, since they come from closures. A trace
//! is recorded as a whole or not at all: its first span decides, by the client's flag or by the
//! rate, and [`Context::Unsampled`] tells the others.
//!
//! An ended span goes into the queue, and is dropped and counted if the queue is full. Nothing ever
//! waits for a collector. `server` takes the spans out again, and alone knows how they are sent.

mod parent;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::limits;
use crate::metrics;

use parent::Parent;

/// The flag of W3C's trace context that says that a trace is recorded.
const SAMPLED: u8 = 1;

/// Spans per million traces at which every trace is recorded.
pub const EVERY_TRACE: u32 = 1_000_000;

pub type TraceId = [u8; 16];
pub type SpanId = [u8; 8];
pub type Attributes = Vec<(&'static str, Value)>;

/// Makes spans. The default one is off: what it makes is nothing.
#[derive(Clone, Default)]
pub struct Tracer(Option<Arc<Recorder>>);

struct Recorder {
    clock: Arc<dyn Clock>,
    /// A trace that begins here is recorded if the lower 63 bits of its id are below this.
    bound: u64,
    ended: mpsc::Sender<Ended>,
}

/// Where a span hangs.
#[derive(Clone, Default)]
pub enum Context {
    /// Nowhere: it begins a trace of its own.
    #[default]
    Nothing,
    /// In a trace that is not recorded.
    Unsampled,
    Recorded(Arc<Recorded>),
}

/// A span that is recorded.
pub struct Recorded {
    recorder: Arc<Recorder>,
    trace_id: TraceId,
    span_id: SpanId,
    flags: u8,
    trace_state: Arc<str>,
    /// The clock's monotonic time at the start: an end is this far from the start, also if the wall
    /// clock was set meanwhile.
    begun: Duration,
    /// None once the span has ended.
    open: Mutex<Option<Ended>>,
}

/// Who made a span: the receiver of a call, or the member for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Server,
    Internal,
}

/// A span that is over, ready to be sent. Times are nanoseconds since the Unix epoch.
#[derive(Clone, Debug)]
pub struct Ended {
    pub name: Cow<'static, str>,
    pub kind: Kind,
    pub trace_id: TraceId,
    pub span_id: SpanId,
    pub parent_id: Option<SpanId>,
    pub flags: u8,
    pub trace_state: Arc<str>,
    pub started: u64,
    pub ended: u64,
    pub attributes: Attributes,
    pub events: Vec<Event>,
    /// The text of the error that the span ended with.
    pub error: Option<String>,
}

/// Something that happened within a span.
#[derive(Clone, Debug)]
pub struct Event {
    pub name: &'static str,
    pub at: u64,
    pub attributes: Attributes,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Text(String),
    Bool(bool),
    Int(i64),
}

impl From<&[u8]> for Value {
    /// Keys are bytes and OTLP's texts are UTF-8; a batch with anything else is refused as a whole.
    fn from(bytes: &[u8]) -> Self {
        let shown = &bytes[..bytes.len().min(limits::TRACE_TEXT_BYTES_MAX)];
        Self::Text(cut(String::from_utf8_lossy(shown).into_owned()))
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        text.as_bytes().into()
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

/// Cuts a text that became longer than a span may hold.
fn cut(mut text: String) -> String {
    let mut end = limits::TRACE_TEXT_BYTES_MAX.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

impl Tracer {
    /// A tracer that records `per_million` of a million traces that begin here, and the queue of
    /// the spans that have ended. A trace that began elsewhere is recorded if its `traceparent`
    /// says so.
    pub fn new(clock: Arc<dyn Clock>, per_million: u32) -> (Self, mpsc::Receiver<Ended>) {
        let (ended, queue) = mpsc::channel(limits::TRACE_SPANS_QUEUED_MAX);
        let bound = (u128::from(per_million) << 63) / u128::from(EVERY_TRACE);
        let bound = u64::try_from(bound).unwrap_or(u64::MAX);
        (Self(Some(Arc::new(Recorder { clock, bound, ended }))), queue)
    }

    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Begins the span of a call with this metadata.
    pub fn call(
        &self,
        metadata: &HeaderMap,
        name: impl FnOnce() -> String,
        attributes: impl FnOnce() -> Attributes,
    ) -> Span {
        let Some(recorder) = &self.0 else { return Span::default() };
        let parent = parent::of_metadata(metadata);
        let Some(parent) = recorder.sampled(parent) else { return Span(Context::Unsampled) };
        recorder.begin(parent, Kind::Server, Cow::Owned(name()), attributes())
    }

    /// Begins a span of the member's own under `context`.
    pub fn within(
        &self,
        context: &Context,
        name: &'static str,
        attributes: impl FnOnce() -> Attributes,
    ) -> Span {
        let Some(recorder) = &self.0 else { return Span::default() };
        let parent = match context {
            Context::Nothing => recorder.sampled(None),
            Context::Unsampled => None,
            Context::Recorded(span) => Some(span.as_parent()),
        };
        let Some(parent) = parent else { return Span(Context::Unsampled) };
        recorder.begin(parent, Kind::Internal, Cow::Borrowed(name), attributes())
    }
}

impl Recorder {
    /// The place in a trace of a span with this parent; None if the trace is not recorded.
    fn sampled(&self, parent: Option<Parent>) -> Option<Parent> {
        if let Some(parent) = parent {
            return (parent.flags & SAMPLED != 0).then_some(parent);
        }
        if self.bound == 0 {
            return None;
        }
        let (upper, lower) = (self.id(), self.id());
        // As the SDKs of OpenTelemetry decide, so that members and clients that begin traces at the
        // same rate choose alike.
        if lower >> 1 >= self.bound {
            return None;
        }
        let trace_id = (u128::from(upper) << 64 | u128::from(lower)).to_be_bytes();
        Some(Parent { trace_id, ..Parent::default() })
    }

    /// Random bits that are not zero, which is no id.
    fn id(&self) -> u64 {
        self.clock.random().max(1)
    }

    fn begin(
        self: &Arc<Self>,
        parent: Parent,
        kind: Kind,
        name: Cow<'static, str>,
        attributes: Attributes,
    ) -> Span {
        let Parent { trace_id, span_id: parent_id, flags, trace_state } = parent;
        let span_id = self.id().to_be_bytes();
        let flags = flags | SAMPLED;
        let started = self.clock.unix_nanos();
        let open = Ended {
            name,
            kind,
            trace_id,
            span_id,
            parent_id,
            flags,
            trace_state: Arc::clone(&trace_state),
            started,
            ended: started,
            attributes,
            events: Vec::new(),
            error: None,
        };
        Span(Context::Recorded(Arc::new(Recorded {
            begun: self.clock.now(),
            recorder: Arc::clone(self),
            trace_id,
            span_id,
            flags,
            trace_state,
            open: Mutex::new(Some(open)),
        })))
    }
}

impl Recorded {
    fn as_parent(&self) -> Parent {
        Parent {
            trace_id: self.trace_id,
            span_id: Some(self.span_id),
            flags: self.flags,
            trace_state: Arc::clone(&self.trace_state),
        }
    }

    fn nanos_since_start(&self) -> u64 {
        let since = self.recorder.clock.now().saturating_sub(self.begun);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    fn end(&self) {
        let Some(mut span) = self.open.lock().take() else { return };
        span.ended = span.started.saturating_add(self.nanos_since_start());
        if self.recorder.ended.try_send(span).is_err() {
            metrics::trace_spans_dropped().inc();
        }
    }
}

impl Context {
    pub fn is_recorded(&self) -> bool {
        matches!(self, Self::Recorded(_))
    }

    /// Notes in the span that something happens now. Nothing is noted once the span has ended.
    pub fn event(&self, name: &'static str) {
        self.event_with(name, Vec::new);
    }

    pub fn event_with(&self, name: &'static str, attributes: impl FnOnce() -> Attributes) {
        let Self::Recorded(span) = self else { return };
        let since = span.nanos_since_start();
        if let Some(open) = &mut *span.open.lock()
            && open.events.len() < limits::TRACE_EVENTS_MAX
        {
            let at = open.started.saturating_add(since);
            open.events.push(Event { name, at, attributes: attributes() });
        }
    }

    fn change(&self, change: impl FnOnce(&mut Ended)) {
        if let Self::Recorded(span) = self
            && let Some(open) = &mut *span.open.lock()
        {
            change(open);
        }
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nothing => f.write_str("Nothing"),
            Self::Unsampled => f.write_str("Unsampled"),
            Self::Recorded(span) => write!(f, "{:032x}", u128::from_be_bytes(span.trace_id)),
        }
    }
}

/// A span that has begun, or nothing. It ends when it is dropped, so it also ends with a call whose
/// client hangs up.
#[must_use = "a span ends when it is dropped"]
#[derive(Debug, Default)]
pub struct Span(Context);

impl Span {
    /// What the spans of steps within this one hang under.
    pub fn context(&self) -> &Context {
        &self.0
    }

    /// Adds an attribute. Its name must be a new one.
    pub fn set(&self, name: &'static str, value: impl FnOnce() -> Value) {
        self.0.change(|span| span.attributes.push((name, value())));
    }

    /// Notes that the span ends with an error.
    pub fn fail(&self, error: &str) {
        self.0.change(|span| span.error = Some(cut(error.to_owned())));
    }

    /// Ends the span without a trace of it.
    pub fn discard(self) {
        if let Context::Recorded(span) = &self.0 {
            drop(span.open.lock().take());
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Context::Recorded(span) = &self.0 {
            span.end();
        }
    }
}

#[cfg(test)]
mod tests;
