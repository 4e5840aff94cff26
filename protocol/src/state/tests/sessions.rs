//! Sessions of clients and nodes.

use super::*;
use crate::state::limits::MAX_NODES;
use crate::types::Fence;

const EXPIRED: Answer = Answer::Refused(Refused::SessionExpired);

fn end(session: SessionId) -> Operation {
    Operation::EndSession { session, cause: ClientEnd::Killed }
}

/// A session in the process of a run of node 1.
fn hosted(run: u64, fast_release: bool) -> Operation {
    let host = Some(Host { node: NodeId(1), incarnation: Incarnation(run) });
    let about = About { label: "mine".into(), host, fast_release };
    Operation::OpenSession(OpenSession { ttl: Duration::from_secs(60), about })
}

fn opened(answer: Answer) -> SessionId {
    match answer {
        Answer::Registered(session) => session,
        other => panic!("no session: {other:?}"),
    }
}

#[test]
fn a_request_that_arrives_twice_is_executed_once() {
    let mut world = World::new();
    let session = world.register(Duration::from_secs(10));
    let first = world.request(session, Seq(1), Seq(1), put("a", "1", Expect::Any));
    world.request(session, Seq(2), Seq(1), put("a", "2", Expect::Any));
    let revision = world.state.revision();
    assert_eq!(world.request(session, Seq(1), Seq(1), put("a", "1", Expect::Any)), first);
    assert_eq!(world.state.revision(), revision);
    let Answer::Value { found: Some(value), .. } = world.state.query(&Query::Get("a".into())) else {
        panic!("it was put")
    };
    assert_eq!(value.value, "2");
}

#[test]
fn a_refusal_is_kept_like_any_other_answer() {
    // Otherwise a late duplicate could do what the client was told is certainly not done.
    let mut world = World::new();
    let session = world.register(Duration::from_secs(10));
    let refused = world.request(session, Seq(1), Seq(1), put("a", "1", Expect::Present));
    assert_eq!(refused, conflict(Revision(0)));
    world.request(session, Seq(2), Seq(1), put("a", "2", Expect::Any));
    assert_eq!(world.request(session, Seq(1), Seq(1), put("a", "1", Expect::Present)), refused);
}

#[test]
fn an_answer_that_the_client_has_is_forgotten_and_its_request_is_stale() {
    let mut world = World::new();
    let session = world.register(Duration::from_secs(10));
    for seq in 1..=5 {
        world.request(session, Seq(seq), Seq(1), put("a", "1", Expect::Any));
    }
    world.request(session, Seq(6), Seq(4), put("a", "2", Expect::Any));
    let stale = |seq| Answer::Refused(Refused::Stale(Seq(seq)));
    assert_eq!(world.request(session, Seq(3), Seq(1), put("a", "3", Expect::Any)), stale(3));
    assert!(matches!(world.request(session, Seq(4), Seq(1), put("a", "3", Expect::Any)), Answer::Written(_)));
    assert_eq!(world.request(session, Seq(7), Seq(9), put("a", "3", Expect::Any)), stale(7));
}

#[test]
fn a_session_has_512_requests_under_way_and_no_answer_is_evicted() {
    // F9: evicting the oldest answer would execute its request again.
    let mut world = World::new();
    let session = world.register(Duration::from_secs(10));
    let answers: Vec<_> =
        (1..=limits::WINDOW).map(|seq| world.request(session, Seq(seq), Seq(1), put("a", "1", Expect::Any))).collect();
    let next = Seq(limits::WINDOW + 1);
    assert_eq!(world.request(session, next, Seq(1), put("a", "2", Expect::Any)), Answer::Refused(Refused::Busy));
    assert_eq!(
        world.request(session, Seq(u64::MAX), Seq(1), put("a", "2", Expect::Any)),
        Answer::Refused(Refused::Busy)
    );
    for (seq, answer) in (1..).zip(&answers) {
        assert_eq!(&world.request(session, Seq(seq), Seq(1), put("a", "1", Expect::Any)), answer);
    }
    assert!(matches!(world.request(session, next, Seq(2), put("a", "2", Expect::Any)), Answer::Written(_)));
}

#[test]
fn a_session_that_ended_is_never_created_again() {
    let mut world = World::new();
    let session = world.register(Duration::from_secs(1));
    world.advance(Duration::from_secs(1));
    world.expire();
    assert!(!world.state.has_session(session));
    assert_eq!(world.request(session, Seq(1), Seq(1), put("a", "1", Expect::Any)), EXPIRED);
    let ended = Answer::Renewed { ended: vec![session] };
    assert_eq!(world.apply(Command::Renew { sessions: vec![session] }), ended);
    assert!(!world.state.has_session(session));
}

