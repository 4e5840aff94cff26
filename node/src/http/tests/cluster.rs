//! The cluster, and what all routes have in common.

use super::*;

#[tokio::test]
async fn what_is_not_there_is_404_and_exit_5() {
    let fixture = fixture();
    for path in ["/v1/tasks/t999", "/v1/kv/none", "/v2/tasks"] {
        let error = fixture.cluster.get(path).await.unwrap_err();
        assert_eq!((error.code, error.code.exit()), (Code::NotFound, 5), "{path}");
    }
    let error = fixture.once(Request::new(Method::PATCH, "/v1/tasks")).await.unwrap_err();
    assert_eq!(error.code, Code::MethodNotAllowed);
}

#[tokio::test]
async fn malformed_and_oversized_bodies_are_refused_in_words() {
    let fixture = fixture();
    let send = |body: &'static str| fixture.once(Request::post("/v1/tasks").bytes(body));
    let error = send("{\"kind\": ").await.unwrap_err();
    assert_eq!((error.code, error.status(), error.code.exit()), (Code::MalformedJson, 400, 2));
    assert!(error.message.contains("line 1 column"), "{}", error.message);
    let error = send(r#"{"kind": "tenure.echo", "retires": 3}"#).await.unwrap_err();
    assert_eq!(error.code, Code::Invalid);
    assert!(error.message.contains("unknown field `retires`"), "{}", error.message);
    let large = "x".repeat(protocol::wire::MAX_VALUE + 1);
    let body = json!({ "kind": "tenure.echo", "payload_text": large });
    let error = fixture.post("/v1/tasks", body).await.unwrap_err();
    assert_eq!((error.code, error.status()), (Code::TooLarge, 413));
    let error = fixture.once(Request::new(Method::PUT, "/v1/kv/a").bytes(large)).await.unwrap_err();
    assert_eq!(error.code, Code::TooLarge);
    assert_eq!(fixture.get("/v1/status").await["tasks"]["pending"], 0, "nothing was recorded");
}

#[tokio::test]
async fn without_a_quorum_an_answer_says_whether_it_may_have_been_done() {
    let fixture = fixture();
    fixture.toy.has_quorum.store(false, Ordering::SeqCst);
    let certain = fixture.once(Request::new(Method::PUT, "/v1/kv/a").bytes("1")).await.unwrap_err();
    assert_eq!((certain.status(), certain.code.exit(), certain.is_retryable()), (503, 4, true));
    assert_eq!(certain.message, "no quorum: 1 of 3 voters answer (n1); need 2");
    assert_eq!(certain.causes, ["n2 127.0.0.1:7402  suspect", "n3 127.0.0.1:7403  unreachable"]);
    let maybe = fixture.once(Request::new(Method::DELETE, "/v1/kv/a")).await.unwrap_err();
    assert_eq!((maybe.status(), maybe.maybe_applied, maybe.is_retryable()), (504, true, false));
    let ready = fixture.once(Request::get("/readyz?verbose")).await.unwrap_err();
    assert!(ready.message.contains("[-]master failed") && ready.message.contains("[+]gossip ok"), "{}", ready.message);
    assert!(fixture.once(Request::get("/livez")).await.is_ok());
}

#[tokio::test]
async fn members_join_gossip_with_sessions() {
    let fixture = fixture();
    fixture.toy.add_worker("render");
    let members = fixture.get("/v1/members").await;
    let states: Vec<_> = members["members"].as_array().unwrap().iter().map(|member| member["state"].clone()).collect();
    assert_eq!(states, ["alive", "alive", "unreachable"]);
    let second = &members["members"][1];
    assert_eq!(
        (&second["role"], &second["slots"], &second["kinds"]),
        (&json!("master"), &json!(2), &json!(["render"]))
    );
    assert_eq!(second["node"], "0000000000000002");
}

#[tokio::test]
async fn members_are_watched_from_who_is_here_to_whoever_comes() {
    let fixture = fixture();
    fixture.toy.add_worker("render");
    let mut watch = fixture.stream("/v1/members?watch").await;
    watch.until("event: snapshot").await;
    watch.until("0000000000000002").await;
    fixture.toy.add_worker("bake");
    watch.until("event: changed").await;
    watch.until("bake").await;
}

#[tokio::test]
async fn a_foreign_page_or_host_is_refused() {
    let fixture = fixture();
    let page = fixture.once(Request::get("/v1/status").header("origin", "https://example.org")).await.unwrap_err();
    assert_eq!((page.code, page.status()), (Code::Foreign, 403));
    let host = fixture.once(Request::get("/v1/status").header("host", "example.org")).await.unwrap_err();
    assert_eq!(host.code, Code::Foreign);
}

#[tokio::test]
async fn a_stopping_server_ends_long_waits() {
    let fixture = fixture();
    let id = fixture.echo().await;
    let waiting = fixture.cluster.clone();
    let waiting = tokio::spawn(async move { waiting.get(format!("/v1/tasks/{id}?wait=60s")).await });
    while !waiting.is_finished() && fixture.toy.state.lock().unwrap().2 == 0 {
        tokio::task::yield_now().await;
    }
    fixture.server.stop().await;
    // Either the wait was answered with what is known, or its connection had not been accepted yet.
    if let Ok(task) = waiting.await.unwrap() {
        assert_eq!(task["state"], "pending");
    }
}

#[tokio::test]
async fn metrics_are_prometheus_text() {
    let fixture = fixture();
    let reply = fixture.once(Request::get("/metrics")).await.unwrap();
    let text = String::from_utf8(reply.body.to_vec()).unwrap();
    assert!(text.contains("\ntenure_epoch 3\n") && text.contains("tenure_members{state=\"alive\"} 2"), "{text}");
}

#[tokio::test]
async fn a_verb_on_a_node_is_checked_before_it_is_recorded() {
    let fixture = fixture();
    fixture.toy.state.lock().unwrap().0.found(&[NodeId(1), NodeId(2), NodeId(3)], 3);
    let post = |path: &str| fixture.cluster.send(Request::post(path.to_owned()).repeatable());

    let unknown = post("/v1/nodes/nobody/promote").await.unwrap_err();
    assert_eq!(unknown.code, Code::NotFound);
    assert!(unknown.hint.as_deref().is_some_and(|hint| hint.contains("n1, n2, n3")), "{unknown:?}");
    assert_eq!(post("/v1/nodes/n1/praise").await.unwrap_err().code, Code::NotFound);

    // No leader says who is here: whoever goes would take the majority along.
    let dangerous = post("/v1/nodes/n2/demote").await.unwrap_err();
    assert_eq!(dangerous.code, Code::Conflict);
    assert_eq!(
        dangerous.causes,
        ["n1  does not answer, or its disk does not", "n3  does not answer, or its disk does not"]
    );

    // By number, and for a voter no change at all.
    let answer = post(&format!("/v1/nodes/{}/promote", NodeId(3))).await.unwrap().json().unwrap();
    assert_eq!((&answer["target"], &answer["node"]), (&json!(3), &json!(NodeId(3).to_string())));
    assert_eq!(fixture.get("/v1/roster").await["voters"].as_array().map(Vec::len), Some(3));
}

#[tokio::test]
async fn the_master_is_named_with_its_epoch() {
    let fixture = fixture();
    let master = fixture.get("/v1/master").await;
    assert_eq!((&master["master_label"], &master["epoch"]), (&json!("n2"), &json!(3)));
    assert_eq!(master["master_is_fresh"], true);
}
