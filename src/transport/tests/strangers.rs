//! Who is no member, and what is no packet of ours: refused or ignored, counted where it can be, and without effect on members.

use super::*;
use crate::base::entropy::Entropy;

/// Whether members still talk after what a test did to them.
async fn still_well(a: &Node, b: &mut Node) {
    // A message may be lost with the connection it was sent over, or fall into the pause after a dial: so again until one is heard.
    let heard = async {
        loop {
            a.handle.send(&b.me(), Lane::Swim, Bytes::from_static(b"well?")).unwrap();
            let wait = tokio::time::timeout(Duration::from_millis(200), b.inboxes.swim.recv());
            if let Ok(heard) = wait.await {
                return heard.unwrap();
            }
        }
    };
    assert_eq!(&*soon(heard).await.bytes, b"well?");
    assert!(b.inboxes.deltas.try_recv().is_err(), "nobody else was heard");
}

#[tokio::test]
async fn a_node_with_another_secret_is_refused_in_both_directions() {
    let secret = MeshSecret::generate();
    let (member, other) = (Node::new(1, &secret), Node::new(2, &MeshSecret::generate()));
    assert_eq!(soon(member.handle.greet(other.addr())).await, Err(GreetError::Refused));
    assert_eq!(member.metrics.refusals(Refusal::Untrusted), 1);
    eventually("it hears that it was refused", || other.metrics.refusals(Refusal::ByPeer) == 1).await;
    assert_eq!(soon(other.handle.greet(member.addr())).await, Err(GreetError::Refused));
    assert_eq!(other.metrics.refusals(Refusal::Untrusted), 1);
    assert!(member.handle.links().is_empty() && other.handle.links().is_empty());
}

#[tokio::test]
async fn a_node_of_another_cluster_is_refused_though_it_has_the_secret() {
    let secret = MeshSecret::generate();
    let elsewhere = ClusterName::parse("elsewhere").unwrap();
    let trust = Trust::from_secrets(elsewhere, peer(2).node, std::slice::from_ref(&secret)).unwrap();
    let (member, other) = (Node::new(1, &secret), Node::with(peer(2), bind(), trust));
    assert_eq!(soon(other.handle.greet(member.addr())).await, Err(GreetError::Refused));
    assert_eq!(soon(member.handle.greet(other.addr())).await, Err(GreetError::Refused));
}

#[tokio::test]
async fn a_self_made_certificate_of_the_right_name_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let files = pki::write_pki(folder.path(), "spiffe://smg.internal/smg/test/n-2", (2020, 2999));
    let trust = Trust::from_files(cluster(), &files).unwrap();
    let (member, other) = (Node::new(1, &MeshSecret::generate()), Node::with(peer(2), bind(), trust));
    assert_eq!(soon(member.handle.greet(other.addr())).await, Err(GreetError::Refused));
    assert_eq!(soon(other.handle.greet(member.addr())).await, Err(GreetError::Refused));
    assert_eq!(member.metrics.refusals(Refusal::Untrusted), 1);
}

#[tokio::test]
async fn nodes_with_certificates_of_one_authority_find_each_other() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [a, b] = ["n-1", "n-2"].map(|node| format!("spiffe://corp.example/smg/test/{node}"));
    let issued = pki::write_pkis(&[(folders[0].path(), &a, 2999), (folders[1].path(), &b, 2999)]);
    let nodes = [(peer(1), &issued[0]), (peer(2), &issued[1])]
        .map(|(me, files)| Node::with(me, bind(), Trust::from_files(cluster(), files).unwrap()));
    assert_eq!(soon(nodes[0].handle.greet(nodes[1].addr())).await, Ok(nodes[1].me()));
}

#[tokio::test]
async fn a_node_of_another_cluster_is_refused_though_one_authority_issues_for_both() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [a, b] = [("test", "n-1"), ("elsewhere", "n-2")]
        .map(|(cluster, node)| format!("spiffe://corp.example/smg/{cluster}/{node}"));
    let issued = pki::write_pkis(&[(folders[0].path(), &a, 2999), (folders[1].path(), &b, 2999)]);
    let member = Node::with(peer(1), bind(), Trust::from_files(cluster(), &issued[0]).unwrap());
    let elsewhere = Trust::from_files(ClusterName::parse("elsewhere").unwrap(), &issued[1]).unwrap();
    let other = Node::with(peer(2), bind(), elsewhere);
    assert_eq!(soon(other.handle.greet(member.addr())).await, Err(GreetError::Refused));
    assert_eq!(soon(member.handle.greet(other.addr())).await, Err(GreetError::Refused));
    assert_eq!(member.metrics.refusals(Refusal::Unnamed), 1 + u64::from(member.metrics.refusals(Refusal::ByPeer) == 0));
}

