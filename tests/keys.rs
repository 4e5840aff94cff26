//! Keys of sessions, transactions and watches, while the processes that serve them are killed.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tenure::kv::{KeyEnd, Kv, WatchEvent, get, put, rev_of};
use tenure::{Error, Revision};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::command_line::{ask, out};
use crate::support::{TestCluster, command};

/// What a watch has shown so far: the keys as they stand, and every revision in the order in which it came.
#[derive(Default)]
struct Mirror {
    keys: BTreeMap<String, Revision>,
    revisions: Vec<Revision>,
    is_synced: bool,
}

impl Mirror {
    fn take(&mut self, event: WatchEvent) {
        match event {
            WatchEvent::Snapshot(page) => {
                self.keys.extend(page.entries.into_iter().map(|(key, value)| (key, value.modified)));
                self.is_synced = !page.more;
            }
            WatchEvent::Put { key, value } => {
                let earlier = self.keys.insert(key.clone(), value.modified);
                assert!(earlier.is_none_or(|earlier| earlier < value.modified), "{key} went back to {earlier:?}");
                self.revisions.push(value.modified);
            }
            WatchEvent::Delete { key, revision, .. } => {
                self.keys.remove(&key);
                self.revisions.push(revision);
            }
            WatchEvent::Resync { .. } => {
                self.keys.clear();
                self.is_synced = false;
            }
            _ => {}
        }
    }
}