#[test]
fn a_closed_session_is_gone_at_once() {
    let mut world = World::new();
    let session = world.register(Duration::from_secs(10));
    assert_eq!(world.request(session, Seq(1), Seq(1), Operation::Close), Answer::Ok);
    assert_eq!(world.request(session, Seq(1), Seq(1), Operation::Close), EXPIRED);
}

#[test]
fn each_session_that_ends_takes_a_revision_of_its_own() {
    // Whatever it owned goes under that revision, whoever gets it next is granted it under a later one (F5).
    let mut world = World::new();
    let sessions: Vec<_> = (0..3).map(|_| world.register(Duration::from_secs(1))).collect();
    let before = world.state.revision();
    world.advance(Duration::from_secs(1));
    world.expire();
    assert_eq!(world.state.revision().0, before.0 + 3);
    let expired = |session| ClusterChange::ClientEnded { session, cause: ClientEnd::Expired };
    assert_eq!(world.changes[..3], sessions.into_iter().map(expired).collect::<Vec<_>>());
}

#[test]
fn a_session_that_somebody_ended_is_gone_and_ending_it_again_says_so() {
    let mut world = World::new();
    let session = world.register(Duration::from_secs(10));
    assert_eq!(world.client(end(session)), Answer::Ok);
    assert_eq!(world.changes[0], ClusterChange::ClientEnded { session, cause: ClientEnd::Killed });
    assert!(!world.state.has_session(session));
    let gone = Answer::Refused(Refused::NoSession(session));
    assert_eq!(world.client(end(session)), gone);
    assert_eq!(world.request(session, Seq(1), Seq(1), put("a", "1", Expect::Any)), EXPIRED);
}

#[test]
fn a_session_may_end_itself_like_any_other() {
    let mut world = World::new();
    let session = world.register(Duration::from_secs(10));
    assert_eq!(world.request(session, Seq(1), Seq(1), end(session)), Answer::Ok);
    assert!(!world.state.has_session(session));
}

#[test]
fn a_nodes_session_is_not_ended_by_a_client() {
    let mut world = World::with_worker();
    let session = world.worker;
    assert_eq!(world.client(end(session)), Answer::Refused(Refused::NoSession(session)));
    assert!(world.state.has_session(session));
}

#[test]
fn two_registrations_in_one_entry_have_two_sessions() {
    // F5: with the index as id, one client would get the other's answers.
    let mut world = World::new();
    assert_ne!(world.register(Duration::from_secs(1)), world.register(Duration::from_secs(1)));
}

#[test]
fn a_renewal_moves_the_deadline_and_never_back() {
    let mut world = World::with_worker();
    let deadline = world.now + Duration::from_secs(3);
    assert_eq!(world.state.next_expiry(), deadline);
    world.advance(Duration::from_secs(2));
    world.apply(Command::Renew { sessions: vec![world.worker, SessionId(99)] });
    let moved = world.now + Duration::from_secs(3);
    assert_eq!(world.changes, [ClusterChange::Renewed(vec![(world.worker, moved)]), ClusterChange::NextExpiry(moved)]);
    world.now = ClusterTime(0);
    world.apply(Command::Renew { sessions: vec![world.worker] });
    assert_eq!(world.state.next_expiry(), moved);
}

#[test]
fn nothing_expires_before_its_time_in_the_log() {
    let mut world = World::with_worker();
    world.advance(Duration::from_millis(2_999));
    world.apply(Command::Expire { before: ClusterTime::NEVER });
    assert!(world.state.has_session(world.worker));
    world.advance(Duration::from_millis(1));
    world.apply(Command::Expire { before: ClusterTime::NEVER });
    assert!(!world.state.has_session(world.worker));
}

#[test]
fn a_new_epoch_gives_every_session_a_full_time_to_live() {
    // F10: nobody could renew anything while nobody led.
    let mut world = World::with_worker();
    let client = world.register(Duration::from_secs(1));
    world.advance(Duration::from_secs(60));
    world.changes.clear();
    world.state.begin_epoch(world.now, &mut world.changes);
    world.state.assert_coherent();
    let deadline = world.now + Duration::from_secs(3);
    assert!(world.changes.contains(&ClusterChange::Renewed(vec![(world.worker, deadline)])));
    world.expire();
    assert!(world.state.has_session(world.worker) && world.state.has_session(client));
    world.advance(Duration::from_secs(1));
    world.expire();
    assert!(world.state.has_session(world.worker) && !world.state.has_session(client));
}

