//! Hello, renewal, silence and goodbye.

use super::*;

#[test]
fn a_master_says_so_at_once_on_every_new_link_and_again_to_whoever_is_silent() {
    let mut bench = Bench::new();
    assert_eq!(heres(&bench.said()), [OWN, B, C]);
    bench.hello(B, 1, &[]);
    bench.wait(LAN.renewal);
    assert_eq!(heres(&bench.said()), [OWN, C]);
    bench.link_down(B);
    bench.link_up(B);
    assert_eq!(heres(&bench.said()), [B]);
}

#[test]
fn a_worker_that_says_hello_is_welcome_when_its_session_is_in_the_log() {
    let mut bench = Bench::new();
    bench.said();
    let sent = bench.now;
    bench.hello(B, 1, &[]);
    bench.hello(B, 1, &[]);
    assert_eq!(bench.said(), []);
    let commands = bench.proposed();
    assert!(matches!(commands[..], [Command::Master(MasterCommand::OpenNode { node: B, .. })]), "{commands:?}");
    bench.now = bench.now + 5 * MS;
    bench.commit(&commands);
    let session = bench.session(B);
    assert_eq!(
        bench.said(),
        [(B, ToWorker::Welcome { epoch: Epoch(1), incarnation: Incarnation(1), session, ttl: LAN.session, sent })]
    );
}

#[test]
fn renewals_are_gathered_for_a_heartbeat_and_count_when_they_are_applied() {
    let mut bench = Bench::with_workers(&[(B, 1), (C, 1)]);
    bench.wait(LAN.renewal);
    bench.said();
    let sent = bench.now;
    bench.renew(B, &[], 0);
    bench.wait(10 * MS);
    bench.renew(C, &[], 0);
    assert_eq!(bench.proposed(), []);
    bench.wait(LAN.heartbeat - 10 * MS);
    let sessions = vec![bench.session(B), bench.session(C)];
    let commands = bench.proposed();
    assert_eq!(commands, [Command::Renew { sessions }]);
    assert_eq!(bench.said(), []);
    bench.commit(&commands);
    let welcomed = bench.said();
    assert!(
        matches!(welcomed[..], [(B, ToWorker::Welcome { sent: first, .. }), (C, ToWorker::Welcome { .. })] if first == sent)
    );
}

#[test]
fn a_renewal_is_not_answered_by_an_entry_that_is_older_than_its_question() {
    let mut bench = Bench::with_workers(&[(B, 1)]);
    bench.wait(LAN.renewal);
    bench.renew(B, &[], 0);
    bench.wait(LAN.heartbeat);
    let first = bench.proposed();
    bench.said();
    // Said to be dropped, although it was not: it is applied after the worker has asked again.
    bench.step(Input::Dropped { epoch: Epoch(1) });
    let stamped = time(bench.now);
    bench.wait(LAN.renewal);
    bench.renew(B, &[], 0);
    let asked = bench.now;
    bench.wait(LAN.heartbeat);
    let mut changes = Vec::new();
    bench.state.apply(stamped, &first[0], &mut changes);
    bench.step(Input::Applied { epoch: Epoch(1), time: stamped, changes });
    let welcomes = |said: Vec<(NodeId, ToWorker)>| -> Vec<Nanos> {
        said.into_iter()
            .filter_map(|(_, message)| if let ToWorker::Welcome { sent, .. } = message { Some(sent) } else { None })
            .collect()
    };
    assert!(!welcomes(bench.said()).contains(&asked));
    bench.wait(LAN.heartbeat);
    bench.settle();
    bench.wait(LAN.heartbeat);
    bench.settle();
    assert!(welcomes(bench.said()).contains(&asked));
}

#[test]
fn whoever_renews_a_session_that_does_not_live_is_told_so() {
    let mut bench = Bench::with_workers(&[(B, 1)]);
    let (epoch, sent) = (Epoch(1), bench.now);
    let renew = ToMaster::Renew { epoch, session: SessionId(99), held: Vec::new(), seen: Fence(0), sent };
    bench.hear(B, renew);
    assert_eq!(bench.said(), [(B, ToWorker::Unknown { epoch })]);
}

