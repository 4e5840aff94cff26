//! What peers may say about images, true or not: nothing of it breaks a replica, makes it hold more than its bounds, or stops
//! a fetch that is intact.

use bytes::Bytes;

use super::bench::{Bench, chunk, image, meta};
use crate::image::{Message, WANTED_MAX};
use crate::state::State;
use crate::types::{Epoch, Index, LogId};

/// Pseudo-random numbers (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    fn number(&mut self) -> u32 {
        [0, 1, 2, 3, 4, 7, 1 << 20, u32::MAX][self.below(8) as usize]
    }

    /// Something that looks like a chunk of `last`, or of another image, and is not what was asked for.
    fn garbage(&mut self, last: LogId, chunks: &[Bytes]) -> Message {
        let other = LogId { epoch: Epoch(self.below(4)), index: Index(self.below(100)) };
        let place = self.below(chunks.len() as u64) as usize;
        let Message::Chunk { count, crc, chunk, .. } = chunk(last, place, chunks) else { unreachable!("it is one") };
        let place = place as u32;
        match self.below(8) {
            0 => Message::Gone { last: other },
            1 => Message::Chunk { last: other, place, count, crc, chunk },
            2 => Message::Chunk { last, place: self.number().max(count), count, crc, chunk },
            3 => Message::Chunk { last, place: count - 1, count: count + 1 + self.number() % 9, crc: crc ^ 1, chunk },
            4 => Message::Chunk { last, place, count, crc: crc ^ self.number().max(1), chunk },
            5 => Message::Chunk {
                last,
                place,
                count,
                crc,
                chunk: chunk.slice(..self.below(chunk.len() as u64) as usize),
            },
            6 => {
                let mut rotten = chunk.to_vec();
                let at = self.below(rotten.len() as u64) as usize;
                rotten[at] ^= 1 << self.below(8);
                Message::Chunk { last, place, count, crc, chunk: rotten.into() }
            }
            _ => Message::Want { last: if self.below(2) == 0 { last } else { other }, place: self.number() },
        }
    }
}

#[test]
fn an_intact_fetch_goes_on_through_garbage() {
    let chunks = image(6);
    let meta = meta(2, 50);
    for seed in 0..100 {
        let mut dice = Dice(seed);
        let mut bench = Bench::follower();
        bench.named(1, 2, meta.clone());
        while bench.applied() < Index(50) {
            for (source, _, place) in bench.wants() {
                for _ in 0..dice.below(6) {
                    // A stranger may even say what is true: nobody asked it.
                    let (from, message) = match dice.below(4) {
                        0 => (7, chunk(meta.last, dice.below(chunks.len() as u64) as usize, &chunks)),
                        1 => (7, Message::Gone { last: meta.last }),
                        _ => (1 + dice.below(3), dice.garbage(meta.last, &chunks)),
                    };
                    bench.image(from, message);
                }
                bench.chunk(source, &meta, place as usize, &chunks);
            }
            assert!(bench.waiting() <= 64, "seed {seed}");
            bench.work();
        }
        assert_eq!(bench.replica.state(), &restored(&chunks), "seed {seed}");
    }
}

#[test]
fn an_image_that_is_none_is_given_up_and_the_next_one_taken() {
    let chunks = image(2);
    let mut other = chunks.clone();
    other[1] = image(3)[2].clone();
    let mut empty = chunks.clone();
    empty[0] = Bytes::new();
    for torn in [other, empty, vec![Bytes::from_static(b"\xff\xff\xff\xff"); 2], vec![chunks[0].clone(); 2]] {
        let mut bench = Bench::follower();
        bench.named(1, 2, meta(2, 50));
        for place in 0..torn.len() {
            bench.chunk(1, &meta(2, 50), place, &torn);
            bench.work();
        }
        assert_eq!(bench.applied(), Index(1));
        assert!(bench.notes().iter().any(|note| note.contains("of no use")));
        bench.named(1, 2, meta(2, 50));
        for place in 0..chunks.len() {
            bench.chunk(1, &meta(2, 50), place, &chunks);
            bench.work();
        }
        assert_eq!(bench.applied(), Index(50));
    }
}

#[test]
fn whoever_asks_for_chunks_has_few_of_them_read() {
    let mut bench = Bench::leader();
    let last = bench.save();
    let mut dice = Dice(1);
    for _ in 0..10_000 {
        let place = dice.number();
        bench.image(2 + dice.below(1000), Message::Want { last, place });
    }
    assert_eq!(bench.waiting(), 16 * 2 * WANTED_MAX as usize, "for sixteen of them, four each");
    bench.work();
    assert_eq!(bench.waiting(), 0);
    assert!(matches!(bench.read(9, last, 0), Message::Chunk { .. }), "and everybody after them");
}

#[test]
fn a_node_of_no_cluster_heeds_no_image() {
    let chunks = image(2);
    let last = meta(2, 50).last;
    let mut bench = Bench::outsider();
    bench.named(1, 2, meta(2, 50));
    for place in 0..chunks.len() {
        bench.image(1, chunk(last, place, &chunks));
    }
    assert_eq!((bench.waiting(), bench.wants()), (0, vec![]));
    assert_eq!(bench.read(1, last, 0), Message::Gone { last });
    assert_eq!(bench.applied(), Index(0));
}

#[test]
fn a_snapshot_that_no_honest_node_has_is_not_fetched() {
    let mut bench = Bench::follower();
    let mut nobody = meta(2, 50);
    nobody.conf.voters.clear();
    for unsound in [nobody, meta(3, 50), meta(2, u64::MAX), meta(1, 1)] {
        bench.named(1, 2, unsound);
        assert_eq!(bench.wants(), []);
    }
    bench.named(1, 2, meta(2, 50));
    assert_eq!(bench.wants(), [(1, 50, 0)]);
    assert!(!matches!(bench.waiting(), 1..), "nothing is staged that has not come");
}

fn restored(chunks: &[Bytes]) -> State {
    super::super::restored(chunks).expect("an intact image")
}