#[test]
fn a_session_needs_a_sensible_time_to_live() {
    let mut world = World::new();
    for ttl in [Duration::ZERO, Duration::MAX] {
        assert!(matches!(world.apply(Command::Register { ttl }), Answer::Refused(Refused::Invalid(_))));
    }
}

#[test]
fn sessions_over_the_limit_are_refused_and_replace_none() {
    let mut state = State::default();
    let mut register = || state.apply(ClusterTime(1), &Command::Register { ttl: Duration::from_secs(1) }, &mut vec![]);
    for _ in 0..limits::MAX_SESSIONS {
        assert!(matches!(register(), Answer::Registered(_)));
    }
    assert!(matches!(register(), Answer::Refused(Refused::Quota(_))));
    assert_eq!(state.clients.sessions().len(), limits::MAX_SESSIONS);
}

#[test]
fn requests_are_put_off_while_there_is_no_room_for_their_answers() {
    let mut state = State::default();
    let mut ask = |command| state.apply(ClusterTime(1), &command, &mut vec![]);
    let specs = vec![TaskSpec { once_key: Some("k".into()), ..TaskSpec::new("a", "") }; limits::MAX_BATCH];
    let request = |session, seq, first_incomplete| {
        let operation = Operation::Submit(specs.clone());
        Command::Client { session, seq: Seq(seq), first_incomplete: Seq(first_incomplete), operation }
    };
    let mut sessions = vec![];
    'full: loop {
        let Answer::Registered(session) = ask(Command::Register { ttl: Duration::from_secs(9) }) else {
            panic!("full")
        };
        sessions.push(session);
        for seq in 1..=limits::WINDOW {
            match ask(request(session, seq, 1)) {
                Answer::Submitted(_) => {}
                Answer::Refused(Refused::Busy) => break 'full,
                other => panic!("neither done nor put off: {other:?}"),
            }
        }
    }
    // The first session has all of its answers now, and there is room again for everybody.
    let (first, last) = (sessions[0], *sessions.last().unwrap());
    assert!(matches!(ask(request(first, limits::WINDOW + 1, limits::WINDOW + 1)), Answer::Submitted(_)));
    assert!(matches!(ask(request(last, limits::WINDOW, 1)), Answer::Submitted(_)));
}

#[test]
fn a_client_that_asks_for_nothing_more_takes_no_room_for_answers_that_it_has() {
    let mut state = State::default();
    let ask = |state: &mut State, command| state.apply(ClusterTime(1), &command, &mut vec![]);
    let Answer::Registered(session) = ask(&mut state, Command::Register { ttl: Duration::from_secs(9) }) else {
        panic!("it opens")
    };
    let put = |seq| {
        let operation = Operation::Put(Put::new("k", "v"));
        Command::Client { session, seq: Seq(seq), first_incomplete: Seq(1), operation }
    };
    let first = ask(&mut state, put(1));
    ask(&mut state, put(2));
    assert!(state.keeps_before(session, Seq(2)) && !state.keeps_before(session, Seq(1)));
    ask(&mut state, Command::Heard { session, first_incomplete: Seq(2) });
    assert!(!state.keeps_before(session, Seq(2)) && state.keeps_before(session, Seq(3)));
    assert_eq!(ask(&mut state, put(1)), Answer::Refused(Refused::Stale(Seq(1))));
    // An older one that was on its way for long takes nothing back, and one of a session that is over does nothing.
    ask(&mut state, Command::Heard { session, first_incomplete: Seq(1) });
    ask(&mut state, Command::Heard { session: SessionId(77), first_incomplete: Seq(9) });
    assert_ne!(ask(&mut state, put(2)), first, "the second answer is kept");
    ask(&mut state, Command::Heard { session, first_incomplete: Seq(3) });
    assert_eq!(state.clients.bytes(), 0);
}

