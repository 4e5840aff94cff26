//! Sessions over HTTP.

use super::*;

#[tokio::test]
async fn a_session_is_opened_renewed_shown_and_ended() {
    let fixture = fixture();
    let opened = fixture.post("/v1/sessions", json!({ "ttl_ms": 6_000, "label": "indexer" })).await.unwrap();
    let valid = opened["valid_for_ms"].as_u64().unwrap();
    assert!(valid < 5_455, "it is over for its owner before it is over: {valid}");
    let path = format!("/v1/sessions/{}", opened["session"].as_str().unwrap());
    let renewed = fixture.cluster.send(Request::new(Method::PUT, path.clone())).await.unwrap().json().unwrap();
    assert_eq!((&renewed["session"], &renewed["ttl_ms"]), (&opened["session"], &json!(6_000)));
    assert!(renewed["valid_for_ms"].as_u64().unwrap() < 5_455);
    let list = fixture.get("/v1/sessions").await;
    let labels: Vec<_> = list["sessions"].as_array().unwrap().iter().map(|session| session["label"].clone()).collect();
    assert_eq!(labels.last(), Some(&json!("indexer")));
    let kinds: Vec<_> = list["sessions"].as_array().unwrap().iter().map(|session| session["kind"].clone()).collect();
    assert_eq!(kinds, [json!("requests"), json!("owner")], "the node numbers its requests under a session of its own");
    assert_eq!(fixture.get(&path).await["label"], "indexer");
    let unlabelled = fixture.post("/v1/sessions", json!({})).await.unwrap();
    let unlabelled = fixture.get(&format!("/v1/sessions/{}", unlabelled["session"].as_str().unwrap())).await;
    assert_eq!((&unlabelled["kind"], &unlabelled["label"]), (&json!("owner"), &json!("http")));
    fixture.cluster.send(Request::new(Method::DELETE, path.clone())).await.unwrap();
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let gone = fixture.once(Request::new(method, path.clone())).await.unwrap_err();
        assert_eq!(gone.code, Code::NoSession);
    }
}

#[tokio::test]
async fn a_session_lives_as_long_as_the_timers_of_the_cluster_ask_for_unless_told_otherwise() {
    let opened = fixture().post("/v1/sessions", json!({})).await.unwrap();
    assert_eq!(opened["ttl_ms"], 30_000, "elections of the profile `wan` take long");
}

#[tokio::test]
async fn words_that_describe_no_session_are_refused() {
    let fixture = fixture();
    for wrong in [json!(7), json!({ "ttl_ms": "6s" }), json!({ "ttl_ms": 5, "owner": "me" })] {
        assert_eq!(fixture.post("/v1/sessions", wrong).await.unwrap_err().code, Code::Usage);
    }
    for ttl in [0, u64::MAX] {
        let wrong = fixture.post("/v1/sessions", json!({ "ttl_ms": ttl })).await.unwrap_err();
        assert_eq!(wrong.code, Code::Invalid);
    }
    let wrong = fixture.once(Request::get("/v1/sessions/mine")).await.unwrap_err();
    assert_eq!(wrong.code, Code::Usage);
}

#[tokio::test]
async fn a_list_longer_than_a_page_is_read_to_its_end() {
    use crate::cli::pages::{List, holders, rows};

    let fixture = fixture();
    let about = protocol::state::About::default();
    let opening = OpenSession { ttl: Duration::from_secs(60), about };
    let backend: &dyn Backend = &*fixture.toy;
    let write = |operation| backend.call(Work::Write(operation), Duration::ZERO);
    for number in 0..1_005 {
        let opened = write(Operation::OpenSession(opening.clone())).await.unwrap();
        let Answer::Registered(session) = opened else { panic!("{opened:?}") };
        let claim = |kind, name: String, mode, value: &str| {
            let right = protocol::state::RightId::new(kind, name);
            let claim = protocol::state::Claim { right, session, mode, value: value.to_owned().into(), wait: false };
            write(Operation::Right(protocol::state::RightOperation::Claim(claim)))
        };
        let (mine, ours) = (protocol::state::RightKind::Lock, protocol::state::RightKind::Group);
        claim(mine, format!("{number:04}"), protocol::state::Mode::Exclusive, "").await.unwrap();
        claim(ours, "all".into(), protocol::state::Mode::Member, "here").await.unwrap();
    }
    let sessions = |after: Option<&str>, limit| {
        let list = List { path: "/v1/sessions?", rows: "sessions", name: "session" };
        rows(&fixture.cluster, list, after.map(str::to_owned), limit)
    };
    let all = sessions(None, u32::MAX).await.unwrap();
    assert_eq!(all.len(), 1_006, "with that of the site itself");
    assert_eq!(sessions(None, 1_002).await.unwrap(), all[..1_002]);
    assert_eq!(sessions(all[1_002]["session"].as_str(), u32::MAX).await.unwrap(), all[1_003..]);
    let locks = List { path: "/v1/rights?kind=lock", rows: "rights", name: "right" };
    let locks = rows(&fixture.cluster, locks, None, u32::MAX).await.unwrap();
    assert_eq!((locks.len(), &locks[1_004]["name"]), (1_005, &json!("1004")));
    let group = holders(&fixture.cluster, "/v1/groups/all").await.unwrap();
    assert_eq!((group["holders"].as_array().map(Vec::len), &group["more"]), (Some(1_005), &json!(false)));
}
