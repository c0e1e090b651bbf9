use super::*;
use crate::clock::SystemClock;

fn tracer(per_million: u32) -> (Tracer, mpsc::Receiver<Ended>) {
    Tracer::new(Arc::new(SystemClock::new()), per_million)
}

fn drain(queue: &mut mpsc::Receiver<Ended>) -> Vec<Ended> {
    std::iter::from_fn(|| queue.try_recv().ok()).collect()
}

fn metadata(flags: &str) -> HeaderMap {
    let mut metadata = HeaderMap::new();
    let stated = format!("00-{}1-{}2-{flags}", "0".repeat(31), "0".repeat(15));
    metadata.insert("traceparent", stated.parse().unwrap());
    metadata
}

#[test]
fn a_tracer_that_is_off_makes_nothing() {
    let off = Tracer::default();
    let never = || -> Attributes { panic!("attributes of a span that is not recorded") };
    let call = off.call(&metadata("01"), || panic!("its name"), never);
    let step = off.within(call.context(), "put", never);
    step.context().event_with("x", never);
    step.set("x", || panic!("its value"));
    assert!(matches!(step.context(), Context::Nothing));
    assert!(!off.is_on());
}

#[test]
fn a_clients_flag_decides_on_its_trace_and_the_rate_on_others() {
    let spans = |rate: u32, metadata: &HeaderMap| {
        let (tracer, mut queue) = tracer(rate);
        let call = tracer.call(metadata, || "call".to_owned(), Vec::new);
        drop(tracer.within(call.context(), "step", Vec::new));
        drop(call);
        drain(&mut queue).len()
    };
    for (rate, metadata, expected) in [
        (0, metadata("01"), 2),
        (0, metadata("00"), 0),
        (0, HeaderMap::new(), 0),
        (EVERY_TRACE, metadata("00"), 0),
        (EVERY_TRACE, HeaderMap::new(), 2),
    ] {
        assert_eq!(spans(rate, &metadata), expected, "{rate} {metadata:?}");
    }
}

#[test]
fn about_as_many_traces_are_recorded_as_the_rate_says() {
    let (tracer, mut queue) = tracer(EVERY_TRACE / 4);
    for _ in 0..2000 {
        drop(tracer.within(&Context::Nothing, "step", Vec::new));
    }
    let recorded = drain(&mut queue).len();
    assert!((350..=650).contains(&recorded), "{recorded} of 2000");
}

#[test]
fn spans_hang_under_each_other() {
    let (tracer, mut queue) = tracer(EVERY_TRACE);
    let call = tracer.call(&metadata("03"), || "call".to_owned(), Vec::new);
    let step = tracer.within(call.context(), "step", || vec![("key", (&b"a\xffb"[..]).into())]);
    step.context().event("begun");
    call.fail("no");
    drop(step);
    drop(call);
    let [step, call] = drain(&mut queue).try_into().unwrap();
    assert_eq!((call.parent_id.map(u64::from_be_bytes), call.kind), (Some(2), Kind::Server));
    assert_eq!((step.parent_id, step.kind), (Some(call.span_id), Kind::Internal));
    assert_eq!((call.trace_id, call.flags), (step.trace_id, step.flags));
    assert_eq!((u128::from_be_bytes(call.trace_id), call.flags), (1, 3));
    assert_eq!(call.error.as_deref(), Some("no"));
    assert_eq!(step.attributes, [("key", Value::Text("a\u{fffd}b".to_owned()))]);
    assert!(step.started <= step.events[0].at && step.events[0].at <= step.ended);
}

#[test]
fn a_full_queue_costs_spans_and_no_time() {
    let (tracer, mut queue) = tracer(EVERY_TRACE);
    let before = metrics::trace_spans_dropped().get();
    for _ in 0..limits::TRACE_SPANS_QUEUED_MAX + 3 {
        drop(tracer.within(&Context::Nothing, "step", Vec::new));
    }
    assert!(metrics::trace_spans_dropped().get() >= before + 3);
    assert_eq!(drain(&mut queue).len(), limits::TRACE_SPANS_QUEUED_MAX);
}

#[test]
fn what_a_span_holds_is_bounded() {
    let (tracer, mut queue) = tracer(EVERY_TRACE);
    let span = tracer.within(&Context::Nothing, "step", || {
        vec![
            ("key", vec![b'k'; 1 << 20].as_slice().into()),
            ("odd", vec![0xff; 1 << 20].as_slice().into()),
        ]
    });
    span.fail(&"\u{20ac}".repeat(limits::TRACE_TEXT_BYTES_MAX));
    for _ in 0..=limits::TRACE_EVENTS_MAX {
        span.context().event("x");
    }
    drop(span);
    let [span] = drain(&mut queue).try_into().unwrap();
    for (_, value) in &span.attributes {
        assert!(matches!(value, Value::Text(text) if text.len() <= limits::TRACE_TEXT_BYTES_MAX));
    }
    assert!(span.error.is_some_and(|text| text.len() <= limits::TRACE_TEXT_BYTES_MAX));
    assert_eq!(span.events.len(), limits::TRACE_EVENTS_MAX);
    tracer.within(&Context::Nothing, "refused", Vec::new).discard();
    assert!(drain(&mut queue).is_empty());
}