#[test]
fn one_expire_ends_a_bounded_number_and_the_master_hears_that_there_is_more() {
    let mut state = State::default();
    let mut changes = Vec::new();
    for _ in 0..=limits::MAX_EXPIRED_AT_ONCE {
        state.apply(ClusterTime(1), &Command::Register { ttl: Duration::from_millis(1) }, &mut changes);
    }
    changes.clear();
    state.apply(ClusterTime(9), &Command::Expire { before: ClusterTime(9) }, &mut changes);
    assert_eq!(changes.len(), limits::MAX_EXPIRED_AT_ONCE + 1);
    assert_eq!(changes.last(), Some(&ClusterChange::NextExpiry(ClusterTime(2))));
    assert_eq!(state.clients.sessions().len(), 1);
    state.apply(ClusterTime(9), &Command::Expire { before: ClusterTime(9) }, &mut changes);
    assert_eq!(changes.last(), Some(&ClusterChange::NextExpiry(ClusterTime::NEVER)));
}

#[test]
fn one_expire_ends_the_more_sessions_the_less_they_own() {
    let (mut state, mut changes) = (State::default(), Vec::new());
    let register = Command::Register { ttl: Duration::from_secs(1) };
    let owners = [(); 4].map(|()| match state.apply(ClusterTime(1), &register, &mut changes) {
        Answer::Registered(session) => session,
        other => panic!("no session: {other:?}"),
    });
    for session in owners {
        for number in 1..=limits::MAX_OWNED as u64 {
            let seq = Seq(number);
            let operation = Operation::Put(Put { owner: Some(session), ..Put::new(format!("{session}/{number}"), "") });
            let put = Command::Client { session, seq, first_incomplete: seq, operation };
            assert!(matches!(state.apply(ClusterTime(1), &put, &mut changes), Answer::Written(_)));
        }
    }
    let mut left_after = |time| {
        state.apply(time, &Command::Expire { before: time }, &mut changes);
        assert_eq!(
            state.next_expiry() <= time,
            state.clients.sessions().len() > 0,
            "the master hears that there is more"
        );
        state.clients.sessions().len()
    };
    assert_eq!([left_after(ClusterTime(2_000)), left_after(ClusterTime(2_000))], [2, 0]);
}

#[test]
fn a_newer_run_of_a_node_ends_the_session_of_the_older_one() {
    let mut world = World::with_worker();
    let older = world.worker;
    let often = world.submit(TaskSpec::new("a", ""));
    let once = world.submit(once("a"));
    let (often_fence, once_fence) = (world.assign(often, 1), world.assign(once, 1));
    world.worker = world.open(1, 2);
    assert!(!world.state.has_session(older) && world.state.has_session(world.worker));
    assert!(matches!(world.view(often).state, TaskState::Pending { .. }));
    assert!(matches!(world.view(once).state, TaskState::Lost { .. }));
    let node = NodeId(1);
    let attempt = |task| crate::types::Attempt { task, number: 1 };
    assert_eq!(
        world.changes[..3],
        [
            ClusterChange::NodeEnded { session: older, node },
            ClusterChange::Pending { attempt: attempt(often), fence: often_fence, not_before: world.now },
            ClusterChange::Ended { task: once, fence: Some((node, attempt(once), once_fence)), by_worker: false },
        ]
    );
    assert!(matches!(world.changes[3], ClusterChange::NodeOpened(_)));
}

#[test]
fn an_older_run_of_a_node_does_not_come_back() {
    let mut world = World::new();
    let newer = world.open(1, 5);
    assert_eq!(world.open_raw(1, 4), EXPIRED);
    assert_eq!(world.changes, [ClusterChange::NotOpened { node: NodeId(1), why: Refused::SessionExpired }]);
    assert!(world.state.has_session(newer));
}

#[test]
fn all_that_nodes_offer_fits_into_one_message() {
    let mut state = State::default();
    let mut open = |command| state.apply(ClusterTime(1), &Command::Master(command), &mut Vec::new());
    let word = |number: usize| format!("{number:0>256}");
    let wide = |kinds: usize, node: u64| MasterCommand::OpenNode {
        node: NodeId(node),
        incarnation: Incarnation(u64::MAX),
        offer: Offer { kinds: (0..kinds).map(word).collect(), slots: u32::MAX, ..Offer::default() },
        ttl: Duration::from_millis(3_600_001),
    };
    let mut taken = 0;
    for node in 1..=MAX_NODES as u64 {
        let kinds = if node.is_multiple_of(9) { 600 } else { 0 };
        let answer = open(wide(kinds, u64::MAX - node));
        let is_taken = matches!(answer, Answer::Registered(_));
        assert!(is_taken || (kinds > 0 && matches!(answer, Answer::Refused(Refused::Quota(_)))), "{answer:?}");
        taken += usize::from(is_taken && kinds > 0);
        if !is_taken {
            open(wide(0, u64::MAX - node));
        }
    }
    assert!(taken > 3, "{taken} have many kinds");
    let nodes = state.query(&Query::Nodes);
    assert!(matches!(&nodes, Answer::Nodes(nodes) if nodes.len() == MAX_NODES));
    assert!(crate::wire::encode(&nodes, crate::wire::MAX_MESSAGE - 1024).is_ok());
}