#[tokio::test]
async fn a_member_whose_certificate_ran_out_is_refused_in_both_directions() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [a, b] = ["n-1", "n-2"].map(|node| format!("spiffe://corp.example/smg/test/{node}"));
    let issued = pki::write_pkis(&[(folders[0].path(), &a, 2999), (folders[1].path(), &b, 2021)]);
    assert!(Trust::from_files(cluster(), &issued[1]).is_err(), "it does not start with it");
    let member = Node::with(peer(1), bind(), Trust::from_files(cluster(), &issued[0]).unwrap());
    let late = Node::with(peer(2), bind(), super::super::trust::tests::unjudged(cluster(), peer(2).node, &issued[1]));
    assert_eq!(soon(late.handle.greet(member.addr())).await, Err(GreetError::Refused));
    assert_eq!(member.metrics.refusals(Refusal::Expired), 1);
    assert_eq!(soon(member.handle.greet(late.addr())).await, Err(GreetError::Refused));
    assert_eq!(member.metrics.refusals(Refusal::Expired), 2);
    assert!(member.handle.links().is_empty() && late.handle.links().is_empty());
}

#[tokio::test]
async fn a_member_that_says_to_be_another_is_refused_in_both_directions() {
    let secret = MeshSecret::generate();
    let (mut victim, mut member) = (Node::new(1, &secret), Node::new(3, &secret));
    let trust = Trust::from_secrets(cluster(), peer(2).node, std::slice::from_ref(&secret)).unwrap();
    let spoofer = Node::with(peer(3), bind(), trust);
    assert_eq!(soon(spoofer.handle.greet(victim.addr())).await, Err(GreetError::Refused));
    assert_eq!(victim.metrics.refusals(Refusal::Spoofed), 1);
    assert_eq!(soon(victim.handle.greet(spoofer.addr())).await, Err(GreetError::Refused));
    assert_eq!(victim.metrics.refusals(Refusal::Spoofed), 2);
    // Nor does anybody talk to it because somebody said that node 3 is to be found there.
    let said = Peer { addr: spoofer.addr(), ..member.me() };
    victim.handle.send(&said, Lane::Swim, Bytes::from_static(b"secret")).unwrap();
    eventually("the lie is found", || victim.metrics.refusals(Refusal::Spoofed) == 3).await;
    assert!(victim.inboxes.swim.try_recv().is_err());
    // Nor is another member, which says the truth, taken for node 5.
    let mut other = Node::new(4, &secret);
    let said = Peer { addr: other.addr(), ..peer(5) };
    victim.handle.send(&said, Lane::Swim, Bytes::from_static(b"secret")).unwrap();
    eventually("it is another", || victim.metrics.refusals(Refusal::Spoofed) == 4).await;
    assert!(other.inboxes.swim.try_recv().is_err() && other.handle.links().is_empty());
    still_well(&victim, &mut member).await;
}

#[tokio::test]
async fn noise_on_the_port_changes_nothing() {
    let secret = MeshSecret::generate();
    let (a, mut b) = (Node::new(1, &secret), Node::new(2, &secret));
    soon(a.handle.greet(b.addr())).await.unwrap();
    let (entropy, noise) = (Entropy::seeded(7), bind());
    for round in 0..2000usize {
        let mut packet = vec![0u8; 1 + entropy.below(1400)];
        packet.iter_mut().for_each(|byte| *byte = entropy.next_u64() as u8);
        if round % 3 == 0 {
            // A long header of QUIC version 1, so that it is taken for a first packet.
            packet.resize(1200, 0);
            packet[..6].copy_from_slice(&[0xc3, 0, 0, 0, 1, 8]);
        }
        noise.send_to(&packet, b.addr()).unwrap();
    }
    still_well(&a, &mut b).await;
}

