//! The routes of rights: `/v1/locks`, `/v1/elections`, `/v1/semaphores`, `/v1/groups`, `/v1/barriers`, `/v1/once`, `/v1/queues`, and
//! of counters.
//!
//! A claim belongs to a session of `/v1/sessions`, which its owner renews, and by which it knows until when it holds what it holds:
//! no longer than `valid_for_ms` after it *sent* its last renewal that was answered.
//!
//! # Invariants
//!
//! * One answer shows one page of those who hold a right, 1,000 or a mebibyte of their values, and so does one event of a stream: a right that
//!   has `more` ends the stream with a problem.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::StreamExt as _;
use protocol::state::{
    Add, Answer as Said, ClaimState, CounterOperation, Grant, Mode, Operation, Query as Question, RightId, RightKind,
    RightLine, RightOperation, RightView,
};
use protocol::{ClaimId, Fence, Revision, SessionId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Door;
use super::json::{SCHEMA, encoded};
use super::problem::Answer;
use super::query::Query;
use super::streams::named;
use crate::client::{Client, unexpected};
use crate::diagnostic::{Code, Diagnostic};
use crate::recipes::place::{Patience, Place, Wish, forget as forget_all, long, release, written};
use crate::recipes::watch::{changed_page, page, pages};

/// The first words of the paths.
const KINDS: [(&str, RightKind); 7] = [
    ("locks", RightKind::Lock),
    ("elections", RightKind::Election),
    ("semaphores", RightKind::Semaphore),
    ("groups", RightKind::Group),
    ("barriers", RightKind::Barrier),
    ("once", RightKind::Once),
    ("queues", RightKind::Queue),
];

/// The first word of the paths of this kind.
pub(crate) fn word_of(kind: RightKind) -> &'static str {
    KINDS.into_iter().find(|(_, known)| *known == kind).map_or("locks", |(word, _)| word)
}

/// Adds the routes.
pub(super) fn routes(mut router: Router<Door>) -> Router<Door> {
    for (word, kind) in KINDS {
        let right = move |name: &str| RightId::new(kind, name);
        let show = move |door: State<Door>, Path(name): Path<String>, query: RawQuery, headers: HeaderMap| {
            show(door, right(&name), query, headers)
        };
        let claim = move |door: State<Door>, Path(name): Path<String>, headers: HeaderMap, body| {
            claim(door, right(&name), headers, body)
        };
        let forget =
            move |door: State<Door>, Path(name): Path<String>, headers: HeaderMap| forget(door, right(&name), headers);
        let base = format!("/v1/{word}/{{name}}");
        router = router.route(&base, get(show).post(claim).delete(forget));
        let look = move |door: State<Door>, Path((name, claim)): Path<(String, String)>, query: RawQuery, headers| {
            follow(door, (right(&name), claim), query, headers)
        };
        let set = move |door: State<Door>, Path((name, claim)): Path<(String, String)>, query, headers, body| {
            set_value(door, (right(&name), claim), query, headers, body)
        };
        let free = move |door: State<Door>, Path((name, claim)): Path<(String, String)>, query, headers| {
            give_back(door, (right(&name), claim), query, headers)
        };
        router = router.route(&format!("{base}/claims/{{claim}}"), get(look).put(set).delete(free));
        let settle = move |door: State<Door>, Path((name, claim)): Path<(String, String)>, query, headers, body| {
            settle(door, (right(&name), claim), query, headers, body)
        };
        router = router.route(&format!("{base}/claims/{{claim}}/settle"), post(settle));
        if kind == RightKind::Election {
            router = router.route(&format!("{base}/campaign"), post(claim)).route(&format!("{base}/leader"), get(show));
        }
    }
    router
        .route("/v1/rights", get(list))
        .route("/v1/queues/{name}/items", post(push))
        .route("/v1/counters/{name}", get(count).post(add).delete(remove_counter))
}

