//! Tasks over HTTP.

use super::*;

#[tokio::test]
async fn a_submitted_task_can_be_read_waited_for_and_listed() {
    let fixture = fixture();
    let worker = fixture.toy.add_worker("tenure.echo");
    let id = fixture.echo().await;
    assert_eq!(fixture.get(&format!("/v1/tasks/{id}")).await["state"], "pending");
    let waiting = fixture.cluster.clone();
    let path = format!("/v1/tasks/{id}?wait=30s");
    let waiting = tokio::spawn(async move { waiting.get(path).await });
    fixture.toy.finish(worker, crate::parse::task(&id).unwrap(), Outcome::done("{\"a\":1}"));
    let task = waiting.await.unwrap().unwrap();
    assert_eq!((&task["state"], &task["output"]), (&json!("done"), &json!("{\"a\":1}")));
    assert_eq!(task["output_encoding"], "utf-8");
    assert_eq!(task["history"][0]["label"], "n2");
    let list = fixture.get("/v1/tasks?limit=10&state=done").await;
    assert_eq!((&list["tasks"][0]["id"], &list["next"]), (&json!(id), &Value::Null));
    assert_eq!(fixture.get("/v1/tasks?state=failed").await["tasks"], json!([]));
}

#[tokio::test]
async fn the_cursor_pages_through_all_tasks() {
    let fixture = fixture();
    for _ in 0..5 {
        fixture.echo().await;
    }
    let mut orders = Vec::new();
    for (first, cursor) in [("/v1/tasks?limit=2", "after"), ("/v1/tasks?limit=2&newest", "before")] {
        let (mut seen, mut path) = (Vec::new(), first.to_owned());
        loop {
            let page = fixture.get(&path).await;
            seen.extend(page["tasks"].as_array().unwrap().iter().map(|task| task["id"].clone()));
            match page["next"].as_str() {
                Some(next) => path = format!("/v1/tasks?limit=2&{cursor}={next}"),
                None => break,
            }
        }
        assert_eq!(seen.len(), 5);
        orders.push(seen);
    }
    orders[1].reverse();
    assert_eq!(orders[0], orders[1]);
    let both = fixture.once(Request::get("/v1/tasks?after=t1&before=t9")).await.unwrap_err();
    assert_eq!(both.code, Code::Usage);
}

#[tokio::test]
async fn large_results_hide_no_task_behind_them() {
    let fixture = fixture();
    let worker = fixture.toy.add_worker("tenure.echo");
    for _ in 0..3 {
        let id = fixture.echo().await;
        let output = Outcome::done(vec![b'x'; 600 * 1024]);
        fixture.toy.finish(worker, crate::parse::task(&id).unwrap(), output);
    }
    let list = fixture.get("/v1/tasks").await;
    assert_eq!((list["tasks"].as_array().unwrap().len(), &list["next"]), (3, &Value::Null));
}

#[tokio::test]
async fn an_idempotency_key_names_one_task() {
    let fixture = fixture();
    let request =
        || Request::post("/v1/tasks").json(&json!({ "kind": "tenure.echo" })).header("idempotency-key", "same");
    let first = fixture.once(request()).await.unwrap();
    let second = fixture.once(request()).await.unwrap();
    assert_eq!((first.status.as_u16(), second.status.as_u16()), (201, 200));
    let (first, second) = (first.json().unwrap(), second.json().unwrap());
    assert_eq!(first["id"], second["id"]);
    assert_eq!((&first["fresh"], &second["fresh"]), (&json!(true), &json!(false)));
}

#[tokio::test]
async fn a_batch_is_recorded_in_order() {
    let fixture = fixture();
    let tasks: Vec<Value> = (0..3).map(|n| json!({ "kind": "tenure.echo", "payload": n })).collect();
    let answer = fixture.post("/v1/tasks:batch", json!({ "tasks": tasks })).await.unwrap();
    assert_eq!(answer["tasks"].as_array().unwrap().len(), 3);
    let empty = fixture.post("/v1/tasks:batch", json!({ "tasks": [] })).await.unwrap_err();
    assert_eq!(empty.code, Code::Invalid);
}

#[tokio::test]
async fn a_kind_that_nobody_runs_is_refused_unless_it_may_wait() {
    let fixture = fixture();
    fixture.toy.add_worker("render");
    let error = fixture.post("/v1/tasks", json!({ "kind": "rendr" })).await.unwrap_err();
    assert_eq!((error.code, error.code.exit()), (Code::UnknownKind, 2));
    assert_eq!(error.message, "no live node has a handler for kind `rendr`; known: render, tenure.echo");
    assert!(fixture.post("/v1/tasks", json!({ "kind": "rendr", "queue": true })).await.is_ok());
    assert!(fixture.post("/v1/tasks", json!({ "kind": "render" })).await.is_ok());
}

#[tokio::test]
async fn a_cancelled_task_has_ended_and_cannot_be_cancelled_again() {
    let fixture = fixture();
    let id = fixture.echo().await;
    let path = format!("/v1/tasks/{id}/cancel");
    let cancel = || fixture.post(&path, json!({ "reason": "no need" }));
    let task = cancel().await.unwrap();
    assert_eq!((&task["state"], &task["message"]), (&json!("cancelled"), &json!("no need")));
    assert_eq!(cancel().await.unwrap_err().code, Code::Ended);
}
