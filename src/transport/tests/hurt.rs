//! What passes between two nodes while one of them is made to fail on purpose.

use super::*;
use crate::chaos::fault::Direction;
use crate::chaos::fault::Fault;

const MINUTE: Duration = Duration::from_secs(60);
/// As long as somebody waits for an answer that does not come.
const SHORT: Duration = Duration::from_millis(100);

fn partition(direction: Direction) -> Fault {
    Fault::Partition { nodes: vec!["n-2".to_owned()], direction }
}

fn begin(chaos: &chaos::Handle, fault: Fault) {
    chaos.begin(fault, MINUTE).expect("it is on").expect("it is sound");
}

fn mend(chaos: &chaos::Handle) {
    assert_eq!(chaos.lift(None).len(), 1);
}

/// Two nodes with a connection, the first of which can be made to fail.
async fn pair() -> (Node, Node, chaos::Handle) {
    let secret = MeshSecret::generate();
    let (a, chaos) = Node::in_a_lab(1, &secret);
    let b = Node::new(2, &secret);
    assert_eq!(soon(a.handle.greet(b.addr())).await, Ok(b.me()));
    eventually("both have it", || !a.handle.links().is_empty() && !b.handle.links().is_empty()).await;
    (a, b, chaos)
}

/// Says `word` in a datagram and on a stream.
fn say(from: &Node, to: &Node, word: &'static str) {
    for lane in [Lane::Swim, Lane::Deltas] {
        from.handle.send(&to.me(), lane, Bytes::from_static(word.as_bytes())).unwrap();
    }
}

/// The next words that a node hears: in a datagram, and on a stream.
async fn heard(node: &mut Node) -> [String; 2] {
    let text = |it: Option<Received>| String::from_utf8(it.unwrap().bytes.to_vec()).unwrap();
    [text(soon(node.inboxes.swim.recv()).await), text(soon(node.inboxes.deltas.recv()).await)]
}

/// Asks in a datagram and on a stream, and whether there were answers.
async fn asks(from: &Node, to: &mut Node) -> [bool; 2] {
    let mut answered = [false; 2];
    for (lane, is_answered) in [Lane::Ledger, Lane::Sync].into_iter().zip(&mut answered) {
        let me = to.me();
        let asked = from.handle.request(&me, lane, b"?", SHORT);
        let inbox = if lane == Lane::Ledger { &mut to.inboxes.ledger } else { &mut to.inboxes.sync };
        let answers = async {
            while let Some(request) = inbox.recv().await {
                request.answer.send(Bytes::from_static(b"!"));
            }
            unreachable!("the inbox is held")
        };
        let outcome = tokio::select! { it = asked => it, () = answers => unreachable!() };
        *is_answered = outcome.is_ok();
        assert!(matches!(outcome, Ok(_) | Err(RequestError::Timeout)), "silence, not a word: {outcome:?}");
    }
    answered
}

#[tokio::test]
async fn nothing_passes_a_partition_in_its_direction_and_everything_when_it_is_over() {
    for (direction, a_is_heard, b_is_heard) in
        [(Direction::Both, false, false), (Direction::Out, false, true), (Direction::In, true, false)]
    {
        let (mut a, mut b, chaos) = pair().await;
        begin(&chaos, partition(direction));
        say(&a, &b, "a during");
        say(&b, &a, "b during");
        // An answer goes the other way.
        assert_eq!(asks(&a, &mut b).await, [false; 2], "{direction:?}");
        assert_eq!(asks(&b, &mut a).await, [false; 2], "{direction:?}");
        if a_is_heard {
            assert_eq!(heard(&mut b).await, ["a during"; 2]);
        }
        if b_is_heard {
            assert_eq!(heard(&mut a).await, ["b during"; 2]);
        }
        // What came by now came; what is still on its way is not dropped any more.
        mend(&chaos);
        say(&a, &b, "a after");
        say(&b, &a, "b after");
        assert_eq!(
            (heard(&mut b).await, heard(&mut a).await),
            (["a after"; 2].map(Into::into), ["b after"; 2].map(Into::into))
        );
        assert_eq!((asks(&a, &mut b).await, asks(&b, &mut a).await), ([true; 2], [true; 2]));
    }
}

