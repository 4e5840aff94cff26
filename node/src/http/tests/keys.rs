//! Keys over HTTP.

use super::*;

#[tokio::test]
async fn keys_carry_revisions_and_preconditions() {
    let fixture = fixture();
    let put = |value: &'static str| Request::new(Method::PUT, "/v1/kv/config%2Flimit").bytes(value);
    let first = fixture.once(put("10").header("if-none-match", "*")).await.unwrap();
    let revision = first.header("x-revision").unwrap().to_owned();
    assert_eq!(first.json().unwrap()["key"], "config/limit");
    assert_eq!(fixture.once(put("11").header("if-none-match", "*")).await.unwrap_err().code, Code::Conflict);
    let second = fixture.once(put("12").header("if-match", &revision)).await.unwrap();
    let lost = fixture.once(put("13").header("if-match", &revision)).await.unwrap_err();
    assert_eq!((lost.status(), lost.code.exit()), (412, 6));
    let read = fixture.once(Request::get("/v1/kv/config/limit")).await.unwrap();
    assert_eq!((&read.body[..], read.header("x-revision")), (&b"12"[..], second.header("x-revision")));
    let json = fixture.once(Request::get("/v1/kv/config/limit").header("accept", "application/json")).await.unwrap();
    assert_eq!(json.json().unwrap()["value"], "12");
    let delete = fixture.once(Request::new(Method::DELETE, "/v1/kv/config/limit")).await.unwrap();
    assert!(delete.header("x-revision").is_some());
    let wrong = fixture.once(put("1").header("if-match", "soon")).await.unwrap_err();
    assert_eq!(wrong.code, Code::Usage);
}

#[tokio::test]
async fn keys_have_owners_ends_and_names_of_their_own() {
    let fixture = fixture();
    let session = fixture.post("/v1/sessions", json!({ "ttl_ms": 60_000 })).await.unwrap();
    let session = session["session"].as_str().unwrap().to_owned();
    let put = |path: String| fixture.once(Request::new(Method::PUT, path).bytes("v"));
    put(format!("/v1/kv/a?session={session}")).await.unwrap();
    let made = put("/v1/kv/job-?seq&ttl=30s".into()).await.unwrap().json().unwrap();
    let name = format!("job-{:020}", made["revision"].as_u64().unwrap());
    assert_eq!(made["key"], name.as_str());
    let all = fixture.get("/v1/kv").await;
    assert_eq!((&all["keys"][0]["session"], &all["keys"][1]["key"]), (&json!(session), &json!(name)));
    assert!(all["keys"][1]["expires_ms"].is_u64() && all["more"] == false);
    let page = fixture.get("/v1/kv?prefix=&after=a&limit=1&keys_only").await;
    assert_eq!((&page["keys"][0]["key"], page["keys"][0].get("value")), (&json!(name), None));
    fixture.once(Request::new(Method::DELETE, format!("/v1/sessions/{session}"))).await.unwrap();
    assert_eq!(fixture.once(Request::get("/v1/kv/a")).await.unwrap_err().code, Code::NotFound);
    assert_eq!(put(format!("/v1/kv/a?session={session}")).await.unwrap_err().code, Code::NoSession);
    for (name, value) in [("if-match", "7"), ("if-none-match", "*")] {
        let expecting = Request::new(Method::PUT, "/v1/kv/job-?seq").bytes("v").header(name, value);
        assert_eq!(fixture.once(expecting).await.unwrap_err().code, Code::Usage, "{name}");
    }
    for path in ["/v1/kv/%ff", "/v1/locks/a%c3", "/%80"] {
        let refused = fixture.once(Request::get(path)).await.unwrap_err();
        assert_eq!((refused.code, refused.message.as_str()), (Code::Usage, "the path is no text"), "{path}");
    }
    for wrong in ["/v1/kv/a?session=me", "/v1/kv/a?ttl=soon", "/v1/kv/a?tll=3s"] {
        assert_eq!(put(wrong.into()).await.unwrap_err().code, Code::Usage, "{wrong}");
    }
}