#[test]
fn opening_the_same_run_again_changes_only_what_it_says_of_itself() {
    let mut world = World::with_worker();
    let task = world.submit(TaskSpec::new("a", ""));
    let fence = world.assign(task, 1);
    let offer = Offer { slots: 9, ..Offer::default() };
    let ttl = Duration::from_secs(3);
    let again = MasterCommand::OpenNode { node: NodeId(1), incarnation: Incarnation(1), offer: offer.clone(), ttl };
    assert_eq!(world.master(again), Answer::Registered(world.worker));
    let Answer::Nodes(nodes) = world.state.query(&Query::Nodes) else { panic!("nodes are shown") };
    assert_eq!((nodes.len(), &nodes[0].offer, nodes[0].assigned), (1, &offer, 1));
    assert_eq!(world.finish(task, fence, done("")), Answer::Ok);
}

#[test]
fn a_goodbye_gives_everything_back_and_is_no_death() {
    let mut world = World::with_worker();
    let tasks = [0; 3].map(|_| world.submit(TaskSpec::new("a", "")));
    let fences = tasks.map(|task| world.assign(task, 1));
    let begun = Begun { through: fences[0], fences: vec![fences[2]] };
    let goodbye = MasterCommand::EndNode { session: world.worker, begun };
    assert_eq!(world.master(goodbye.clone()), Answer::Ok);
    let causes = [ReleaseCause::NotHeld, ReleaseCause::HandedBack, ReleaseCause::NotHeld];
    for (task, cause) in tasks.into_iter().zip(causes) {
        let history: Vec<_> = world.view(task).history.into_iter().map(|line| line.what).collect();
        assert_eq!(history, [HistoryEvent::Assigned(NodeId(1)), HistoryEvent::Released(cause)]);
        assert!(matches!(world.view(task).state, TaskState::Pending { .. }));
    }
    assert_eq!(world.master(goodbye), EXPIRED);
}

#[test]
fn a_goodbye_ends_what_may_run_once_and_has_begun_and_nothing_else() {
    let mut world = World::with_worker();
    let tasks = [0; 2].map(|_| world.submit(once("a")));
    let fences = tasks.map(|task| world.assign(task, 1));
    let begun = Begun { fences: vec![fences[0]], ..Begun::default() };
    world.master(MasterCommand::EndNode { session: world.worker, begun });
    assert!(matches!(world.view(tasks[0]).state, TaskState::Lost { .. }));
    assert!(matches!(world.view(tasks[1]).state, TaskState::Pending { .. }));
}

#[test]
fn the_master_begins_with_what_lives() {
    let mut world = World::with_worker();
    let (ended, granted) = (world.submit(TaskSpec::new("a", "x")), world.submit(TaskSpec::new("b", "y")));
    let waiting = world.submit(TaskSpec { priority: 3, ..TaskSpec::new("c", "z") });
    let fence = world.assign(ended, 1);
    world.finish(ended, fence, done(""));
    let fence: Fence = world.assign(granted, 1);
    let view = world.state.master_view(Epoch(4));
    assert_eq!((view.epoch, view.time, view.next_expiry), (Epoch(4), world.now, world.state.next_expiry()));
    assert_eq!(view.tasks.iter().map(|task| task.id).collect::<Vec<_>>(), [granted, waiting]);
    assert_eq!(
        view.tasks[0].assigned.map(|grant| (grant.number, grant.fence, grant.session)),
        Some((1, fence, world.worker))
    );
    assert_eq!((view.tasks[1].assigned, view.tasks[1].spec.priority), (None, 3));
    assert_eq!((view.nodes.len(), view.nodes[0].session), (1, world.worker));
}

#[test]
fn opening_a_session_twice_under_one_number_opens_one() {
    let mut world = World::new();
    let client = world.register(Duration::from_secs(10));
    let first = world.request(client, Seq(1), Seq(1), hosted(1, false));
    assert_eq!(world.request(client, Seq(1), Seq(1), hosted(1, false)), first);
    let Answer::Sessions(sessions) = world.state.query(&Query::Sessions { after: client, limit: 9 }) else { panic!() };
    assert_eq!(
        sessions.iter().map(|view| (view.id, view.about.label.as_str())).collect::<Vec<_>>(),
        [(opened(first), "mine")]
    );
}