#[tokio::test]
async fn packets_that_are_replayed_or_cut_change_nothing() {
    let secret = MeshSecret::generate();
    let (a, mut b) = (Node::new(1, &secret), Node::new(2, &secret));
    // Somebody between the two, who passes everything on and keeps a copy.
    let between = tokio::net::UdpSocket::from_std({
        let socket = bind();
        socket.set_nonblocking(true).unwrap();
        socket
    })
    .unwrap();
    let (near, far) = (a.addr(), b.addr());
    let said = Peer { addr: between.local_addr().unwrap(), ..b.me() };
    a.handle.send(&said, Lane::Deltas, Bytes::from_static(b"once")).unwrap();
    let mut kept = Vec::new();
    let relay = async {
        let mut packet = [0; 2048];
        loop {
            let (len, from) = between.recv_from(&mut packet).await.unwrap();
            if from == near {
                kept.push(packet[..len].to_vec());
            }
            between.send_to(&packet[..len], if from == near { far } else { near }).await.unwrap();
        }
    };
    tokio::select! {
        () = relay => {}
        got = soon(b.inboxes.deltas.recv()) => assert_eq!(&*got.unwrap().bytes, b"once"),
    }
    assert!(kept.len() >= 3, "a handshake and a message");
    let stranger = bind();
    for packet in &kept {
        for len in [packet.len(), packet.len() / 2, 21, 1] {
            between.send_to(&packet[..len.min(packet.len())], far).await.unwrap();
            stranger.send_to(&packet[..len.min(packet.len())], far).unwrap();
        }
    }
    a.handle.evict(&said);
    still_well(&a, &mut b).await;
}

#[tokio::test]
async fn a_member_whose_messages_are_beyond_their_bounds_is_cut_short_and_counted() {
    let secret = MeshSecret::generate();
    let (a, mut b) = (Node::new(1, &secret), Node::new(2, &secret));
    soon(a.handle.greet(b.addr())).await.unwrap();
    let view = a.handle.used.load();
    let link = view.values().next().unwrap();
    let say = async |bytes: Vec<u8>| {
        let mut stream = link.conn.open_uni().await.unwrap();
        let _ = stream.write_all(&bytes).await; // the reader may stop it half way
        let _ = stream.finish(); // likewise
    };
    use super::super::metrics::Drop as Dropped;
    say(vec![Lane::Deltas.byte(); (1 << 20) + 2]).await;
    eventually("it is too large", || b.metrics.drops(Dropped::TooLarge) == 1).await;
    say(vec![99, 1, 2, 3]).await;
    say(vec![Lane::Sync.byte(), 1]).await;
    say(vec![Lane::Bulk.byte(), 1]).await;
    eventually("there are no such lanes", || b.metrics.drops(Dropped::NoReader) == 3).await;
    // A frame that promises a gigabyte is an ordinary message here; whoever decodes it does not believe it (see `wire`).
    say([&[Lane::Deltas.byte(), 1, 252][..], &(1u32 << 30).to_le_bytes()].concat()).await;
    let frame = soon(b.inboxes.deltas.recv()).await.unwrap().bytes;
    assert!(wire::decode::<Vec<u64>, 65536>(&frame).is_err());
    still_well(&a, &mut b).await;
}

#[tokio::test]
async fn a_greeting_that_is_no_greeting_ends_the_connection() {
    let secret = MeshSecret::generate();
    let (a, mut b, c) = (Node::new(1, &secret), Node::new(2, &secret), Node::new(3, &secret));
    let trust = Trust::from_secrets(cluster(), peer(4).node, std::slice::from_ref(&secret)).unwrap();
    let (_, client) = trust.tls(&c.metrics).unwrap();
    let client = std::sync::Arc::new(quinn::crypto::rustls::QuicClientConfig::try_from(client).unwrap());
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    for (n, hello) in [vec![], vec![9; 3], vec![1; 70_000], [&[1, 0, 252][..], &[255; 4]].concat()].iter().enumerate() {
        let config = quinn::ClientConfig::new(std::sync::Arc::clone(&client) as _);
        let conn = soon(endpoint.connect_with(config, b.addr(), "x").unwrap()).await.unwrap();
        let (mut send, _recv) = conn.open_bi().await.unwrap();
        let _ = send.write_all(hello).await; // the reader may stop it half way
        let _ = send.finish(); // likewise
        soon(conn.closed()).await;
        assert_eq!(b.metrics.refusals(Refusal::Malformed), n as u64 + 1);
    }
    still_well(&a, &mut b).await;
}
