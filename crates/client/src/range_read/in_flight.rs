//! What a read waits for: a few requests, driven by the reading task itself.
//!
//! A read has one request on its way while all is well, and a handful when something is wrong. A task for each would
//! cost two wake-ups across threads, which is half of what a short range costs altogether; so they are polled in place,
//! all of them at every turn.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

/// Ends something that is in flight. It is dropped at the next turn, or with the read.
#[derive(Debug, Clone)]
pub(super) struct Ticket(Arc<AtomicBool>);

impl Ticket {
    pub(super) fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

type Pending<E> = Pin<Box<dyn Future<Output = E> + Send>>;

/// Futures that give events. Dropping it ends them all.
pub(super) struct InFlight<E>(Vec<(Ticket, Pending<E>)>);

impl<E> InFlight<E> {
    pub(super) fn new() -> InFlight<E> {
        InFlight(Vec::new())
    }

    pub(super) fn start(&mut self, future: impl Future<Output = E> + Send + 'static) -> Ticket {
        let ticket = Ticket(Arc::default());
        self.0.push((ticket.clone(), Box::pin(future)));
        ticket
    }

    /// Whether there is nothing to wait for.
    pub(super) fn is_empty(&mut self) -> bool {
        self.0.retain(|(ticket, _)| !ticket.is_cancelled());
        self.0.is_empty()
    }

    /// The next event; never, when nothing is in flight.
    pub(super) async fn next(&mut self) -> E {
        poll_fn(|context| {
            self.0.retain(|(ticket, _)| !ticket.is_cancelled());
            let ready = self.0.iter_mut().enumerate().find_map(|(position, (_, future))| {
                match future.as_mut().poll(context) {
                    Poll::Ready(event) => Some((position, event)),
                    Poll::Pending => None,
                }
            });
            match ready {
                Some((position, event)) => {
                    drop(self.0.swap_remove(position));
                    Poll::Ready(event)
                }
                None => Poll::Pending,
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::InFlight;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn events_come_as_they_are_ready_and_cancelled_ones_never() {
        let mut flight = InFlight::new();
        let (slow, waiting) = oneshot::channel();
        flight.start(async { waiting.await.unwrap() });
        let (dropped, gone) = oneshot::channel::<u32>();
        let ticket = flight.start(async { gone.await.unwrap() });
        flight.start(async { 2 });
        assert_eq!(flight.next().await, 2);
        ticket.cancel();
        assert!(!flight.is_empty());
        assert!(dropped.is_closed(), "what was cancelled is dropped");
        slow.send(1).unwrap();
        assert_eq!(flight.next().await, 1);
        assert!(flight.is_empty());
    }
}