#[test]
fn a_session_that_nobody_renews_ends_by_an_entry_and_its_attempts_go_again() {
    let mut bench = Bench::with_workers(&[(B, 1), (C, 1)]);
    let task = bench.submit(echo());
    bench.settle();
    let (holder, held) = bench.grant(task);
    let other = if holder == B { C } else { B };
    bench.link_down(holder);
    for _ in 0..6 {
        bench.wait(LAN.renewal);
        bench.renew(other, &[], 0);
        bench.wait(LAN.heartbeat);
        bench.settle();
    }
    let (now_holder, now_held) = bench.grant(task);
    assert_eq!((now_holder, now_held.attempt.number), (other, held.attempt.number + 1));
}

#[test]
fn what_is_heard_in_time_does_not_expire_in_the_same_entry() {
    let mut bench = Bench::with_workers(&[(B, 1)]);
    bench.wait(LAN.session - LAN.heartbeat);
    bench.renew(B, &[], 0);
    bench.wait(2 * LAN.heartbeat);
    let commands = bench.proposed();
    assert!(matches!(commands[0], Command::Renew { .. }), "{commands:?}");
    bench.commit(&commands);
    bench.session(B);
}

#[test]
fn a_worker_whose_offer_changes_while_its_session_opens_is_asked_for_again() {
    let mut bench = Bench::new();
    bench.hello(B, 3, &[]);
    let first = bench.proposed();
    bench.hello(B, 0, &[]);
    bench.commit(&first);
    bench.settle();
    bench.submit(echo());
    assert_eq!(bench.proposed(), [], "it has no slots any more");
    let view = bench.state.master_view(Epoch(1));
    assert_eq!(view.nodes[0].offer.slots, 0);
}

#[test]
fn goodbye_ends_the_session_and_moves_what_was_on_its_way() {
    let mut bench = Bench::with_workers(&[(B, 1), (C, 1)]);
    let task = bench.submit(echo());
    bench.settle();
    let (holder, _) = bench.grant(task);
    let session = bench.session(holder);
    bench.hear(holder, ToMaster::Goodbye { session, begun: Begun::default() });
    bench.settle();
    assert!(!bench.state.has_session(session));
    assert_ne!(bench.grant(task).0, holder);
}

#[test]
fn evidence_behind_a_goodbye_counts_no_death() {
    let mut bench = Bench::with_workers(&[(B, 1)]);
    let task = bench.submit(echo());
    bench.settle();
    let (_, held) = bench.grant(task);
    let (session, begun) = (bench.session(B), Begun { fences: vec![held.fence], ..Begun::default() });
    bench.hear(B, ToMaster::Goodbye { session, begun });
    bench.step(Input::LinkDown { node: B, incarnation: Incarnation(1) });
    bench.step(Input::Evidence { node: B, incarnation: Incarnation(1) });
    let is_release = |command: &Command| matches!(command, Command::Master(MasterCommand::Release { .. }));
    assert!(!bench.proposed().iter().any(is_release));
}

#[test]
fn an_offer_that_no_session_can_have_is_refused_at_once() {
    let mut bench = Bench::new();
    bench.said();
    let kinds = (0..100_000).map(|kind| format!("kind-{kind}")).collect();
    bench.hello_offering(B, Offer { kinds, ..offer() }, &[]);
    assert!(matches!(bench.said()[..], [(B, ToWorker::Refused { .. })]));
    assert_eq!(bench.proposed(), []);
}

#[test]
fn what_a_node_asked_for_is_forgotten_with_its_link() {
    let mut bench = Bench::new();
    bench.hello(B, 1, &[]);
    assert_eq!(bench.proposed().len(), 1, "its session");
    bench.link_down(B);
    bench.step(Input::Dropped { epoch: bench.epoch });
    bench.wait(LAN.heartbeat);
    assert_eq!(bench.proposed(), [], "if it is still there, it asks again");
}
