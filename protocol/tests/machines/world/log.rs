//! The one perfect log: what is asked of it, what it decides, and who leads it.

use super::*;

impl World {
    pub(super) fn replica(&mut self, name: NodeId, input: replica::Input) {
        match input {
            replica::Input::Propose { epoch, commands } | replica::Input::Placed { epoch, commands } => {
                if self.log.leader != Some(name)
                    || self.log.epoch != epoch
                    || (self.has_faults() && self.dice.one_in(50))
                {
                    self.hand_over(name, Local::Master(master::Input::Dropped { epoch }));
                    return;
                }
                self.log.batch.extend(commands.into_iter().map(|command| (command, None)));
                self.commit_soon();
            }
            replica::Input::Request { request, .. } => self.request(name, request),
            _ => {}
        }
    }

    pub(super) fn request(&mut self, name: NodeId, request: Request) {
        let Request { origin, body, .. } = request;
        if self.log.leader != Some(name) {
            self.respond(name, origin, Err(Denied::NotMaster));
            return;
        }
        if self.has_faults() && self.dice.one_in(100) {
            self.respond(name, origin, Err(Denied::Busy));
            return;
        }
        let command = match body {
            RequestBody::Register { ttl } => Command::Register { ttl },
            RequestBody::Renew { sessions, heard } => {
                if let Some((session, first_incomplete)) = heard {
                    self.log.batch.push((Command::Heard { session, first_incomplete }, None));
                }
                Command::Renew { sessions }
            }
            RequestBody::Write { session, seq, first_incomplete, operation } => {
                if let Operation::Submit(tasks) = &operation {
                    self.announce(name, session, seq, tasks);
                }
                Command::Client { session, seq, first_incomplete, operation }
            }
            RequestBody::Read { query, .. } => {
                let answer = self.log.state.query(&query);
                match (&query, &answer) {
                    (Query::Await(task), Answer::Task(view)) if !view.state.is_final() => {
                        self.log.awaiting.insert((*task, origin));
                    }
                    _ => self.respond(name, origin, Ok(answer)),
                }
                return;
            }
            RequestBody::HandOver { .. } => return self.respond(name, origin, Ok(Answer::Ok)),
        };
        self.log.batch.push((command, Some(origin)));
        self.commit_soon();
    }

    /// Tells the master of tasks that are about to be recorded; where the log is slow, its answer comes in time.
    pub(super) fn announce(&mut self, name: NodeId, client: SessionId, seq: Seq, tasks: &[TaskSpec]) {
        let coming = tasks.iter().zip(0..).map(|(task, place)| master::Coming {
            ticket: Ticket { client, seq, place },
            kind: task.kind.clone(),
            needs: task.needs.clone(),
            priority: task.priority,
        });
        let (epoch, tasks) = (self.log.epoch, coming.collect());
        self.hand_over(name, Local::Master(master::Input::Submitting { epoch, tasks }));
    }

    pub(super) fn respond(&mut self, name: NodeId, origin: Origin, result: Result<Answer, Denied>) {
        if self.nodes[&name].is_up {
            let leader = self.log.leader;
            self.send(name, origin.node, Response { origin, leader, result }.into());
        }
    }

    pub(super) fn commit_soon(&mut self) {
        if !self.log.is_committing {
            self.log.is_committing = true;
            let slow = if self.dice.one_in(100) { 400 } else { 5 };
            let span = Duration::from_micros(200 + self.dice.below(slow * 1000));
            self.at(span, Happening::Commit);
        }
    }

    pub(super) fn log_time(&self) -> ClusterTime {
        let (base, since) = self.log.base;
        (base + self.now.since(since)).max(self.log.state.time())
    }

    pub(super) fn commit(&mut self) {
        self.log.is_committing = false;
        let Some(leader) = self.log.leader else { return };
        let batch = std::mem::take(&mut self.log.batch);
        if batch.is_empty() {
            return;
        }
        let time = self.log_time();
        let mut changes = Vec::new();
        for (command, origin) in batch {
            let answer = self.log.state.apply(time, &command, &mut changes);
            if let Some(origin) = origin {
                self.respond(leader, origin, Ok(answer));
            }
        }
        self.check_changes(&changes);
        self.answer_ended(leader, &changes);
        let epoch = self.log.epoch;
        self.hand_over(leader, Local::Master(master::Input::Applied { epoch, time, changes }));
    }

    pub(super) fn answer_ended(&mut self, leader: NodeId, changes: &[ClusterChange]) {
        for change in changes {
            let ClusterChange::Ended { task, .. } = *change else { continue };
            let waiting: Vec<(TaskId, Origin)> =
                self.log.awaiting.iter().copied().filter(|&(awaited, _)| awaited == task).collect();
            for key in waiting {
                self.log.awaiting.remove(&key);
                let answer = self.log.state.query(&Query::Task(task));
                self.respond(leader, key.1, Ok(answer));
            }
        }
    }

    /// No worker believes in a session that has expired: all clocks here run alike.
    pub(super) fn check_changes(&mut self, changes: &[ClusterChange]) {
        for change in changes {
            match *change {
                ClusterChange::NodeEnded { session, node } => {
                    let node = &self.nodes[&node];
                    let is_awake = node.is_up && node.paused_until + 50 * MS < self.now;
                    assert!(
                        !is_awake || node.worker.session() != Some(session),
                        "a session has ended before its worker knew"
                    );
                }
                ClusterChange::Ended { task, .. } => {
                    let state = self.log.state.task_state(task).expect("it is kept for an hour");
                    assert!(state.is_final());
                    self.counts.lost += u64::from(matches!(state, TaskState::Lost { .. }));
                }
                _ => {}
            }
        }
    }

    /// Somebody else leads. What was not committed is gone, or committed by the successor without an answer.
    pub(super) fn elect(&mut self) {
        self.depose();
        let candidates: Vec<NodeId> = self.awake().into_iter().collect();
        let Some(&leader) = self.dice.pick(&candidates) else {
            self.at(100 * MS, Happening::Elect);
            return;
        };
        self.counts.epochs += 1;
        self.log.epoch = Epoch(self.log.epoch.0 + 1 + self.dice.below(2));
        self.log.leader = Some(leader);
        self.log.base = (self.log.state.time(), self.now);
        let mut changes = Vec::new();
        self.log.state.begin_epoch(self.log_time(), &mut changes);
        let view = self.log.state.master_view(self.log.epoch);
        self.hand_over(leader, Local::Master(master::Input::Begin(Box::new(view))));
    }

    pub(super) fn depose(&mut self) {
        let Some(leader) = self.log.leader.take() else { return };
        let batch = std::mem::take(&mut self.log.batch);
        let survives = self.dice.one_in(2);
        let time = (self.log.base.0 + self.now.since(self.log.base.1)).max(self.log.state.time());
        let mut changes = Vec::new();
        for (command, origin) in batch {
            if survives {
                self.log.state.apply(time, &command, &mut changes);
            }
            if let Some(origin) = origin {
                self.respond(leader, origin, Err(if survives { Denied::Unknown } else { Denied::NotMaster }));
            }
        }
        for (_, origin) in std::mem::take(&mut self.log.awaiting) {
            self.respond(leader, origin, Err(Denied::NotMaster));
        }
        self.check_changes(&changes);
        // The old master may not hear of it for a while.
        let epoch = self.log.epoch;
        let incarnation = self.nodes[&leader].incarnation;
        let local = Local::Master(master::Input::End { epoch });
        let span = Duration::from_millis(self.dice.below(600));
        self.at(span, Happening::Local { node: leader, incarnation, local });
    }
}
