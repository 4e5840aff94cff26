//! What chance breaks, and what comes back: nodes and links.

use super::*;

impl World {
    pub(super) fn fault(&mut self) {
        if !self.has_faults() {
            return;
        }
        let names: Vec<NodeId> = self.nodes.keys().copied().collect();
        let &name = self.dice.pick(&names).expect("there are nodes");
        match self.dice.below(5) {
            4 => self.pause(name),
            0 => self.crash(name),
            1 | 2 => {
                let peer = *self.dice.pick(&self.others(name)).expect("there are others");
                self.counts.cuts += 1;
                if self.links.contains_key(&pair(name, peer)) {
                    self.break_link(name, peer);
                    let span = Duration::from_millis(self.dice.below(5000));
                    self.at(span, Happening::LinkUp { a: name, b: peer });
                }
            }
            _ => {
                self.depose();
                let longest = if self.dice.one_in(5) { 5000 } else { 800 };
                let span = Duration::from_millis(self.dice.below(longest));
                self.at(span, Happening::Elect);
            }
        }
        let span = Duration::from_millis(100 + self.dice.below(2000));
        self.at(span, Happening::Fault);
    }

    pub(super) fn crash(&mut self, name: NodeId) {
        let node = self.nodes.get_mut(&name).expect("known");
        if !node.is_up {
            return;
        }
        self.counts.crashes += 1;
        node.is_up = false;
        let incarnation = node.incarnation;
        self.handlers.retain(|&(handler, ..)| handler != name);
        let gone: Vec<(NodeId, u64)> = self.calls.keys().copied().filter(|&(caller, _)| caller == name).collect();
        for call in gone {
            self.calls.remove(&call);
        }
        for peer in self.others(name) {
            if self.links.contains_key(&pair(name, peer)) {
                self.break_link(name, peer);
            }
        }
        if self.dice.below(4) > 0 {
            self.at(2 * MS, Happening::Evidence { node: name, incarnation });
        }
        if self.log.leader == Some(name) {
            self.depose();
            let span = Duration::from_millis(500 + self.dice.below(500));
            self.at(span, Happening::Elect);
        }
        let span = Duration::from_millis(10 + self.dice.below(5000));
        self.at(span, Happening::Restart(name));
    }

    /// A stopped process: whoever leads meanwhile, it goes on where it stood.
    pub(super) fn pause(&mut self, name: NodeId) {
        let span = Duration::from_millis(if self.dice.one_in(2) { 4000 } else { 0 } + self.dice.below(3000));
        let node = self.nodes.get_mut(&name).expect("known");
        node.paused_until = node.paused_until.max(self.now + span);
        self.counts.pauses += 1;
        if self.log.leader == Some(name) && span > 500 * MS {
            self.depose();
            self.at(700 * MS, Happening::Elect);
        }
    }

    pub(super) fn restart(&mut self, name: NodeId) {
        let node = self.machines(name, self.nodes[&name].incarnation.next());
        self.nodes.insert(name, node);
        for peer in self.others(name) {
            let span = Duration::from_millis(1 + self.dice.below(20));
            self.at(span, Happening::LinkUp { a: name, b: peer });
        }
    }

    pub(super) fn make_link(&mut self, a: NodeId, b: NodeId) {
        if self.links.contains_key(&pair(a, b)) || !self.nodes[&a].is_up || !self.nodes[&b].is_up {
            return;
        }
        self.happened += 1;
        self.links.insert(pair(a, b), self.happened);
        for (one, other) in [(a, b), (b, a)] {
            let incarnation = self.nodes[&other].incarnation;
            self.hand_over_all(one, route::link_up(other, incarnation, true));
        }
        // Some links do not live long.
        if self.has_faults() && self.dice.one_in(5) {
            let link = self.links[&pair(a, b)];
            self.at(Duration::from_millis(self.dice.clone().below(50)), Happening::LinkDown { a, b, link });
            let span = Duration::from_millis(60 + self.dice.below(500));
            self.at(span, Happening::LinkUp { a, b });
        }
    }

    pub(super) fn break_link(&mut self, a: NodeId, b: NodeId) {
        self.links.remove(&pair(a, b));
        for (one, other) in [(a, b), (b, a)] {
            let incarnation = self.nodes[&other].incarnation;
            self.hand_over_all(one, route::link_down(other, incarnation, true));
        }
    }

    pub(super) fn awake(&self) -> Vec<NodeId> {
        let is_awake = |node: &Node| node.is_up && node.paused_until <= self.now;
        self.nodes.iter().filter(|(_, node)| is_awake(node)).map(|(&name, _)| name).collect()
    }

    pub(super) fn others(&self, name: NodeId) -> Vec<NodeId> {
        self.nodes.keys().copied().filter(|&other| other != name).collect()
    }
}
