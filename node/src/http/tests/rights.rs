//! Rights and counters over HTTP.

use super::*;

impl Fixture {
    async fn claim(&self, path: &str, claim: Value) -> Value {
        self.post(path, claim).await.unwrap()
    }

    async fn free(&self, grant: &Value, path: &str) {
        self.once(Request::new(Method::DELETE, self::path(path, "", grant))).await.unwrap();
    }
}

/// Where a claim is changed in the name of its session.
fn path(right: &str, what: &str, grant: &Value) -> String {
    format!("{right}/claims/{}{what}?session={}", grant["claim"].as_str().unwrap(), grant["session"].as_str().unwrap())
}

#[tokio::test]
async fn a_lock_is_held_by_one_session_and_handed_on_in_order() {
    let fixture = fixture();
    let (one, two) = (fixture.session().await, fixture.session().await);
    let grant = fixture.claim("/v1/locks/a", json!({ "session": one, "value": "me" })).await;
    assert_eq!((&grant["state"], &grant["right"]), (&json!("held"), &json!("lock a")));
    let refused = fixture.post("/v1/locks/a", json!({ "session": two })).await.unwrap_err();
    assert_eq!((refused.code, refused.status(), refused.code.exit()), (Code::Held, 409, 6));

    let waiting = fixture.claim("/v1/locks/a", json!({ "session": two, "stay": true })).await;
    assert_eq!(waiting["state"], "waiting");
    let view = fixture.get("/v1/locks/a").await;
    assert_eq!((&view["holders"][0]["value"], &view["waiting"]), (&json!("me"), &json!(1)));
    let place = format!("/v1/locks/a/claims/{}", waiting["claim"].as_str().unwrap());
    assert_eq!(fixture.get(&format!("{place}?wait=1ms")).await["state"], "waiting");
    let mut stranger = grant.clone();
    stranger["session"] = two.clone().into();
    for (wrong, code) in [
        (path("/v1/locks/a", "", &stranger), Code::Fenced),
        (format!("/v1/locks/a/claims/{}", grant["claim"].as_str().unwrap()), Code::Usage),
    ] {
        let refused = fixture.once(Request::new(Method::DELETE, wrong)).await.unwrap_err();
        assert_eq!(refused.code, code, "a claim ends in the name of its own session");
    }
    fixture.free(&grant, "/v1/locks/a").await;
    let next = fixture.get(&format!("{place}?wait=30s")).await;
    assert_eq!(next["state"], "held");
    assert!(next["fence"].as_u64() > grant["fence"].as_u64());
    let old = path("/v1/locks/a", "", &grant);
    let fenced = fixture.once(Request::new(Method::PUT, old).bytes("late")).await.unwrap_err();
    assert_eq!((fenced.code, fenced.code.exit()), (Code::Fenced, 6));
}

#[tokio::test]
async fn a_claim_is_where_it_is_however_long_the_answer_takes() {
    let fixture = fixture();
    let session = fixture.session().await;
    let held = fixture.claim("/v1/locks/a", json!({ "session": session })).await;
    let waits = fixture.claim("/v1/locks/a", json!({ "session": session, "stay": true })).await;
    fixture.toy.is_slow.store(true, Ordering::SeqCst);
    for wait in ["", "?wait=1ms"] {
        for (claim, state) in [(&held["claim"], "held"), (&waits["claim"], "waiting"), (&json!("c99"), "gone")] {
            let path = format!("/v1/locks/a/claims/{}{wait}", claim.as_str().unwrap());
            assert_eq!(fixture.get(&path).await["state"], state, "{path}");
        }
    }
}

#[tokio::test]
async fn whoever_waited_in_vain_without_a_quorum_is_not_told_that_somebody_holds_it() {
    let fixture = fixture();
    let session = fixture.session().await;
    fixture.claim("/v1/locks/a", json!({ "session": session })).await;
    // So long that it is seen in line before the wait is over, also on a slow machine.
    let waits = Request::post("/v1/locks/a").json(&json!({ "session": session, "wait_ms": 5_000 }));
    let (refused, ()) = tokio::join!(fixture.once(waits), async {
        while fixture.get("/v1/locks/a").await["waiting"] != 1 {}
        fixture.toy.has_quorum.store(false, Ordering::SeqCst);
    });
    let refused = refused.unwrap_err();
    assert_eq!((refused.code, refused.status(), refused.maybe_applied), (Code::NoQuorum, 504, true));
}

