//! One replica, whose batches are durable at once and whose store works on images when the test says so.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::Bytes;

use crate::client::{Origin, Request, RequestBody};
use crate::consensus::{self, Append, AppendReply, Snapshot, Verdict};
use crate::durable::{Ballot, ConfState, Durable, Entry, GENESIS, Genesis, Payload, Persist, SnapMeta};
use crate::effects::{Effects, Event, Local};
use crate::image::{Message, Work};
use crate::master;
use crate::message::Body;
use crate::profile::Profile;
use crate::replica::{Compaction, Config, Input, REPLACE_AFTER, Replica};
use crate::state::{Command, Operation, Put, State};
use crate::types::{ClusterId, ClusterTime, Epoch, Incarnation, Index, LogId, Nanos, NodeId, Revision, Seq, SessionId};

/// See the module.
pub(super) struct Bench {
    pub(super) replica: Replica,
    disk: Durable,
    works: VecDeque<Work>,
    sent: Vec<(NodeId, Body)>,
    masters: Vec<&'static str>,
    notes: Vec<String>,
    now: Nanos,
    number: u64,
}

impl Bench {
    fn start(node: u64, disk: Durable, join: &[&str]) -> Self {
        let config = Config {
            node: NodeId(node),
            profile: Profile::LAN,
            name: "test".into(),
            join: join.iter().map(|&address| address.to_owned()).collect(),
            voters: None,
            seed: 1,
            cluster: ClusterId(7),
            replace_after: REPLACE_AFTER,
            is_forgetful: false,
            compaction: Compaction { entries: 5, bytes: 1 << 30, trailing: 1 },
        };
        let replica = Replica::new(config, disk.clone(), Nanos(1));
        let (works, sent, masters, notes) = (VecDeque::new(), Vec::new(), Vec::new(), Vec::new());
        Self { replica, disk, works, sent, masters, notes, now: Nanos(1), number: 0 }
    }

    /// A node that waits for others to found a cluster with.
    pub(super) fn outsider() -> Self {
        Self::start(2, Durable::fresh(NodeId(2), Incarnation(1)), &LIST)
    }

    /// A leader alone in its cluster, with a session.
    pub(super) fn leader() -> Self {
        let mut bench = Self::start(1, Durable::fresh(NodeId(1), Incarnation(1)), &[]);
        for _ in 0..5 {
            bench.pass(Duration::from_secs(1));
        }
        bench.request(RequestBody::Register { ttl: Duration::from_secs(600) });
        bench.works.clear();
        bench
    }

    /// A voter of three that waits for its leader.
    pub(super) fn follower() -> Self {
        Self::start(2, voter(2), &LIST)
    }

    /// A leader with two followers that hold all it has.
    pub(super) fn leader_of_three() -> Self {
        let mut bench = Self::start(1, voter(1), &LIST);
        while !bench.sent.iter().any(|(_, body)| matches!(body, Body::Consensus(consensus::Message::PreVote { .. }))) {
            bench.pass(Duration::from_millis(100));
        }
        let epoch = Epoch(2);
        bench.hear(2, consensus::Message::PreVoteReply { epoch, granted: true });
        bench.hear(2, consensus::Message::VoteReply { epoch, granted: true });
        bench.acknowledge(2);
        bench.acknowledge(3);
        bench
    }