/// A claim as a request describes it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewClaim {
    session: String,
    /// Shown beside the holder.
    #[serde(default)]
    value: String,
    /// For readers of a lock.
    #[serde(default)]
    shared: bool,
    /// Permits of a semaphore.
    count: Option<u32>,
    /// All permits of a semaphore.
    limit: Option<u32>,
    /// For how many a barrier is.
    parties: Option<u32>,
    /// Stand in line for so long; not at all unless told otherwise.
    #[serde(default)]
    wait_ms: u64,
    /// Answer at once, and stay in line: `GET …/claims/{claim}?wait=` tells when it is granted.
    #[serde(default)]
    stay: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewAddition {
    by: i64,
    once: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewItem {
    value: String,
    #[serde(default)]
    priority: i32,
}

async fn claim(
    State(door): State<Door>,
    right: RightId,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    let new: NewClaim = parsed(body, r#"{"session": "s42", "wait_ms": 5000}"#)?;
    let session = session(&new.session)?;
    let mode = mode(right.kind, &new)?;
    let patience = match new.wait_ms {
        _ if new.stay => Patience::Endless,
        0 => Patience::None,
        ms => Patience::UpTo(Duration::from_millis(ms).min(WAIT_MAX)),
    };
    let wish = Wish { right: right.clone(), session, mode, value: new.value.into(), patience };
    let client = door.client(&headers);
    let (place, state) = if new.stay {
        let (place, fence) = door.answer(Place::enter(&client, wish)).await?;
        // Whoever is in line is told so at once; what a grant holds beside its fence is asked for.
        let grant = if fence.is_some() { place.granted().await.ok() } else { None };
        (place, grant.map_or(ClaimState::Waiting, ClaimState::Held))
    } else {
        let (place, grant) = door.answer(Place::take(&client, wish)).await?;
        (place, ClaimState::Held(grant))
    };
    let claim = place.keep();
    let mut document = json!({ "schema": SCHEMA, "right": right.to_string(), "claim": claim.to_string() });
    document["session"] = session.to_string().into();
    show_state(&mut document, &state);
    let status = if new.stay { StatusCode::ACCEPTED } else { StatusCode::CREATED };
    Ok((status, Json(document)).into_response())
}

/// All rights that are in use, or those of a kind.
async fn list(State(door): State<Door>, RawQuery(query): RawQuery, headers: HeaderMap) -> Answer {
    let query = Query::parse(query.as_deref(), &["kind", "after", "limit"])?;
    let wrong = |why: String| Diagnostic::new(Code::Usage, why);
    let kind = query.text("kind").map(str::parse::<RightKind>).transpose().map_err(wrong)?;
    let after = query.text("after").filter(|text| !text.is_empty()).map(str::parse).transpose().map_err(wrong)?;
    // No name is empty: this is before the first of its kind. Whatever comes before that is of other kinds.
    let after = after.max(kind.map(|kind| RightId::new(kind, "")));
    let limit = query.number("limit")?.unwrap_or(PAGE);
    let rights = door.answer(door.client(&headers).rights(after, limit)).await?;
    let is_meant = |line: &&RightLine| kind.is_none_or(|kind| line.right.kind == kind);
    let rights: Vec<Value> = rights.iter().take_while(is_meant).map(line).collect();
    Ok(Json(json!({ "schema": SCHEMA, "rights": rights })).into_response())
}

async fn show(State(door): State<Door>, right: RightId, RawQuery(query): RawQuery, headers: HeaderMap) -> Answer {
    let query = Query::parse(query.as_deref(), &["after", "after_fence", "wait", "watch"])?;
    let client = door.client(&headers);
    if query.flag("watch") {
        return watch(&door, right, client);
    }
    let after = query.text("after").map(revision).transpose()?;
    let after_fence = query.text("after_fence").map(fence).transpose()?;
    let wait = query.duration("wait")?.unwrap_or_default().min(WAIT_MAX);
    let first = page(&client, &right, after_fence.unwrap_or(Fence(0)));
    let view = match (after, after_fence) {
        (Some(_), Some(_)) => {
            return Err(Diagnostic::new(
                Code::Usage,
                "`after` waits for a change, `after_fence` is the next page of what is",
            )
            .hint("give one of them"));
        }
        // What nobody changes in time is shown as it is.
        (Some(after), None) if !wait.is_zero() => {
            let changes = door.answer(changed_page(&client, &right, after));
            match tokio::time::timeout(wait, changes).await {
                Ok(view) => view?,
                Err(_) => door.answer(first).await?,
            }
        }
        _ => door.answer(first).await?,
    };
    Ok(Json(document(&right, &view)).into_response())
}

/// How the right looks, and then whenever it changed, as events whose ids are revisions. Ends after a problem.
fn watch(door: &Door, right: RightId, client: Client) -> Answer {
    let place = door.streams.take()?;
    let events = pages(client, right.clone()).scan(false, move |has_ended, view| {
        let event = match view {
            _ if *has_ended => None,
            Ok(view) if !view.has_more => Some(named("right", &document(&right, &view)).id(view.revision.to_string())),
            other => {
                *has_ended = true;
                let why = other.map_or_else(Diagnostic::from, |view| too_many(view.holders.len()));
                Some(named("problem", &why.to_problem()))
            }
        };
        std::future::ready(event)
    });
    Ok(place.respond(events))
}

/// More hold a right than one event shows.
fn too_many(shown: usize) -> Diagnostic {
    Diagnostic::new(Code::TooLarge, format!("more hold it than one event shows: {shown} are a page"))
        .hint("ask with `after=REVISION&wait=30s`, again and again, and for the other pages with `after_fence=`")
}

async fn follow(
    State(door): State<Door>,
    (right, id): (RightId, String),
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Answer {
    let query = Query::parse(query.as_deref(), &["wait", "held-by"])?;
    let mut wait = query.duration("wait")?.unwrap_or_default().min(WAIT_MAX);
    let claim = claim_id(&id)?;
    let client = door.client(&headers);
    if let Some(holder) = query.text("held-by") {
        // As long as it is held, nothing is said.
        let question = Question::AwaitEnd { session: session(holder)?, claims: vec![claim] };
        match tokio::time::timeout(wait, door.answer(long(&client, question))).await {
            Ok(Ok(_)) | Err(_) => wait = Duration::ZERO,
            Ok(Err(error)) => return Err(error),
        }
    }
    let question = Question::AwaitClaim { right: right.clone(), claim };
    let waits = tokio::time::timeout(wait, door.answer(long(&client, question)));
    let said = if wait.is_zero() { None } else { waits.await.ok() };
    let said = match said {
        Some(said) => said?,
        // Silence says nothing: it may be in line, or nobody answers.
        None => door.answer(client.read(Question::Claim { right: right.clone(), claim })).await?,
    };
    let Said::Claim(state) = said else { return Err(unexpected(&said).into()) };
    let mut document = json!({ "schema": SCHEMA, "right": right.to_string(), "claim": claim.to_string() });
    show_state(&mut document, &state);
    Ok(Json(document).into_response())
}

async fn set_value(
    State(door): State<Door>,
    (right, id): (RightId, String),
    query: RawQuery,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    let (session, claim, value) = (owner(query)?, claim_id(&id)?, whole(body)?);
    change(&door, &headers, RightOperation::SetValue { right, session, claim, value }).await
}

async fn settle(
    State(door): State<Door>,
    (right, id): (RightId, String),
    query: RawQuery,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    let (session, claim, outcome) = (owner(query)?, claim_id(&id)?, whole(body)?);
    change(&door, &headers, RightOperation::Settle { right, session, claim, outcome }).await
}

async fn give_back(
    State(door): State<Door>,
    (right, id): (RightId, String),
    query: RawQuery,
    headers: HeaderMap,
) -> Answer {
    let (session, claim) = (owner(query)?, claim_id(&id)?);
    door.answer(release(&door.client(&headers), right.clone(), (session, claim))).await?;
    let document = json!({ "schema": SCHEMA, "right": right.to_string(), "claim": claim.to_string(), "state": "gone" });
    Ok(Json(document).into_response())
}

async fn forget(State(door): State<Door>, right: RightId, headers: HeaderMap) -> Answer {
    let revision = door.answer(forget_all(&door.client(&headers), &right)).await?;
    Ok(changed_at(&right, revision))
}

async fn push(
    State(door): State<Door>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    let NewItem { value, priority } = parsed(body, r#"{"value": "img-42", "priority": 0}"#)?;
    change(&door, &headers, RightOperation::Push { queue: name.into(), value: value.into(), priority }).await
}

async fn count(State(door): State<Door>, Path(name): Path<String>, headers: HeaderMap) -> Answer {
    counted(&name, door.answer(door.client(&headers).read(Question::Counter(name.as_str().into()))).await?)
}

async fn add(
    State(door): State<Door>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    let NewAddition { by, mut once } = parsed(body, r#"{"by": 1}"#)?;
    if let Some(key) = headers.get("idempotency-key") {
        let key = key.to_str().map_err(|_| Diagnostic::new(Code::Usage, "the Idempotency-Key is no text"))?;
        once = Some(key.to_owned());
    }
    let add = Add { counter: name.as_str().into(), by, once: once.map(Into::into) };
    let operation = Operation::Counter(CounterOperation::Add(add));
    counted(&name, door.answer(door.client(&headers).write(operation)).await?)
}

async fn remove_counter(State(door): State<Door>, Path(name): Path<String>, headers: HeaderMap) -> Answer {
    let operation = Operation::Counter(CounterOperation::Remove(name.into()));
    let revision = written(door.answer(door.client(&headers).write(operation)).await?)?;
    Ok(Json(json!({ "schema": SCHEMA, "revision": revision.0 })).into_response())
}

async fn change(door: &Door, headers: &HeaderMap, operation: RightOperation) -> Answer {
    let right = operation.right();
    let revision = written(door.answer(door.client(headers).write(Operation::Right(operation))).await?)?;
    Ok(changed_at(&right, revision))
}

fn changed_at(right: &RightId, revision: Revision) -> Response {
    Json(json!({ "schema": SCHEMA, "right": right.to_string(), "revision": revision.0 })).into_response()
}

fn counted(name: &str, answer: Said) -> Answer {
    match answer {
        Said::Counted(counted) => {
            let revision = counted.revision.0;
            let document = json!({ "schema": SCHEMA, "counter": name, "value": counted.value, "revision": revision });
            Ok(Json(document).into_response())
        }
        other => Err(unexpected(&other).into()),
    }
}

fn document(right: &RightId, view: &RightView) -> Value {
    let holders: Vec<Value> = view
        .holders
        .iter()
        .map(|holder| {
            let mut document = json!({
                "claim": holder.claim.to_string(),
                "session": holder.session.to_string(),
                "fence": holder.fence.0,
                "round": holder.round.0,
                "shared": holder.mode == Mode::Shared,
            });
            if let Mode::Permits { count, limit } = holder.mode {
                (document["count"], document["limit"]) = (count.into(), limit.into());
            }
            encoded(&mut document, "value", &holder.value);
            document
        })
        .collect();
    let mut document = json!({
        "schema": SCHEMA,
        "right": right.to_string(),
        "revision": view.revision.0,
        "holders": holders,
        "more": view.has_more,
        "waiting": view.waiting,
        "items": view.items,
    });
    if let Some(outcome) = &view.settled {
        encoded(&mut document, "outcome", outcome);
    }
    document
}

fn line(line: &RightLine) -> Value {
    let mut document = json!({
        "right": line.right.to_string(),
        "kind": line.right.kind.to_string(),
        "name": &*line.right.name,
        "revision": line.revision.0,
        "holders": line.holders,
        "waiting": line.waiting,
        "items": line.items,
        "settled": line.is_settled,
    });
    if let Some((session, fence)) = line.first {
        (document["session"], document["fence"]) = (session.to_string().into(), fence.0.into());
    }
    document
}

fn show_state(document: &mut Value, state: &ClaimState) {
    match state {
        ClaimState::Waiting => document["state"] = "waiting".into(),
        ClaimState::Gone => document["state"] = "gone".into(),
        ClaimState::Held(grant) => show_grant(document, grant),
        ClaimState::Settled(outcome) => {
            document["state"] = "settled".into();
            encoded(document, "outcome", outcome);
        }
    }
}

fn show_grant(document: &mut Value, grant: &Grant) {
    document["state"] = "held".into();
    document["fence"] = grant.fence.0.into();
    document["leads"] = (grant.fence == grant.round).into();
    if let Some(item) = &grant.item {
        document["item"] = item.id.0.into();
        encoded(document, "value", &item.value);
    }
}

fn mode(kind: RightKind, new: &NewClaim) -> Result<Mode, Diagnostic> {
    let lacks = |what: &str| Diagnostic::new(Code::Usage, format!("a claim to a {kind} says `{what}`"));
    Ok(match kind {
        RightKind::Lock if new.shared => Mode::Shared,
        RightKind::Group => Mode::Member,
        RightKind::Semaphore => {
            Mode::Permits { count: new.count.unwrap_or(1), limit: new.limit.ok_or_else(|| lacks("limit"))? }
        }
        RightKind::Barrier => Mode::Party { parties: new.parties.ok_or_else(|| lacks("parties"))? },
        _ => Mode::Exclusive,
    })
}

fn parsed<T: serde::de::DeserializeOwned>(body: Result<Bytes, BytesRejection>, example: &str) -> Result<T, Diagnostic> {
    serde_json::from_slice(&whole(body)?).map_err(|error| {
        Diagnostic::new(Code::Usage, format!("the body is not what is asked for here: {error}"))
            .hint(format!("send {example}"))
    })
}

fn whole(body: Result<Bytes, BytesRejection>) -> Result<Bytes, Diagnostic> {
    body.map_err(|_| Diagnostic::new(Code::TooLarge, "the body is too large"))
}

/// In whose name a claim is changed or given back.
fn owner(RawQuery(query): RawQuery) -> Result<SessionId, Diagnostic> {
    let query = Query::parse(query.as_deref(), &["session"])?;
    let named = query.text("session").ok_or_else(|| {
        Diagnostic::new(Code::Usage, "a claim is changed and given back in the name of its session")
            .hint("add `?session=s42`; to take a right from somebody else, end that session: `tenure session kill s42`")
    })?;
    session(named)
}

fn session(text: &str) -> Result<SessionId, Diagnostic> {
    number(text, 's').map(SessionId)
}

fn claim_id(text: &str) -> Result<ClaimId, Diagnostic> {
    number(text, 'c').map(ClaimId)
}

fn revision(text: &str) -> Result<Revision, Diagnostic> {
    text.parse().map(Revision).map_err(|_| {
        Diagnostic::new(Code::Usage, format!("`{}` is no revision", text.escape_debug()))
            .hint("send the `revision` of the last answer")
    })
}

fn fence(text: &str) -> Result<Fence, Diagnostic> {
    text.parse().map(Fence).map_err(|_| {
        Diagnostic::new(Code::Usage, format!("`{}` is no fence", text.escape_debug()))
            .hint("send the `fence` of the last of the `holders`")
    })
}

fn number(text: &str, letter: char) -> Result<u64, Diagnostic> {
    text.trim_start_matches(letter).parse().map_err(|_| {
        Diagnostic::new(Code::Usage, format!("`{}` is no id", text.escape_debug()))
            .hint(format!("an id looks like {letter}42"))
    })
}

/// How many rights one answer lists, unless told otherwise.
const PAGE: u32 = 1_000;

/// The longest wait that a request can ask for.
const WAIT_MAX: Duration = Duration::from_secs(120);
