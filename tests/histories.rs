//! Keys, tasks and locks under fire: what several clients saw while masters died must be what one register per key, one task
//! per id and one lock per name could have answered.

use crate::support::{Clients, Lockers, Submitters, TestCluster};

#[test]
fn what_clients_see_of_keys_tasks_and_locks_while_masters_die_is_linearizable() {
    let mut cluster = TestCluster::start();
    let clients = Clients::start(&cluster);
    let submitters = Submitters::start(&cluster);
    let lockers = Lockers::start(&cluster);
    let (mut master, mut epoch) = cluster.master_after(0);
    for harm in [Harm::Kill, Harm::Pause, Harm::Kill] {
        clients.go_on(&cluster, 60);
        match harm {
            Harm::Kill => cluster.processes.kill(master),
            Harm::Pause => cluster.processes.pause(master),
        }
        let next = cluster.master_after(epoch);
        clients.go_on(&cluster, 60);
        match harm {
            Harm::Kill => cluster.processes.restart(master).expect("it starts again"),
            Harm::Pause => cluster.processes.resume(master),
        }
        cluster.ready();
        (master, epoch) = next;
        if !cluster.status(master).is_some_and(|status| status["role"] == "leader") {
            (master, epoch) = cluster.master_after(0);
        }
    }
    clients.check(&cluster);
    submitters.check(&cluster);
    lockers.check(&cluster);
}

enum Harm {
    Kill,
    Pause,
}