    pub(super) fn step(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let mut effects = Effects::new();
            self.replica.step(self.now, input, &mut effects);
            for batch in &effects.persist {
                self.disk.apply(batch);
                inputs.push_back(Input::Persisted { seq: batch.seq });
            }
            self.works.extend(effects.images);
            self.sent.extend(effects.send.into_iter().map(|outgoing| (outgoing.to, outgoing.body)));
            self.masters.extend(effects.local.iter().filter_map(|local| match local {
                Local::Master(master::Input::Begin(_)) => Some("begin"),
                Local::Master(master::Input::Surrender { .. }) => Some("surrender"),
                Local::Master(master::Input::End { .. }) => Some("end"),
                _ => None,
            }));
            self.notes.extend(effects.publish.into_iter().filter_map(|event| match event {
                Event::Note(note) => Some(note),
                Event::Fatal(why) => panic!("{why}"),
                _ => None,
            }));
        }
    }

    pub(super) fn pass(&mut self, span: Duration) {
        self.now = self.now + span;
        self.step(Input::Tick);
    }

    pub(super) fn hear(&mut self, from: u64, message: consensus::Message) {
        self.step(Input::Consensus { from: NodeId(from), message });
    }

    // ---- the store ----

    /// Does all that waits for the store.
    pub(super) fn work(&mut self) {
        while let Some(work) = self.works.pop_front() {
            self.do_work(work);
        }
    }

    pub(super) fn do_work(&mut self, work: Work) {
        if let Some(done) = self.disk.perform(work) {
            self.step(Input::ImageDone(done));
        }
    }

    /// Takes what waits first out of the queue.
    pub(super) fn postpone(&mut self) -> Work {
        self.works.pop_front().expect("something waits")
    }

    pub(super) fn is_saving(&self) -> bool {
        self.works.iter().any(|work| matches!(work, Work::Save { .. }))
    }

    /// How many pieces of work wait.
    pub(super) fn waiting(&self) -> usize {
        self.works.len()
    }

    pub(super) fn snapshot(&self) -> LogId {
        self.replica.consensus().snapshot().unwrap_or_default()
    }

    pub(super) fn base(&self) -> Index {
        self.replica.consensus().base().index
    }

    pub(super) fn applied(&self) -> Index {
        self.replica.consensus().applied()
    }

    // ---- a leader ----

    fn request(&mut self, body: RequestBody) {
        self.number += 1;
        let origin = Origin { node: NodeId(9), number: self.number, turn: 0 };
        self.step(Input::Request { from: NodeId(9), request: Request { origin, forwarded: false, body } });
        self.sent.clear();
    }

    /// One more entry.
    fn write(&mut self) {
        self.request(RequestBody::Renew { sessions: vec![SessionId(1)], heard: None });
    }

    /// From now on so many entries trail a snapshot, but no more than so many bytes of them.
    pub(super) fn trail(&mut self, trailing: u64, bytes: u64) {
        self.replica.compaction = Compaction { trailing, bytes, ..self.replica.compaction };
    }

    pub(super) fn write_until_saving(&mut self) {
        while !self.is_saving() {
            self.write();
        }
    }

    /// Writes a part of what may be written until a snapshot is due while somebody fetches one.
    pub(super) fn write_until_due(&mut self) {
        (0..1000).for_each(|_| self.write());
    }

    /// Writes until a snapshot is durable.
    pub(super) fn save(&mut self) -> LogId {
        self.write_until_saving();
        self.work();
        self.snapshot()
    }

    /// What somebody hears who asks for a chunk. The store reads it before it does anything else.
    pub(super) fn read(&mut self, from: u64, last: LogId, place: u32) -> Message {
        self.image(from, Message::Want { last, place });
        let read = self.works.pop_back().expect("it is asked for");
        self.do_work(read);
        match self.sent.pop() {
            Some((to, Body::Image(message))) if to == NodeId(from) => message,
            other => panic!("not answered but {other:?}"),
        }
    }

    pub(super) fn transfer(&mut self, to: NodeId) {
        self.step(Input::Transfer { to: Some(to) });
    }

    pub(super) fn surrendered(&mut self) {
        let epoch = self.replica.consensus().epoch();
        self.step(Input::Surrendered { epoch });
    }

    /// A follower says that it holds everything, in answer to what was sent just now.
    pub(super) fn acknowledge(&mut self, from: u64) {
        let verdict = Verdict::Matched(self.replica.consensus().last().index);
        let (epoch, promise) = (self.replica.consensus().epoch(), Profile::LAN.promise);
        let reply = AppendReply { epoch, verdict, sent: self.now, promise, is_eager: false };
        self.hear(from, consensus::Message::AppendReply(reply));
    }

    /// What the master was told since it was asked last.
    pub(super) fn masters(&mut self) -> Vec<&'static str> {
        std::mem::take(&mut self.masters)
    }

    pub(super) fn notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    /// Who was told to campaign at once since it was asked last.
    pub(super) fn heirs(&mut self) -> Vec<NodeId> {
        let is_order = |body: &Body| matches!(body, Body::Consensus(consensus::Message::TimeoutNow { .. }));
        std::mem::take(&mut self.sent).into_iter().filter(|(_, body)| is_order(body)).map(|(to, _)| to).collect()
    }

    // ---- a follower ----

    /// A leader sends empty entries, all of them committed.
    pub(super) fn append(&mut self, from: u64, epoch: u64, places: RangeInclusive<u64>) {
        let epoch = Epoch(epoch);
        let commit = Index(*places.end());
        let entry = |index| Entry {
            id: LogId { epoch, index: Index(index) },
            time: ClusterTime(index),
            payload: Payload::Noop,
        };
        let append = Append { epoch, prev: GENESIS, entries: places.map(entry).collect(), commit, sent: Nanos(1) };
        self.hear(from, consensus::Message::Append(append));
    }

    /// A leader names its snapshot.
    pub(super) fn named(&mut self, from: u64, epoch: u64, meta: SnapMeta) {
        let snapshot = Snapshot { epoch: Epoch(epoch), meta, sent: Nanos(1) };
        self.hear(from, consensus::Message::Snapshot(Box::new(snapshot)));
    }

    pub(super) fn image(&mut self, from: u64, message: Message) {
        self.step(Input::Image { from: NodeId(from), message });
    }

    /// A chunk comes, as it should.
    pub(super) fn chunk(&mut self, from: u64, meta: &SnapMeta, place: usize, chunks: &[Bytes]) {
        self.image(from, chunk(meta.last, place, chunks));
    }

    /// Which chunks were asked for since it was asked last: of whom, of which image, and which.
    pub(super) fn wants(&mut self) -> Vec<(u64, u64, u32)> {
        let want = |(to, body): (NodeId, Body)| match body {
            Body::Image(Message::Want { last, place }) => Some((to.0, last.index.0, place)),
            _ => None,
        };
        std::mem::take(&mut self.sent).into_iter().filter_map(want).collect()
    }
}

