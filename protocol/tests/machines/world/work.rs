//! What clients ask, and what they must hear.

use super::*;

impl World {
    pub(super) fn work(&mut self) {
        let names = self.awake();
        if let Some(&name) = self.dice.pick(&names) {
            self.call(name);
        }
        if self.now < START + WORK_UNTIL {
            let span = Duration::from_millis(1 + self.dice.below(80));
            self.at(span, Happening::Work);
        }
    }

    pub(super) fn call(&mut self, name: NodeId) {
        self.last_call += 1;
        self.counts.calls += 1;
        let call = self.last_call;
        let (record, work) = match self.dice.below(6) {
            0 | 1 => {
                let specs: Vec<TaskSpec> = (0..=self.dice.below(4)).map(|_| self.spec()).collect();
                (Call::Submit(specs.clone()), Work::Write(Operation::Submit(specs)))
            }
            2 | 3 => {
                let key = format!("key{call}");
                let put = Operation::Put(Put::new(key.clone(), "v"));
                (Call::Put(key), Work::Write(put))
            }
            4 => {
                let task = TaskId(1 + self.dice.below(call));
                (Call::Other, Work::Write(Operation::Cancel { task, reason: "chance".into() }))
            }
            _ => {
                let task = TaskId(1 + self.dice.below(call));
                (Call::Other, Work::Read(Query::Await(task), Consistency::Linearizable))
            }
        };
        self.calls.insert((name, call), record);
        let timeout = Duration::from_millis(if self.dice.one_in(4) { self.dice.below(500) } else { 20_000 });
        self.step(name, Local::Client(client::Input::Call { call, work, timeout }));
    }

    pub(super) fn spec(&mut self) -> TaskSpec {
        let mut spec = TaskSpec { backoff: 50 * MS, ..TaskSpec::new("echo", Bytes::from_static(b"x")) };
        if self.dice.one_in(3) {
            spec.delivery = Delivery::AtMostOnce;
            spec.retries = 0;
        }
        if self.dice.one_in(10) {
            spec.timeout = Duration::from_millis(1 + self.dice.below(200));
        }
        spec
    }

    pub(super) fn completed(&mut self, name: NodeId, call: u64, result: Result<Answer, CallError>) {
        let record = self.calls.remove(&(name, call)).expect("a call is answered once");
        self.counts.unanswered += u64::from(result.is_err());
        match (record, result) {
            (Call::Put(key), Ok(Answer::Written(revision))) => {
                let Answer::Value { found: Some(value), .. } = self.log.state.query(&Query::Get(key.clone())) else {
                    panic!("{key} was acknowledged and is lost");
                };
                assert_eq!((value.created, value.modified), (revision, revision), "{key} was written twice");
            }
            (Call::Put(key), Err(error)) if is_certain(&error) => {
                let answer = self.log.state.query(&Query::Get(key.clone()));
                assert!(
                    matches!(answer, Answer::Value { found: None, .. }),
                    "{key} was certainly not written: {error}"
                );
            }
            (Call::Submit(specs), Ok(Answer::Submitted(tasks))) => {
                assert_eq!(specs.len(), tasks.len());
                for Submitted { task, .. } in tasks {
                    assert!(self.log.state.task_state(task).is_some(), "{task} was acknowledged and is lost");
                }
            }
            (_, Ok(Answer::Refused(refused))) => {
                assert!(
                    !matches!(refused, protocol::state::Refused::Stale(_)),
                    "a call meets its own trace: {refused}"
                );
            }
            _ => {}
        }
    }
}

fn is_certain(error: &CallError) -> bool {
    match error {
        CallError::Deadline { maybe_applied, .. } | CallError::SessionExpired { maybe_applied } => !maybe_applied,
        CallError::Busy => true,
    }
}
