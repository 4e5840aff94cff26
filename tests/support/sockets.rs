//! Who is linked to whom, as the kernel sees it: nobody asks the processes themselves.

use std::collections::{BTreeMap, BTreeSet};

use super::TestCluster;

/// For every node, to which others it has an established connection: one end of it in a file of each process.
pub fn links(cluster: &TestCluster) -> Vec<BTreeSet<usize>> {
    let nodes = 0..cluster.processes.len();
    let established = established();
    let ends: Vec<BTreeSet<Ends>> = nodes
        .clone()
        .map(|place| {
            let pid = cluster.processes.pid(place).expect("it runs");
            sockets(pid).into_iter().filter_map(|inode| established.get(&inode).cloned()).collect()
        })
        .collect();
    let is_linked =
        |a: usize, b: usize| ends[a].iter().any(|(local, remote)| ends[b].contains(&(remote.clone(), local.clone())));
    nodes.clone().map(|a| nodes.clone().filter(|&b| a != b && is_linked(a, b)).collect()).collect()
}

/// The address of our end and of the other one, as the kernel writes them.
type Ends = (String, String);

/// The ends of every established connection of this machine's IPv4, by the number of its socket.
fn established() -> BTreeMap<u64, Ends> {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux has it");
    let parse = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let is_established = words.get(3) == Some(&"01");
        let inode = words.get(9)?.parse().ok()?;
        is_established.then(|| (inode, (words[1].to_owned(), words[2].to_owned())))
    };
    table.lines().filter_map(parse).collect()
}

/// The numbers of the sockets that a process has open.
fn sockets(pid: u32) -> Vec<u64> {
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it is our own child");
    let parse = |name: std::path::PathBuf| name.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok();
    files.filter_map(|file| parse(std::fs::read_link(file.ok()?.path()).ok()?)).collect()
}