#[tokio::test]
async fn a_transaction_answers_what_each_step_came_to() {
    let fixture = fixture();
    let made = fixture.once(Request::new(Method::PUT, "/v1/kv/a").bytes("1")).await.unwrap().json().unwrap();
    let transaction = json!({
        "when": [{ "key": "a", "revision": made["revision"] }, { "key": "a", "value": "1" }, { "key": "b", "absent": true }],
        "then": [
            { "put": "a", "value": "/w==", "value_encoding": "base64" },
            { "get": "a" },
            { "get": "c" },
            { "delete": "c" },
            { "put": "b", "value": "2" },
        ],
        "or_else": [{ "get": "a" }],
    });
    let done = fixture.post("/v1/txn", transaction.clone()).await.unwrap();
    assert_eq!(done["held"], true);
    let results = done["results"].as_array().unwrap();
    assert_eq!(results[0], json!({ "written": "a" }));
    assert_eq!((&results[1]["value"], &results[1]["value_encoding"]), (&json!("/w=="), &json!("base64")));
    assert_eq!((&results[2], &results[3]), (&Value::Null, &json!({ "deleted": false })));
    let again = fixture.post("/v1/txn", transaction).await.unwrap();
    assert_eq!((&again["held"], again["results"].as_array().unwrap().len()), (&json!(false), 1));
    for wrong in [
        json!({ "when": [{ "key": "a" }] }),
        json!({ "when": [{ "key": "a", "revision": 1, "absent": true }] }),
        json!({ "then": [{ "put": "a", "get": "a" }] }),
        json!({ "then": [{ "put": "a", "value": "%", "value_encoding": "base64" }] }),
        json!({ "then": [{ "put": "a", "vaule": "1" }] }),
    ] {
        assert_eq!(fixture.post("/v1/txn", wrong.clone()).await.unwrap_err().code, Code::Usage, "{wrong}");
    }
    let twice = json!({ "then": [{ "put": "a" }, { "delete": "a" }] });
    assert_eq!(fixture.post("/v1/txn", twice).await.unwrap_err().code, Code::Invalid);
}

#[tokio::test]
async fn a_transaction_under_a_right_does_nothing_for_a_grant_that_is_over() {
    let fixture = fixture();
    let session = fixture.session().await;
    let grant = fixture.post("/v1/locks/stock", json!({ "session": session })).await.unwrap();
    let write = |fence: &Value| {
        let transaction = json!({
            "when": [{ "held": grant["right"], "fence": fence }],
            "then": [{ "put": "a", "value": "1" }],
        });
        fixture.post("/v1/txn", transaction)
    };
    assert_eq!(write(&grant["fence"]).await.unwrap()["held"], true);
    let claim = format!("/v1/locks/stock/claims/{}?session={session}", grant["claim"].as_str().unwrap());
    fixture.once(Request::new(Method::DELETE, claim)).await.unwrap();
    assert_eq!(write(&grant["fence"]).await.unwrap()["held"], false);
    for wrong in [
        json!({ "held": "lock stock" }),
        json!({ "fence": 7 }),
        json!({ "held": "padlock stock", "fence": 7 }),
        json!({ "held": "lock", "fence": 7 }),
        json!({ "held": "lock stock", "fence": 7, "key": "a" }),
    ] {
        let error = fixture.post("/v1/txn", json!({ "when": [wrong] })).await.unwrap_err();
        assert_eq!(error.code, Code::Usage, "{wrong}");
    }
}

#[tokio::test]
async fn a_wait_for_changes_that_do_not_come_is_empty_with_a_quorum_and_a_problem_without() {
    let fixture = fixture();
    let wait = || fixture.once(Request::get("/v1/kv?watch&from=0&wait=20ms"));
    assert_eq!(wait().await.unwrap().json().unwrap()["changes"], json!([]));
    fixture.toy.has_quorum.store(false, Ordering::SeqCst);
    let error = wait().await.unwrap_err();
    assert_eq!((error.code, error.status()), (Code::NoQuorum, 503));
}

#[tokio::test]
async fn a_node_serves_a_bounded_number_of_streams_and_says_so() {
    let fixture = fixture();
    let mut open = Vec::new();
    for _ in 0..streams::STREAMS_MAX {
        open.push(fixture.stream("/v1/kv?watch").await);
    }
    for path in ["/v1/kv?watch", "/v1/kv/a?watch", "/v1/locks/a?watch"] {
        let error = fixture.once(Request::get(path)).await.unwrap_err();
        assert_eq!((error.code, error.status(), error.is_retryable()), (Code::Busy, 503, true), "{path}");
        assert!(error.hint.is_some());
    }
    assert!(fixture.once(Request::get("/v1/kv?watch&wait=1ms")).await.is_ok(), "one answer needs no place");
    open.clear();
    // Soon the node hears that nobody listens.
    while fixture.once(Request::get("/v1/kv?watch&from=soon")).await.unwrap_err().code == Code::Busy {
        tokio::task::yield_now().await;
    }
}
