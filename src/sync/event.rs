//! An event: who arms a listener before looking is woken by what happens after, whichever thread or runtime waits.
//!
//! A notification wakes all. It costs a lock where nobody sleeps, and one system call where threads do; it is no longer locked when they
//! wake, so that they run at once.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::{Arc, Condvar, Mutex, lock, wait, wait_until};

#[derive(Debug)]
pub(crate) struct Event(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    notifications: u64,
    /// Threads that sleep, and that nobody has woken yet.
    asleep: usize,
    /// Tasks that wait, by the number of their listener.
    tasks: Vec<(u64, Waker)>,
    /// Listeners that were numbered so far.
    numbered: u64,
}

/// Armed when it is made: each notification after that ends its waiting.
#[derive(Debug)]
pub(crate) struct EventListener {
    shared: Arc<Shared>,
    armed_at: u64,
    /// Of one that a task has waited with.
    number: Option<u64>,
}

impl Event {
    pub(crate) fn new() -> Event {
        Event(Arc::new(Shared {
            state: Mutex::new(State::default()),
            changed: Condvar::new(),
        }))
    }

    pub(crate) fn listen(&self) -> EventListener {
        EventListener {
            shared: Arc::clone(&self.0),
            armed_at: lock(&self.0.state).notifications,
            number: None,
        }
    }

    /// Wakes all who listen.
    pub(crate) fn notify(&self) {
        drop(self.notify_threads());
    }

    /// Wakes the threads that listen, and the tasks once what it gives is dropped. Their wakers are other people's code, which may do anything.
    #[must_use]
    pub(crate) fn notify_threads(&self) -> Woken {
        let mut state = lock(&self.0.state);
        state.notifications += 1;
        let is_any_asleep = std::mem::take(&mut state.asleep) > 0;
        let tasks = std::mem::take(&mut state.tasks);
        drop(state);
        if is_any_asleep {
            self.0.changed.notify_all();
        }
        Woken(tasks)
    }
}

/// Tasks that are woken when this is dropped: also where the waker of one of them panics.
pub(crate) struct Woken(Vec<(u64, Waker)>);

impl Woken {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Drop for Woken {
    fn drop(&mut self) {
        while let Some((_, task)) = self.0.pop() {
            let rest = Woken(std::mem::take(&mut self.0));
            task.wake();
            *self = rest;
        }
    }
}

impl EventListener {
    /// Waits for a notification.
    pub(crate) fn wait(self) {
        self.sleep(None);
    }

    /// Waits for a notification until then. False if there was none.
    pub(crate) fn wait_deadline(self, deadline: Instant) -> bool {
        self.sleep(Some(deadline))
    }

    /// Waits for a notification so long. False if there was none.
    pub(crate) fn wait_timeout(self, timeout: Duration) -> bool {
        self.sleep(Instant::now().checked_add(timeout))
    }

    fn sleep(self, deadline: Option<Instant>) -> bool {
        let mut state = lock(&self.shared.state);
        while state.notifications == self.armed_at {
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return false;
            }
            state.asleep += 1;
            state = match deadline {
                Some(deadline) => wait_until(&self.shared.changed, state, deadline),
                None => wait(&self.shared.changed, state),
            };
            if state.notifications == self.armed_at {
                state.asleep -= 1;
            }
        }
        true
    }
}

impl Future for EventListener {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let (listener, task) = (self.get_mut(), context.waker().clone());
        let mut state = lock(&listener.shared.state);
        if state.notifications != listener.armed_at {
            return Poll::Ready(());
        }
        let number = *listener.number.get_or_insert_with(|| {
            state.numbered += 1;
            state.numbered
        });
        let before = state.forget(number);
        state.tasks.push((number, task));
        drop(state);
        drop(before);
        Poll::Pending
    }
}

impl State {
    /// Gives the waker, to be dropped without the lock: with it may go a task, and that task's listeners.
    fn forget(&mut self, number: u64) -> Option<Waker> {
        let place = self.tasks.iter().position(|(known, _)| *known == number)?;
        Some(self.tasks.swap_remove(place).1)
    }
}

/// A task that no longer waits is forgotten.
impl Drop for EventListener {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let forgotten = lock(&self.shared.state).forget(number);
            drop(forgotten);
        }
    }
}

#[cfg(all(test, not(clusdb_loom)))]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn what_is_notified_before_a_listener_is_armed_does_not_end_its_waiting_and_what_comes_after_does() {
        let event = Event::new();
        event.notify();
        let (late, armed) = (event.listen(), event.listen());
        assert!(!late.wait_timeout(Duration::from_millis(1)));
        event.notify();
        armed.wait();
        assert!(!event.listen().wait_deadline(Instant::now()));
    }

    #[test]
    fn all_threads_that_sleep_are_woken() {
        let event = Event::new();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let listener = event.listen();
                scope.spawn(|| listener.wait());
            }
            while lock(&event.0.state).asleep < 4 {
                std::thread::yield_now();
            }
            event.notify();
        });
        assert_eq!(lock(&event.0.state).asleep, 0);
    }

    #[test]
    fn a_task_is_woken_once_by_its_last_waker_and_one_that_gave_up_is_forgotten() {
        let event = Event::new();
        let [first, second, third] = [(); 3].map(|()| Arc::new(Count::default()));
        let poll = |listener: &mut EventListener, woken: &Arc<Count>| {
            let waker = Waker::from(Arc::clone(woken));
            Pin::new(listener).poll(&mut Context::from_waker(&waker))
        };
        let (mut waits, mut gives_up) = (event.listen(), event.listen());
        assert!(poll(&mut waits, &first).is_pending());
        assert!(poll(&mut waits, &second).is_pending());
        assert!(poll(&mut gives_up, &third).is_pending());
        drop(gives_up);
        assert_eq!(lock(&event.0.state).tasks.len(), 1);
        event.notify();
        let counts = [&first, &second, &third].map(|woken| woken.0.load(Ordering::SeqCst));
        assert_eq!(counts, [0, 1, 0]);
        assert!(poll(&mut waits, &first).is_ready());
        drop(waits);
        assert!(lock(&event.0.state).tasks.is_empty());
    }

    struct Panics;

    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("a waker's panic, on purpose");
        }
    }

    #[test]
    fn the_other_tasks_are_woken_although_the_waker_of_one_panics() {
        let (event, count) = (Event::new(), Arc::new(Count::default()));
        let wakers = [
            Waker::from(Arc::clone(&count)),
            Waker::from(Arc::new(Panics)),
            Waker::from(Arc::clone(&count)),
        ];
        let mut listeners = wakers.each_ref().map(|_| event.listen());
        for (listener, waker) in listeners.iter_mut().zip(&wakers) {
            let polled = Pin::new(listener).poll(&mut Context::from_waker(waker));
            assert!(polled.is_pending());
        }
        let notifies = std::panic::AssertUnwindSafe(|| event.notify());
        std::panic::catch_unwind(notifies).unwrap_err();
        assert_eq!(count.0.load(Ordering::SeqCst), 2);
    }
}