#[tokio::test]
async fn readers_share_a_lock_and_a_semaphore_counts() {
    let fixture = fixture();
    let session = fixture.session().await;
    for _ in 0..2 {
        let reader = fixture.claim("/v1/locks/a", json!({ "session": session, "shared": true })).await;
        assert_eq!(reader["state"], "held");
    }
    let permits = |count: u32| json!({ "session": session, "count": count, "limit": 3 });
    fixture.claim("/v1/semaphores/s", permits(2)).await;
    assert_eq!(fixture.post("/v1/semaphores/s", permits(2)).await.unwrap_err().code, Code::Held);
    fixture.claim("/v1/semaphores/s", permits(1)).await;
    for wrong in [json!({ "session": session }), json!({ "session": "me", "limit": 3 }), json!({ "limit": 3 })] {
        assert_eq!(fixture.post("/v1/semaphores/s", wrong).await.unwrap_err().code, Code::Usage);
    }
}

#[tokio::test]
async fn an_election_is_watched_from_what_is_to_whatever_comes() {
    let fixture = fixture();
    let session = fixture.session().await;
    let mut watch = fixture.stream("/v1/elections/e/leader?watch").await;
    watch.until("\"holders\":[]").await;
    let grant = fixture.claim("/v1/elections/e/campaign", json!({ "session": session, "value": "node-a" })).await;
    watch.until("node-a").await;
    let place = path("/v1/elections/e", "", &grant);
    fixture.once(Request::new(Method::PUT, place).bytes("node-a2")).await.unwrap();
    watch.until("node-a2").await;
    let revision = fixture.get("/v1/elections/e").await["revision"].clone();
    let unchanged = fixture.get(&format!("/v1/elections/e/leader?after={revision}&wait=1ms")).await;
    assert_eq!(unchanged["holders"][0]["value"], "node-a2");
}

#[tokio::test]
async fn a_barrier_opens_for_all_and_a_group_lists_who_is_here() {
    let fixture = fixture();
    let session = fixture.session().await;
    let party = json!({ "session": session, "parties": 2, "stay": true });
    let first = fixture.claim("/v1/barriers/b", party.clone()).await;
    assert_eq!(first["state"], "waiting");
    let second = fixture.claim("/v1/barriers/b", party).await;
    let first = fixture.get(&format!("/v1/barriers/b/claims/{}", first["claim"].as_str().unwrap())).await;
    assert_eq!((&first["state"], &second["state"]), (&json!("held"), &json!("held")));
    assert_ne!(first["leads"], second["leads"], "one of them leads");

    for value in ["x", "y"] {
        fixture.claim("/v1/groups/g", json!({ "session": session, "value": value })).await;
    }
    let group = fixture.get("/v1/groups/g").await;
    assert_eq!(group["holders"].as_array().map(Vec::len), Some(2));
    fixture.once(Request::new(Method::DELETE, format!("/v1/sessions/{session}"))).await.unwrap();
    assert_eq!(fixture.get("/v1/groups/g").await["holders"], json!([]), "whoever is gone is not in it");
}

#[tokio::test]
async fn a_large_group_is_shown_page_by_page() {
    let fixture = fixture();
    let session = fixture.session().await;
    let join = |value: String| fixture.claim("/v1/groups/g", json!({ "session": session, "value": value }));
    for number in 0..20 {
        join(format!("{number:02}{}", "x".repeat(60_000))).await;
    }
    let (mut values, mut after) = (Vec::new(), 0);
    loop {
        let page = fixture.get(&format!("/v1/groups/g?after_fence={after}")).await;
        let holders = page["holders"].as_array().unwrap();
        assert!(holders.len() < 20, "a mebibyte, and no more");
        values.extend(holders.iter().map(|holder| holder["value"].as_str().unwrap()[..2].to_owned()));
        after = holders.last().unwrap()["fence"].as_u64().unwrap();
        if page["more"] == false {
            break;
        }
    }
    assert_eq!(values, (0..20).map(|number| format!("{number:02}")).collect::<Vec<_>>());
    // No event shows a part as if it were all.
    let mut watch = fixture.stream("/v1/groups/g?watch").await;
    watch.until("after_fence=").await;
    assert!(watch.heard.contains("event: problem") && !watch.heard.contains("event: right"), "{}", watch.heard);
    for wrong in ["/v1/groups/g?after_fence=c7", "/v1/groups/g?after_fence=7&after=7"] {
        assert_eq!(fixture.once(Request::get(wrong)).await.unwrap_err().code, Code::Usage, "{wrong}");
    }
}

#[tokio::test]
async fn what_is_done_once_is_settled_until_it_is_forgotten() {
    let fixture = fixture();
    let session = fixture.session().await;
    let grant = fixture.claim("/v1/once/migrate", json!({ "session": session })).await;
    let settle = path("/v1/once/migrate", "/settle", &grant);
    fixture.once(Request::post(settle).bytes("v7")).await.unwrap();
    let again = fixture.post("/v1/once/migrate", json!({ "session": session })).await.unwrap_err();
    assert_eq!((again.code, again.code.exit()), (Code::Settled, 6));
    assert_eq!(fixture.get("/v1/once/migrate").await["outcome"], "v7");
    let forget = || fixture.once(Request::new(Method::DELETE, "/v1/once/migrate"));
    forget().await.unwrap();
    assert_eq!(forget().await.unwrap_err().code, Code::NotFound);
}

