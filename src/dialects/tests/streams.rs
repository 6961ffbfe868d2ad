//! The event splitter against a parser written from the standard, under every way the network can cut a stream.

use bytes::Bytes;
use proptest::prelude::*;

use crate::base::limits::SSE_EVENT_BYTES_MAX;
use crate::dialects::sse;
use crate::dialects::sse::Broken;
use crate::dialects::sse::Splitter;

/// What a browser dispatches, by the letter of WHATWG HTML 9.2.6, for streams whose lines end in LF or CRLF.
fn dispatched(stream: &str) -> Vec<(String, String)> {
    let (mut events, mut kind, mut data) = (Vec::new(), String::new(), None::<String>);
    let mut lines = stream.split('\n').map(|it| it.strip_suffix('\r').unwrap_or(it)).collect::<Vec<_>>();
    lines.pop(); // behind the last line feed is no line
    for line in lines {
        if line.is_empty() {
            if let Some(data) = data.take() {
                events.push((std::mem::take(&mut kind), data));
            }
            kind.clear();
            continue;
        }
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "event" => kind = value.to_owned(),
            "data" => data = Some(data.map_or(value.to_owned(), |before| format!("{before}\n{value}"))),
            _ => {}
        }
    }
    events
}

/// What we make of it: every event's data, in order, and what was left.
fn split(stream: &[u8], cuts: &[usize]) -> Result<(Vec<Bytes>, usize), Broken> {
    let (mut splitter, mut events) = (Splitter::default(), Vec::new());
    for piece in cuts.windows(2) {
        splitter.push(Bytes::copy_from_slice(&stream[piece[0]..piece[1]]))?;
        let ready = splitter.ready();
        let mut taken = 0;
        while let Some(event) = splitter.next() {
            assert_eq!(event, ready[taken..taken + event.len()], "events are consecutive pieces of what is ready");
            taken += event.len();
            events.push(event);
        }
    }
    Ok((events, splitter.unfinished()))
}

fn lines() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        3 => r"data: ?[a-zé🚀{}:\[\]]{0,8}",
        1 => Just("data".to_owned()),
        1 => Just("data:".to_owned()),
        1 => Just("data:  two".to_owned()),
        1 => Just("datas: no".to_owned()),
        1 => Just("event: x".to_owned()),
        1 => Just("id: 7".to_owned()),
        1 => Just(": ping".to_owned()),
        1 => Just(":".to_owned()),
        2 => Just(String::new()),
    ];
    prop::collection::vec((line, any::<bool>()), 0..16).prop_map(|lines| {
        lines.iter().map(|(line, crlf)| format!("{line}{}", if *crlf { "\r\n" } else { "\n" })).collect()
    })
}

proptest! {
    #[test]
    fn a_stream_is_read_as_a_browser_reads_it_however_it_is_cut(stream in lines(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10)) {
        let mut at: Vec<usize> = cuts.iter().map(|it| it.index(stream.len() + 1)).chain([0, stream.len()]).collect();
        at.sort_unstable();
        let (events, left) = split(stream.as_bytes(), &at).expect("well formed");
        prop_assert_eq!(events.concat().len() + left, stream.len(), "no byte is lost");
        let read: Vec<_> = events.iter().filter_map(|it| Some(String::from_utf8(sse::data(it)?.into_owned()).expect("UTF-8"))).collect();
        let expected: Vec<_> = dispatched(&stream).into_iter().map(|it| it.1).collect();
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn an_event_is_a_comment_only_when_a_browser_would_see_nothing(stream in lines()) {
        let (events, _) = split(stream.as_bytes(), &[0, stream.len()]).expect("well formed");
        for event in events.iter().filter(|it| sse::is_comment(it)) {
            let text = std::str::from_utf8(event).expect("UTF-8");
            prop_assert_eq!(dispatched(text), []);
        }
    }

    #[test]
    fn a_bare_carriage_return_is_found_wherever_the_cut_falls(before in "[a\n]{0,5}", after in "[a:]{1,5}", at in any::<prop::sample::Index>()) {
        let stream = format!("data: {before}\r{after}\n\n");
        let at = at.index(stream.len() + 1);
        prop_assert_eq!(split(stream.as_bytes(), &[0, at, stream.len()]).map(drop), Err(Broken::BareCarriageReturn));
    }
}

#[test]
fn many_events_in_one_piece_are_not_one_long_event() {
    let mut splitter = Splitter::default();
    splitter.push(Bytes::from_static(b"data: begun")).expect("short");
    assert_eq!(splitter.next(), None);
    let event = [b"\n\ndata: ".as_slice(), &[b'x'; 1 << 20]].concat();
    let many = event.repeat(SSE_EVENT_BYTES_MAX / (1 << 20));
    splitter.push(Bytes::from(many)).expect("none of them is too long");
    let mut count = 0;
    while splitter.next().is_some() {
        count += 1;
    }
    assert_eq!(count, SSE_EVENT_BYTES_MAX / (1 << 20));
}

#[test]
fn the_longest_event_is_taken_and_one_byte_more_is_refused() {
    for (len, fits) in [(SSE_EVENT_BYTES_MAX, true), (SSE_EVENT_BYTES_MAX + 1, false)] {
        let mut event = vec![b'x'; len];
        event[len - 2..].copy_from_slice(b"\n\n");
        for cut in [1, 1 << 10, len - 1] {
            let result = split(&event, &[0, cut, len]).map(|it| it.0.len());
            assert_eq!(result, if fits { Ok(1) } else { Err(Broken::TooLong) }, "{len} cut at {cut}");
        }
    }
}