#[test]
fn a_watch_tells_everything_in_order_while_masters_die() {
    let mut cluster = TestCluster::start();
    let client = cluster.library();
    let kv = client.kv();
    cluster.wait(async {
        for key in 0..50 {
            kv.put(format!("w/{key}"), "before").await.expect("it is written");
        }
    });
    let mut watch = cluster.wait(async { kv.watch("w/").with_snapshot().await }).expect("it begins");
    let writer = cluster.spawn({
        let kv = kv.clone();
        async move {
            let mut last = Revision(0);
            for round in 0..400u32 {
                let key = format!("w/{}", round % 60);
                last = match round % 7 {
                    0 => kv
                        .delete(key)
                        .await
                        .or_else(|error| if error == Error::NotFound { Ok(last) } else { Err(error) }),
                    _ => kv.put(key, round.to_string()).await,
                }
                .expect("it is written in time");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            kv.put("w/last", "").await.expect("it is written in time")
        }
    });
    let mut epoch = 0;
    for _ in 0..2 {
        let (master, led) = cluster.master_after(epoch);
        epoch = led;
        cluster.processes.kill(master);
        cluster.processes.restart(master).expect("it starts again");
    }
    let mut mirror = Mirror::default();
    cluster.wait(async {
        let last = writer.await.expect("nothing panics");
        while mirror.keys.get("w/last") != Some(&last) {
            mirror.take(watch.next().await.expect("it goes on").expect("nothing is wrong with it"));
        }
        assert!(mirror.is_synced && mirror.revisions.is_sorted(), "{:?}", mirror.revisions);
        let listed: BTreeMap<String, Revision> = kv
            .list("w/")
            .await
            .expect("listed")
            .entries
            .into_iter()
            .map(|(key, value)| (key, value.modified))
            .collect();
        assert_eq!(mirror.keys, listed, "what was told is what is there");
    });
}

#[test]
fn keys_go_with_the_session_that_owns_them_and_watchers_hear_why() {
    let cluster = TestCluster::start();
    let (one, other) = (cluster.library(), cluster.library());
    cluster.wait(async {
        let session = one.session(Duration::from_secs(30)).label("owner").await.expect("it is opened");
        one.kv().put("owned/b", "1").ephemeral(&session).await.expect("it is written");
        one.kv().put("owned/a", "1").ephemeral(&session).if_absent().await.expect("it is written");
        let (sequence, _) = one.kv().create_seq("owned/c-", "1").ephemeral(&session).await.expect("it is made");
        let mut watch = other.kv().watch("owned/").await.expect("it begins");
        let id = session.id();
        session.close().await.expect("it is closed");
        let mut gone = Vec::new();
        while gone.len() < 3 {
            if let WatchEvent::Delete { key, why, revision } = watch.next().await.expect("more").expect("no error") {
                assert_eq!(why, KeyEnd::SessionEnded);
                gone.push((key, revision));
            }
        }
        assert!(gone.iter().all(|(_, revision)| *revision == gone[0].1), "under one revision: {gone:?}");
        assert_eq!(gone.into_iter().map(|(key, _)| key).collect::<Vec<_>>(), ["owned/a", "owned/b", &sequence]);
        assert_eq!(one.kv().put("owned/late", "1").owner(id).await, Err(Error::NoSession(id)));
    });
}

/// Moves one from an account to another if both are as they were read.
async fn move_one(kv: &Kv, from: &str, to: &str) -> Result<bool, Error> {
    let read = kv.txn().then(get(from)).then(get(to)).await?;
    let [a, b] = &read.results[..] else { panic!("two were read") };
    let account = |result: &tenure::kv::KeyResult| match result {
        tenure::kv::KeyResult::Found(Some(value)) => {
            (String::from_utf8_lossy(&value.value).parse::<i64>().expect("a number"), value.modified)
        }
        other => panic!("no account: {other:?}"),
    };
    let ((a, at_a), (b, at_b)) = (account(a), account(b));
    let moved = kv
        .txn()
        .when(rev_of(from).eq(at_a))
        .when(rev_of(to).eq(at_b))
        .then(put(from, (a - 1).to_string()))
        .then(put(to, (b + 1).to_string()))
        .await?;
    Ok(moved.held)
}

#[test]
fn transactions_keep_a_sum_while_a_master_dies() {
    let mut cluster = TestCluster::start();
    let client = cluster.library();
    let accounts = ["x/0", "x/1", "x/2"];
    cluster.wait(async {
        for account in accounts {
            client.kv().put(account, "100").await.expect("it is written");
        }
    });
    let movers: Vec<_> = (0..4)
        .map(|mover| {
            let kv = client.kv();
            cluster.spawn(async move {
                let mut moved = 0;
                while moved < 30 {
                    let (from, to) = (accounts[mover % 3], accounts[(mover + 1 + moved % 2) % 3]);
                    moved += usize::from(move_one(&kv, from, to).await.expect("it is decided in time"));
                }
            })
        })
        .collect();
    let (master, _) = cluster.master_after(0);
    cluster.processes.kill(master);
    cluster.wait(async {
        for mover in movers {
            mover.await.expect("nothing panics");
        }
        let page = client.kv().list("x/").await.expect("listed");
        let sum: i64 =
            page.entries.iter().map(|(_, value)| String::from_utf8_lossy(&value.value).parse::<i64>().unwrap()).sum();
        assert_eq!((page.entries.len(), sum), (3, 300));
    });
}

#[test]
fn keys_at_the_terminal_and_over_http() {
    let cluster = TestCluster::start();
    let ask = |args: &[&str]| ask(&cluster, args);
    let out = |args: &[&str]| {
        let output = ask(args);
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    };
    let first = out(&["kv", "put", "tree/a", "1"]);
    let made = out(&["kv", "put", "tree/job-", "x", "--seq", "--ttl", "1h"]);
    assert!(made.starts_with("tree/job-0000"), "{made}");
    assert_eq!(out(&["kv", "ls", "tree/"]), format!("tree/a\n{made}"));
    assert_eq!(out(&["kv", "ls", "tree/", "--after", "tree/a"]), made);
    assert!(out(&["kv", "watch", "tree/", "--from", &first, "--count", "1"]).contains(&made));

    let script = cluster.processes.folder().join("txn.json");
    let transaction = json!({
        "when": [{ "key": "tree/a", "revision": first.parse::<u64>().expect("a revision") }],
        "then": [{ "put": "tree/a", "value": "2" }, { "get": "tree/a" }],
        "or_else": [{ "get": "tree/a" }],
    });
    std::fs::write(&script, transaction.to_string()).expect("it is written");
    let script = script.display().to_string();
    assert!(out(&["kv", "txn", &script]).contains("the conditions held"));
    assert_eq!(ask(&["kv", "txn", &script]).status.code(), Some(6), "the key is at another revision now");
    std::fs::write(&script, r#"{"then": [{"put": "a"}, {"put": "a"}]}"#).expect("it is written");
    assert_eq!(ask(&["kv", "txn", &script]).status.code(), Some(2), "one key twice");
    std::fs::write(&script, r#"{"than": []}"#).expect("it is written");
    assert_eq!(ask(&["kv", "txn", &script]).status.code(), Some(2));
    assert_eq!(ask(&["kv", "put", "tree/b", "1", "--session", "s999999"]).status.code(), Some(5));
    assert_eq!(ask(&["kv", "watch", "--from", "0", "--count", "1"]).status.code(), Some(0));

    let told =
        cluster.wait(stream(&cluster.processes.https()[1], "/v1/kv/tree/?watch&snapshot", "", "event: snapshot-end"));
    assert!(told.contains("event: snapshot\ndata: {") && told.contains(&made), "{told}");
}

#[test]
fn a_watch_at_the_terminal_goes_on_when_all_nodes_were_away_and_says_so_once() {
    let mut cluster = TestCluster::start();
    let first = out(&ask(&cluster, &["kv", "put", "tree/a", "1"]));
    let errors = cluster.processes.folder().join("watch.err");
    let nodes = cluster.processes.https().join(",");
    let args = ["--node", &nodes, "kv", "watch", "tree/", "--from", &first, "--count", "1", "-o", "json"];
    let mut watch = command(&args, cluster.processes.folder());
    let file = std::fs::File::create(&errors).expect("the folder is there");
    let watch = watch.stdout(Stdio::piped()).stderr(file).spawn().expect("the binary is there");
    cluster.processes.kill_all();
    let said = || std::fs::read_to_string(&errors).expect("it was made");
    cluster.until("it says that nobody answers", || !said().is_empty());
    (0..3).for_each(|place| cluster.processes.restart(place).expect("it starts again"));
    cluster.ready();
    cluster.put("tree/b", "2").expect("a whole cluster acknowledges");
    let output = watch.wait_with_output().expect("it ends after one change");
    assert!(output.status.success(), "{output:?}");
    let change: Value = serde_json::from_str(&out(&output)).expect("one document");
    assert_eq!((out(&output).lines().count(), &change["key"]), (1, &"tree/b".into()));
    assert_eq!(said().lines().count(), 1, "{}", said());
}

#[test]
fn a_browser_that_comes_back_misses_nothing_of_a_transaction() {
    let cluster = TestCluster::start();
    let (kv, node) = (cluster.library().kv(), cluster.processes.https()[1].clone());
    let put = |keys: &'static [&'static str]| {
        cluster.wait(async {
            let txn = keys.iter().fold(kv.txn(), |txn, key| txn.then(tenure::kv::put(*key, "v")));
            txn.await.expect("it is committed").revision
        })
    };
    let before = put(&["one/0"]);
    let whole = put(&["one/1", "one/2", "one/3"]);
    let path = format!("/v1/kv/one/?watch&from={before}");
    let told = cluster.wait(stream(&node, &path, "", &format!("id: {whole}")));
    let events: Vec<&str> = told.split("event: ").skip(1).collect();
    assert!(events[..2].iter().all(|event| !event.contains("id: ")), "{told}");
    assert!(["one/1", "one/2", "one/3"].iter().all(|key| told.contains(key)), "{told}");
    put(&["one/4"]);
    // Its address is that of the first time.
    let more = cluster.wait(stream(&node, &path, &format!("last-event-id: {whole}\r\n"), "one/4"));
    assert!(!more.contains("one/3"), "{more}");
}

/// Reads a response as it comes, up to a piece of text.
async fn stream(node: &str, path: &str, headers: &str, until: &str) -> String {
    let mut socket = tokio::net::TcpStream::connect(node).await.expect("it listens");
    let request = format!("GET {path} HTTP/1.1\r\nhost: {node}\r\n{headers}\r\n");
    socket.write_all(request.as_bytes()).await.expect("it is sent");
    let mut text = Vec::new();
    while !String::from_utf8_lossy(&text).contains(until) {
        let mut piece = [0; 4096];
        let len = socket.read(&mut piece).await.expect("it answers");
        assert!(len > 0, "{}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&piece[..len]);
    }
    String::from_utf8_lossy(&text).into_owned()
}