#[tokio::test]
async fn a_queue_gives_out_the_highest_item_and_takes_it_back() {
    let fixture = fixture();
    let session = fixture.session().await;
    for (value, priority) in [("low", -1), ("high", 5)] {
        fixture.post("/v1/queues/q/items", json!({ "value": value, "priority": priority })).await.unwrap();
    }
    let take = || async { fixture.claim("/v1/queues/q", json!({ "session": session })).await };
    let taken = take().await;
    assert_eq!(taken["value"], "high");
    fixture.free(&taken, "/v1/queues/q").await;
    let again = take().await;
    assert_eq!((&again["value"], &again["item"]), (&json!("high"), &taken["item"]));
    let settle = path("/v1/queues/q", "/settle", &again);
    fixture.once(Request::post(settle)).await.unwrap();
    assert_eq!(take().await["value"], "low");
}

#[tokio::test]
async fn a_counter_counts_an_addition_under_a_key_once() {
    let fixture = fixture();
    let add = |body: Value| Request::post("/v1/counters/c").json(&body);
    assert_eq!(fixture.get("/v1/counters/c").await["value"], 0);
    for _ in 0..2 {
        let sum = fixture.once(add(json!({ "by": 5 })).header("idempotency-key", "r1")).await.unwrap();
        assert_eq!(sum.json().unwrap()["value"], 5);
    }
    fixture.once(add(json!({ "by": -1 }))).await.unwrap();
    assert_eq!(fixture.get("/v1/counters/c").await["value"], 4);
    let wrong = fixture.once(add(json!({ "by": "many" }))).await.unwrap_err();
    assert_eq!(wrong.code, Code::Usage);
    fixture.once(Request::new(Method::DELETE, "/v1/counters/c")).await.unwrap();
    assert_eq!(fixture.get("/v1/counters/c").await["value"], 0);
}

#[tokio::test]
async fn the_rights_in_use_are_listed_by_kind_and_name() {
    let fixture = fixture();
    let session = fixture.session().await;
    for path in ["/v1/locks/b", "/v1/locks/a", "/v1/elections/e"] {
        fixture.claim(path, json!({ "session": session })).await;
    }
    fixture.claim("/v1/locks/a", json!({ "session": session, "stay": true })).await;
    let names =
        |list: Value| list["rights"].as_array().unwrap().iter().map(|right| right["right"].clone()).collect::<Vec<_>>();
    let all = fixture.get("/v1/rights").await;
    assert_eq!((&all["rights"][0]["session"], &all["rights"][0]["waiting"]), (&json!(session), &json!(1)));
    assert_eq!(names(all), ["lock a", "lock b", "election e"]);
    assert_eq!(names(fixture.get("/v1/rights?kind=lock&limit=1").await), ["lock a"]);
    assert_eq!(names(fixture.get("/v1/rights?after=lock%20a&kind=lock").await), ["lock b"]);
    assert_eq!(names(fixture.get("/v1/rights?after=lock%20a&kind=election").await), ["election e"]);
    assert_eq!(names(fixture.get("/v1/rights?after=election%20a&kind=lock").await), [""; 0], "all locks come before");
    assert_eq!(names(fixture.get("/v1/rights?kind=queue").await), [""; 0]);
    for wrong in ["/v1/rights?kind=padlock", "/v1/rights?after=lock", "/v1/rights?limit=few"] {
        assert_eq!(fixture.once(Request::get(wrong)).await.unwrap_err().code, Code::Usage, "{wrong}");
    }
}

#[tokio::test]
async fn without_a_quorum_nobody_is_said_to_stand_in_line() {
    let fixture = fixture();
    let session = fixture.session().await;
    fixture.claim("/v1/locks/a", json!({ "session": session })).await;
    let waiting = fixture.claim("/v1/locks/a", json!({ "session": session, "stay": true })).await;
    fixture.toy.has_quorum.store(false, Ordering::SeqCst);
    let place = format!("/v1/locks/a/claims/{}?wait=1ms", waiting["claim"].as_str().unwrap());
    for path in [place.as_str(), "/v1/locks/a", "/v1/locks/a?after=1&wait=1ms", "/v1/counters/c"] {
        let error = fixture.once(Request::get(path)).await.unwrap_err();
        assert_eq!((error.code, error.status()), (Code::NoQuorum, 503), "{path}");
    }
}