#[test]
fn sessions_are_shown_page_by_page_with_the_time_they_have_left() {
    let mut world = World::new();
    let ids: Vec<_> = (1..=3).map(|secs| world.register(Duration::from_secs(secs))).collect();
    world.client(Operation::Put(Put { owner: Some(ids[1]), ..Put::new("mine", "") }));
    world.advance(Duration::from_millis(400));
    world.apply(Command::Renew { sessions: vec![ids[2]] });
    let Answer::Sessions(page) = world.state.query(&Query::Sessions { after: ids[0], limit: 1 }) else { panic!() };
    assert_eq!(
        page.iter().map(|view| (view.id, view.left, view.keys)).collect::<Vec<_>>(),
        [(ids[1], Duration::from_millis(1_600), 1)]
    );
    let Answer::Sessions(page) = world.state.query(&Query::Sessions { after: ids[1], limit: 9 }) else { panic!() };
    assert_eq!(page.iter().map(|view| (view.id, view.left)).collect::<Vec<_>>(), [(ids[2], Duration::from_secs(3))]);
}

#[test]
fn a_newer_run_of_a_node_ends_the_client_sessions_of_the_older_ones() {
    // F12: the lock on the data folder makes a new run proof of the old one's death.
    let mut world = World::with_worker();
    let older = opened(world.client(hosted(1, false)));
    let newer = opened(world.client(hosted(2, false)));
    world.open(1, 2);
    assert!(!world.state.has_session(older) && world.state.has_session(newer));
    assert!(world.changes.contains(&ClusterChange::ClientEnded { session: older, cause: ClientEnd::Proven }));
    let over = Refused::Invalid("the run that hosts the session is over".into());
    assert_eq!(world.client(hosted(1, false)), Answer::Refused(over));
}

#[test]
fn a_newer_run_is_proof_even_if_the_session_of_the_older_one_has_expired() {
    let mut world = World::with_worker();
    let session = opened(world.client(hosted(1, false)));
    world.advance(Duration::from_secs(3));
    world.expire();
    assert!(!world.state.has_session(world.worker) && world.state.has_session(session));
    world.open(1, 2);
    assert!(!world.state.has_session(session));
}

#[test]
fn evidence_ends_only_the_sessions_that_wanted_no_proof() {
    let mut world = World::with_worker();
    let sessions: Vec<_> = [(1, true), (1, false), (2, true)]
        .into_iter()
        .map(|(run, fast)| opened(world.client(hosted(run, fast))))
        .collect();
    let host = Host { node: NodeId(1), incarnation: Incarnation(1) };
    assert_eq!(world.master(MasterCommand::EndReleased(host)), Answer::Ok);
    let live: Vec<_> = sessions.iter().map(|&session| world.state.has_session(session)).collect();
    assert_eq!(live, [false, true, true]);
    let cause = ClientEnd::Evidence;
    let ended = ClusterChange::ClientEnded { session: sessions[0], cause };
    assert_eq!(world.changes[..2], [ended, ClusterChange::Released { host }]);
    assert!(world.state.has_session(world.worker), "a node's session ends by itself");
}

#[test]
fn a_session_without_a_host_cannot_be_released_on_evidence() {
    let mut world = World::new();
    let about = About { fast_release: true, ..About::default() };
    let opening = OpenSession { ttl: Duration::from_secs(1), about };
    assert!(matches!(world.client(Operation::OpenSession(opening)), Answer::Refused(Refused::Invalid(_))));
}

#[test]
fn a_node_hosts_a_bounded_number_of_sessions() {
    // All of them end in one step when a newer run is here.
    let mut state = State::default();
    let mut apply = |command| state.apply(ClusterTime(1), &command, &mut vec![]);
    let client = opened(apply(Command::Register { ttl: Duration::from_secs(60) }));
    let mut open = |seq| {
        let seq = Seq(seq);
        apply(Command::Client { session: client, seq, first_incomplete: seq, operation: hosted(1, false) })
    };
    let count = limits::MAX_HOSTED as u64;
    assert!((1..=count).all(|seq| matches!(open(seq), Answer::Registered(_))));
    assert!(matches!(open(count + 1), Answer::Refused(Refused::Quota(_))));
}
