//! Disks that rot and disks that are full, under real processes.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::support::{BINARY, TestCluster, Turn, tenure};

#[test]
fn a_node_whose_log_rots_comes_back_as_another_one_and_no_write_is_lost() {
    let mut cluster = TestCluster::start();
    let (master, _) = cluster.master_after(0);
    let place = (master + 1) % 3;
    let before = cluster.answer(place)["node"].clone();
    for number in 0..20 {
        let key = format!("before-{number}");
        cluster.until("the write is acknowledged", || cluster.put(&key, ROTTING).is_ok());
    }
    end(&mut cluster, place);
    let folder = cluster.processes.folder().join(cluster.processes.label(place));
    rot(&folder.join("tenure.redb"));
    cluster.processes.restart(place).expect("it starts again");

    let log = cluster.processes.log(place);
    cluster.until("the node says what it does", || {
        let log = fs::read_to_string(&log).unwrap_or_default();
        log.contains("tenure.redb is corrupt: entry ") && log.contains(" has retired and never votes again; ")
    });
    cluster.until("it runs as another node", || {
        cluster.status(place).is_some_and(|status| status["node"] != before && !status["node"].is_null())
    });
    assert!(folder.join("tenure.redb.damaged-0").exists(), "the damaged file is kept");
    cluster.until("writes go on", || cluster.put("after", "x").is_ok());
    for number in 0..20 {
        assert_eq!(cluster.get(&format!("before-{number}")).as_deref(), Some(ROTTING));
    }
}

#[test]
fn a_node_without_a_list_that_lost_its_log_founds_nothing_and_joins_the_others_again() {
    let mut cluster = TestCluster::start();
    let (master, _) = cluster.master_after(0);
    let place = (master + 1) % 3;
    let folder = cluster.processes.folder().join(cluster.processes.label(place));
    let id = |cluster: &TestCluster| {
        cluster.status(place).map(|status| (status["cluster_id"].clone(), status["node"].clone()))
    };
    for harm in ["gone", "rotten"] {
        cluster.until("it has noted where the others are", || folder.join("members").exists());
        cluster.until("it votes", || cluster.status(place).is_some_and(|status| status["part"] == "voter"));
        for number in 0..20 {
            cluster.until("the write is acknowledged", || cluster.put(&format!("{harm}-{number}"), ROTTING).is_ok());
        }
        let before = id(&cluster).expect("it runs");
        end(&mut cluster, place);
        if harm == "gone" {
            for file in ["tenure.redb", "tenure.journal"] {
                fs::remove_file(folder.join(file)).expect("it is there");
            }
        } else {
            rot(&folder.join("tenure.redb"));
        }
        cluster.processes.restart_alone(place).expect("it starts again");
        cluster.until("it is ready", || cluster.is_ready(place));
        let after = id(&cluster).expect("it runs");
        assert_eq!(after.0, before.0, "it is in the cluster in which it was");
        assert_ne!(after.1, before.1, "what it had promised, nobody promises again");
        assert_eq!(cluster.get(&format!("{harm}-0")).as_deref(), Some(ROTTING));
    }
}

#[test]
fn a_lone_node_with_a_damaged_log_refuses_to_start_and_leaves_it_alone() {
    let _turn = Turn::take();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("tenure.redb");
    fs::write(&file, "not a log").expect("it can be written");
    let data = folder.path().display().to_string();
    let output = tenure(&["node", "--cluster", "test", "--data", &data, "--listen", "127.0.0.1:0"], folder.path());
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code().is_some_and(|code| code != 0), "{words}");
    assert!(words.contains("tenure.redb is corrupt: "), "{words}");
    assert!(words.contains("a node that is alone cannot fetch again what its damaged log held"), "{words}");
    assert_eq!(fs::read_to_string(&file).expect("it is there"), "not a log");
}

/// Needs a file system of its own, which only root can mount.
#[test]
fn a_node_whose_disk_is_full_ends_with_an_error_and_loses_nothing_acknowledged() {
    if !Command::new("unshare").args(["-m", "true"]).status().is_ok_and(|status| status.success()) {
        assert!(
            !std::env::var("TENURE_NETNS").is_ok_and(|word| word == "require"),
            "mounting a file system needs root"
        );
        return println!("skipped: mounting a small file system needs root");
    }
    let tools = tempfile::tempdir().expect("a temporary folder");
    let wrapper = tools.path().join("small-disk");
    // The processes stay what they are: each step becomes the next one.
    let script = format!(
        "#!/bin/sh\n\
         case \"$1 $5\" in \"node \"*/n2) mkdir -p \"$5\" && exec unshare -m sh -c \
         'mount -t tmpfs -o size=4m tenure \"$0\" && exec \"$@\"' \"$5\" {BINARY} \"$@\";; esac\n\
         exec {BINARY} \"$@\"\n"
    );
    fs::write(&wrapper, script).expect("it can be written");
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).expect("it is ours");

    let mut cluster = TestCluster::with(|settings| settings.program = wrapper);
    let value = "x".repeat(50_000);
    let mut acknowledged = BTreeSet::new();
    let mut ended = None;
    for number in 0..2000 {
        let key = format!("key-{number}");
        if cluster.put(&key, &value).is_ok() {
            acknowledged.insert(key);
        }
        ended = cluster.processes.ended(1);
        if ended.is_some() {
            break;
        }
    }
    let (status, lines) = ended.expect("100 MB do not fit into 4 MiB");
    assert_eq!(status, "exit status: 1", "{lines:#?}");
    let lines = lines.join("\n");
    assert!(lines.contains("this node had to stop: disk full: cannot write "), "{lines}");
    assert!(lines.contains("No space left on device"), "{lines}");
    cluster.until("the others go on", || cluster.put("after", "x").is_ok());
    assert!(acknowledged.len() > 10);
    for key in &acknowledged {
        assert_eq!(cluster.get(key).as_ref(), Some(&value));
    }
}

/// Lets a node end in order, and waits until it has.
fn end(cluster: &mut TestCluster, place: usize) {
    cluster.processes.ask_to_end(place);
    while cluster.processes.is_alive(place) {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// Flips a bit in every copy of what was written, whichever of them the log now uses.
fn rot(path: &std::path::Path) {
    let mut image = fs::read(path).expect("the node wrote it");
    let places: Vec<_> =
        (0..image.len() - ROTTING.len()).filter(|&at| image[at..].starts_with(ROTTING.as_bytes())).collect();
    assert!(!places.is_empty(), "what was acknowledged is in the file");
    for at in places {
        image[at + 3] ^= 1;
    }
    fs::write(path, image).expect("the node has ended");
}

const ROTTING: &str = "what rots on the disk of one node is known to the others";
