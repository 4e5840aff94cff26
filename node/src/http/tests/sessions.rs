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
    assert_eq!(fixture.get(&path).await["label"], "indexer");
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