#[tokio::test]
async fn no_connection_is_made_over_a_partition_and_one_that_forwards_breaks() {
    let secret = MeshSecret::generate();
    let (a, chaos) = Node::in_a_lab(1, &secret);
    let mut b = Node::new(2, &secret);
    begin(&chaos, partition(Direction::In));
    let both = async { tokio::join!(a.handle.greet(b.addr()), b.handle.greet(a.addr())) };
    assert_eq!(soon(both).await, (Err(GreetError::Unreachable), Err(GreetError::Unreachable)));
    assert!(a.handle.links().is_empty() && b.handle.links().is_empty());
    mend(&chaos);
    let (me, open) = (b.me(), b.inboxes.forward.recv());
    let (near, far) = soon(async { tokio::join!(a.handle.open(&me, LIMIT), open) }).await;
    let (mut near, mut far) = (near.unwrap(), far.unwrap());
    near.write_all(b"GET").await.unwrap();
    let mut got = [0; 3];
    soon(far.read_exact(&mut got)).await.unwrap();
    begin(&chaos, partition(Direction::Out));
    assert_eq!(near.write_all(b"?").await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(a.handle.open(&me, SHORT).await.unwrap_err(), RequestError::Timeout);
}

#[tokio::test]
async fn a_delay_holds_up_what_goes_and_what_comes_and_loses_none_of_it() {
    let (mut a, mut b, chaos) = pair().await;
    let (ms, nodes) = (30, vec!["*".to_owned()]);
    begin(&chaos, Fault::Delay { nodes, direction: Direction::Both, ms, jitter_ms: 0 });
    let begun = Clock.now();
    say(&a, &b, "late");
    assert_eq!(heard(&mut b).await, ["late"; 2]);
    assert!(Clock.now() - begun >= Duration::from_millis(ms), "on its way out");
    let begun = Clock.now();
    say(&b, &a, "late");
    assert_eq!(heard(&mut a).await, ["late"; 2]);
    assert!(Clock.now() - begun >= Duration::from_millis(ms), "on its way in");
    let (to_a, to_b) = (a.me(), b.me());
    for took in [there_and_back(&a, &to_b, &mut b).await, there_and_back(&b, &to_a, &mut a).await] {
        assert!(took >= Duration::from_millis(2 * ms), "{took:?}");
    }
}

/// How long an answer takes that comes in a datagram.
async fn there_and_back(from: &Node, me: &Peer, to: &mut Node) -> Duration {
    let begun = Clock.now();
    let answers = async { to.inboxes.ledger.recv().await.unwrap().answer.send(Bytes::new()) };
    let (answer, ()) = soon(async { tokio::join!(from.handle.request(me, Lane::Ledger, b"?", LIMIT), answers) }).await;
    assert!(answer.is_ok());
    Clock.now() - begun
}

#[tokio::test]
async fn loss_takes_datagrams_and_makes_streams_late() {
    let (a, mut b, chaos) = pair().await;
    begin(&chaos, Fault::Loss { nodes: vec!["n-2".to_owned()], direction: Direction::Out, ratio: 1.0 });
    say(&a, &b, "during");
    let late = soon(b.inboxes.deltas.recv()).await.unwrap();
    assert_eq!(&*late.bytes, b"during", "what is lost of a stream is sent again");
    mend(&chaos);
    say(&a, &b, "after");
    assert_eq!(heard(&mut b).await, ["after"; 2], "what is lost of datagrams is lost");
}

#[tokio::test]
async fn without_gossip_everything_else_is_carried() {
    let (a, mut b, chaos) = pair().await;
    begin(&chaos, Fault::Gossip {});
    say(&a, &b, "during");
    let asked = a.handle.request(&b.me(), Lane::Sync, b"?", SHORT).await;
    assert_eq!(asked, Err(RequestError::Timeout));
    let me = b.me();
    let answers = async { b.inboxes.raft.recv().await.unwrap().answer.send(Bytes::new()) };
    let (answer, ()) = soon(async { tokio::join!(a.handle.request(&me, Lane::Raft, b"?", LIMIT), answers) }).await;
    assert!(answer.is_ok());
    mend(&chaos);
    say(&a, &b, "after");
    assert_eq!(heard(&mut b).await, ["after"; 2]);
}