/// The disk of an initial voter of three.
fn voter(node: u64) -> Durable {
    let mut disk = Durable::fresh(NodeId(node), Incarnation(1));
    let voters = [1, 2, 3].map(NodeId).to_vec();
    let genesis = Genesis { cluster: ClusterId(7), ballot: Ballot::default(), voters, target: 3 };
    disk.apply(&Persist { genesis: Some(genesis), ..Persist::default() });
    disk
}

/// What a snapshot of this entry stands for.
pub(super) fn meta(epoch: u64, index: u64) -> SnapMeta {
    let conf = ConfState { voters: [1, 2, 3].map(NodeId).to_vec(), ..ConfState::default() };
    SnapMeta { last: LogId { epoch: Epoch(epoch), index: Index(index) }, time: ClusterTime(1000), conf }
}

/// An image of at least so many chunks.
pub(super) fn image(count: u8) -> Vec<Bytes> {
    let mut state = State::default();
    let (mut changes, session) = (Vec::new(), SessionId(1));
    state.apply(ClusterTime(1), &Command::Register { ttl: Duration::from_secs(600) }, &mut changes);
    for seq in 1..=count {
        let value = Bytes::from(vec![seq; 200 * 1024]);
        let operation = Operation::Put(Put::new(format!("k{seq}"), value));
        let seq = Seq(seq.into());
        let command = Command::Client { session, seq, first_incomplete: Seq(1), operation };
        state.apply(ClusterTime(1), &command, &mut changes);
    }
    assert!(state.revision() > Revision(count.into()), "all of them are there");
    state.image().collect()
}

/// A chunk as its source sends it.
pub(super) fn chunk(last: LogId, place: usize, chunks: &[Bytes]) -> Message {
    let chunk = chunks[place].clone();
    let [place, count] = [place, chunks.len()].map(|number| u32::try_from(number).expect("a small number"));
    Message::Chunk { last, place, count, crc: crc32c::crc32c(&chunk), chunk }
}

/// The join list of three.
const LIST: [&str; 3] = ["a:7400", "b:7400", "c:7400"];
