//! The one thread that starts children.
//!
//! A child asks the kernel to be killed when its parent ends, and the kernel takes the *thread* that started it for the
//! parent. A worker thread of a runtime may end at any time, and would take the cluster with it; this thread never ends.
//!
//! # Invariants
//!
//! * Every child is started by this thread, which lives as long as the process.

use std::io;
use std::process::{Child, Command};
use std::sync::{Mutex, OnceLock, mpsc};

/// Starts a child from the thread that lives as long as this process.
pub(super) fn spawn(command: Command) -> io::Result<Child> {
    let (answer, answered) = mpsc::channel();
    orders()
        .lock()
        .expect("nothing can panic while it is held")
        .send(Order { command, answer })
        .expect("the thread never ends");
    answered.recv().expect("the thread answers every order")
}

/// Starts the thread, unless it runs. What its children inherit (a network namespace for example) is what the caller of
/// this has now.
pub(super) fn start() {
    orders();
}

fn orders() -> &'static Mutex<mpsc::Sender<Order>> {
    static ORDERS: OnceLock<Mutex<mpsc::Sender<Order>>> = OnceLock::new();
    ORDERS.get_or_init(|| {
        let (sender, receiver) = mpsc::channel::<Order>();
        std::thread::Builder::new()
            .name("launcher".into())
            .spawn(move || {
                for mut order in receiver {
                    // Whoever gave the order may have gone; the child is killed then, for nobody would end it.
                    if let Err(mpsc::SendError(Ok(mut child))) = order.answer.send(order.command.spawn()) {
                        let _ = child.kill().and_then(|()| child.wait());
                    }
                }
            })
            .expect("a process that cannot start a thread cannot do anything");
        Mutex::new(sender)
    })
}

struct Order {
    command: Command,
    answer: mpsc::Sender<io::Result<Child>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_is_an_error_of_the_caller() {
        assert_eq!(spawn(Command::new("/no/such/program")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_child_outlives_the_thread_that_asked_for_it() {
        let mut command = Command::new("cat");
        command.stdin(std::process::Stdio::piped());
        let mut child =
            std::thread::spawn(move || spawn(command)).join().expect("it does not panic").expect("cat is there");
        assert!(child.try_wait().expect("it can be asked").is_none());
        drop(child.stdin.take());
        assert!(child.wait().expect("it ends").success());
    }
}
