//! Images between replicas, each of them alone with what its peers say and its store does.

mod bench;
mod garbage;

use std::time::Duration;

use bench::{Bench, image, meta};

use crate::image::Message;
use crate::types::{Index, LogId, NodeId};

/// For how long a fetch counts as under way after its last chunk.
const RECENT: Duration = Duration::from_secs(2);

#[test]
fn an_image_that_is_fetched_stays_and_so_does_the_log_behind_it() {
    let mut bench = Bench::leader();
    let first = bench.save();
    bench.write_until_saving();
    assert!(matches!(bench.read(9, first, 0), Message::Chunk { .. }));
    bench.work();
    assert!(bench.snapshot() > first, "the second snapshot is durable");
    assert_eq!(bench.base(), Index(first.index.0 - 1), "the log waits for the fetch");
    assert!(matches!(bench.read(9, first, 0), Message::Chunk { .. }), "and so does the image");

    bench.pass(RECENT);
    bench.work();
    assert_eq!(bench.read(9, first, 0), Message::Gone { last: first });
    let third = bench.save();
    assert_eq!(bench.base(), Index(third.index.0 - 1));
}

#[test]
fn fewer_entries_trail_a_snapshot_where_they_are_long() {
    let mut bench = Bench::leader();
    bench.trail(3, 1 << 20);
    let first = bench.save();
    assert_eq!(bench.base(), Index(first.index.0 - 3));
    // An entry of the bench has five bytes or six.
    bench.trail(3, 12);
    let second = bench.save();
    assert!(bench.base() > Index(second.index.0 - 3) && bench.base() < second.index, "{:?}", bench.base());
    bench.trail(0, 1 << 20);
    let third = bench.save();
    assert_eq!(bench.base(), third.index);
}

#[test]
fn nobody_who_asks_for_ever_holds_up_more_than_two_snapshots() {
    let mut bench = Bench::leader();
    let first = bench.save();
    let mut bases = Vec::new();
    for _ in 0..2 {
        let held = bench.snapshot();
        while bench.snapshot() == held {
            bench.read(9, first, 0);
            bench.write_until_due();
            bench.work();
        }
        bases.push(bench.base().0);
    }
    assert_eq!(bases[0], first.index.0 - 1, "the first one after it waits");
    assert_eq!(bases[1], bench.snapshot().index.0 - 1, "the second one does not");
    assert_eq!(bench.read(9, first, 0), Message::Gone { last: first });
}

#[test]
fn a_fetch_that_progresses_is_not_begun_anew_at_a_newer_image() {
    let chunks = image(4);
    let mut bench = Bench::follower();
    bench.named(1, 2, meta(2, 50));
    assert_eq!(bench.wants(), [(1, 50, 0)]);
    bench.chunk(1, &meta(2, 50), 0, &chunks);
    bench.work();
    bench.wants();
    for newer in 60..65 {
        bench.named(1, 2, meta(2, newer));
        assert_eq!(bench.wants(), [], "it goes on with what it has begun");
    }
    for place in 1..chunks.len() {
        bench.chunk(1, &meta(2, 50), place, &chunks);
        bench.work();
    }
    assert_eq!(bench.applied(), Index(50));
}

#[test]
fn the_newest_image_is_begun_when_the_one_under_way_is_gone_or_its_source_is_silent() {
    let mut bench = Bench::follower();
    bench.named(1, 2, meta(2, 50));
    bench.named(1, 2, meta(2, 60));
    bench.wants();
    bench.image(1, Message::Gone { last: meta(2, 50).last });
    assert_eq!(bench.wants(), [(1, 60, 0)]);

    bench.pass(Duration::from_millis(600));
    assert_eq!(bench.wants(), [(1, 60, 0)], "asked again");
    bench.named(1, 2, meta(2, 70));
    assert_eq!(bench.wants(), [(1, 70, 0)]);
}

#[test]
fn what_the_store_staged_for_another_fetch_counts_for_nothing() {
    let chunks = image(3);
    let mut bench = Bench::follower();
    bench.named(1, 2, meta(2, 50));
    bench.chunk(1, &meta(2, 50), 0, &chunks);
    // The store has not come to it when another leader names its image of the same entry.
    bench.named(3, 3, meta(2, 50));
    bench.chunk(3, &meta(2, 50), 0, &chunks);
    bench.work();
    for place in 1..chunks.len() {
        bench.chunk(3, &meta(2, 50), place, &chunks);
        bench.work();
    }
    assert_eq!(bench.applied(), Index(50), "without waiting for anybody's patience to end");
}

#[test]
fn a_slow_disk_is_no_silent_source() {
    let chunks = image(3);
    let mut bench = Bench::follower();
    bench.named(1, 2, meta(2, 50));
    for place in 0..2 {
        bench.chunk(1, &meta(2, 50), place, &chunks);
    }
    bench.chunk(1, &meta(2, 50), 2, &chunks);
    for _ in 0..20 {
        bench.pass(Duration::from_millis(600));
    }
    bench.work();
    bench.chunk(1, &meta(2, 50), 2, &chunks);
    bench.work();
    assert_eq!(bench.applied(), Index(50));
}

#[test]
fn what_is_received_waits_for_our_own_snapshot_and_no_longer() {
    let chunks = image(2);
    let mut bench = Bench::follower();
    bench.append(1, 2, 2..=8);
    assert!(bench.is_saving(), "enough is applied");
    bench.named(1, 2, meta(2, 50));
    let own = bench.postpone();
    for place in 0..chunks.len() {
        bench.chunk(1, &meta(2, 50), place, &chunks);
        bench.work();
    }
    bench.named(1, 2, meta(2, 60));
    assert_eq!(bench.applied(), Index(8));
    bench.do_work(own);
    bench.work();
    assert_eq!(bench.applied(), Index(50));
    assert_eq!(bench.snapshot(), LogId { index: Index(50), ..meta(2, 50).last });
}

#[test]
fn a_master_that_is_to_hand_over_stops_first_and_goes_on_if_that_fails() {
    let mut bench = Bench::leader_of_three();
    assert_eq!(bench.masters(), ["begin"]);
    bench.transfer(NodeId(2));
    assert_eq!(
        (bench.masters(), bench.heirs()),
        (vec!["surrender"], vec![]),
        "nothing is sent before the master has stopped"
    );
    bench.surrendered();
    assert_eq!(bench.heirs(), [NodeId(2)]);
    // The heir does nothing, and everybody answers: the hand-over is given up after an election timeout.
    for _ in 0..12 {
        bench.pass(Duration::from_millis(50));
        bench.acknowledge(2);
        bench.acknowledge(3);
    }
    assert_eq!(bench.masters(), ["begin"], "the master of the same epoch is built again");
    assert!(bench.notes().iter().any(|note| note.contains("not handed over")));
    // And it can be asked again.
    bench.transfer(NodeId(3));
    assert_eq!(bench.masters(), ["surrender"]);
}
