//! Where the others were: a list of members in the data folder, so that a node finds its cluster again without a join list.
//!
//! It is a hint and nothing more: addresses to try at the next start. Who is behind them, links find out; whether this node
//! is in a cluster at all, its log says.
//!
//! # Invariants
//!
//! * The file is written beside and moved into place, so that it is always whole; a line that makes no sense is passed over.
//! * A node stays in the list until it says that it leaves or somebody else is at its address: one that sees nobody today may
//!   need the list tomorrow, and a leader that restarts must know where a voter was that died before (F27).

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use membership::{MemberState, Membership};
use protocol::NodeId;

/// The place of the list in a data folder.
#[derive(Clone, Debug)]
pub(crate) struct Book(PathBuf);

/// One line of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    /// The member.
    pub(crate) node: NodeId,
    /// Where its gossip was heard.
    pub(crate) gossip: SocketAddr,
    /// Where it listened for links.
    pub(crate) link: SocketAddr,
}

impl Book {
    /// In this folder, which need not be there yet.
    pub(crate) fn new(folder: &Path) -> Self {
        Self(folder.join("members"))
    }

    /// What was written last; nothing if there is no list, or none that can be read.
    pub(crate) fn read(&self) -> Vec<Known> {
        let text = std::fs::read_to_string(&self.0).unwrap_or_default();
        text.lines().filter_map(Known::parse).take(LINES_MAX).collect()
    }

    fn write(&self, list: &[Known]) {
        let line = |known: &Known| format!("{} {} {}\n", known.node, known.gossip, known.link);
        let text: String = list.iter().take(LINES_MAX).map(line).collect();
        let beside = self.0.with_extension("new");
        let written = std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, &self.0));
        if let Err(error) = written {
            // Nothing rests on it but the next start without a join list.
            tracing::warn!(%error, "the list of members could not be written into the data folder");
        }
    }
}

impl Known {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let node = NodeId(u64::from_str_radix(words.next()?, 16).ok()?);
        Some(Self { node, gossip: words.next()?.parse().ok()?, link: words.next()?.parse().ok()? })
    }
}

/// Keeps the list as membership sees it. Looking now and then is enough: what is missing in it costs a moment.
pub(crate) async fn keep(book: Book, membership: Membership) {
    let mut written = book.read();
    loop {
        tokio::time::sleep(PERIOD).await;
        let view = membership.members();
        let is_left = |node: NodeId| view.members.get(&node).is_some_and(|member| member.state == MemberState::Left);
        let here = view.members.values().filter(|member| member.state != MemberState::Left);
        let here = here.map(|member| Known { node: member.node, gossip: member.addr, link: member.link });
        let list = updated(&written, here.collect(), is_left);
        if list != written {
            book.write(&list);
            written = list;
        }
    }
}

/// The members that are seen, and behind them those of the older list who are neither seen nor known to have left, and whose
/// address nobody has taken.
fn updated(older: &[Known], seen: Vec<Known>, is_left: impl Fn(NodeId) -> bool) -> Vec<Known> {
    let is_missing = |known: &&Known| {
        !is_left(known.node) && !seen.iter().any(|other| other.node == known.node || other.link == known.link)
    };
    let missing: Vec<Known> = older.iter().filter(is_missing).copied().collect();
    seen.into_iter().chain(missing).take(LINES_MAX).collect()
}

/// Some of many members are enough to find the others.
const LINES_MAX: usize = 256;

const PERIOD: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn known(number: u64) -> Known {
        let address = |port: u64| SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).unwrap()));
        Known { node: NodeId(number), gossip: address(7000 + number), link: address(8000 + number) }
    }

    #[test]
    fn what_was_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let book = Book::new(folder.path());
        assert_eq!(book.read(), []);
        book.write(&[known(1), known(2)]);
        book.write(&[known(2), known(3)]);
        assert_eq!(book.read(), [known(2), known(3)]);
    }

    #[test]
    fn whoever_died_stays_until_it_leaves_or_is_replaced() {
        let nobody_left = |_| false;
        let older = [known(1), known(2)];
        assert_eq!(updated(&older, vec![], nobody_left), older);
        assert_eq!(updated(&older, vec![known(2), known(3)], nobody_left), [known(2), known(3), known(1)]);
        assert_eq!(updated(&older, vec![known(2)], |node| node == NodeId(1)), [known(2)]);
        let successor = Known { node: NodeId(9), ..known(1) };
        assert_eq!(updated(&older, vec![successor], nobody_left), [successor, known(2)]);
    }

    #[test]
    fn a_line_that_makes_no_sense_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let book = Book::new(folder.path());
        std::fs::write(folder.path().join("members"), "\nzz 1 2\n00000000000000ff 127.0.0.1:1\n").unwrap();
        assert_eq!(book.read(), []);
        std::fs::write(folder.path().join("members"), [0xff, 0xfe]).unwrap();
        assert_eq!(book.read(), []);
    }
}
