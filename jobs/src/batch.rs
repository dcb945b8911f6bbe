//! Group commit: concurrent callers share one statement.
//!
//! Nothing is delayed on purpose. A call that finds the batcher idle goes out at once; calls that arrive while a batch
//! is under way make up the next one.

use std::future::Future;

use tokio::sync::{mpsc, oneshot};

/// Hands calls to a task that carries them out in batches.
pub struct Batcher<I, O> {
    calls: mpsc::Sender<Call<I, O>>,
}

struct Call<I, O> {
    input: I,
    answer: oneshot::Sender<O>,
}

impl<I, O> Clone for Batcher<I, O> {
    fn clone(&self) -> Self {
        Batcher { calls: self.calls.clone() }
    }
}

impl<I: Send + 'static, O: Send + 'static> Batcher<I, O> {
    /// Starts a batcher that passes up to `most` inputs at a time to `run`.
    ///
    /// `run` answers with one output per input, in their order. The task ends when the last clone is dropped.
    pub fn start<F, Fut>(most: usize, run: F) -> Batcher<I, O>
    where
        F: Fn(Vec<I>) -> Fut + Send + 'static,
        Fut: Future<Output = Vec<O>> + Send,
    {
        let (calls, mut waiting) = mpsc::channel::<Call<I, O>>(most * 4);
        tokio::spawn(async move {
            let mut batch = Vec::with_capacity(most);
            while waiting.recv_many(&mut batch, most).await > 0 {
                let (inputs, answers): (Vec<I>, Vec<_>) =
                    batch.drain(..).map(|call| (call.input, call.answer)).unzip();
                for (output, answer) in run(inputs).await.into_iter().zip(answers) {
                    // A caller that has gone away does not need its answer.
                    let _ = answer.send(output);
                }
            }
        });
        Batcher { calls }
    }

    /// Passes `input` on and waits for its output. None: the batcher's task is gone, or it ended without an answer.
    pub async fn call(&self, input: I) -> Option<O> {
        let (answer, output) = oneshot::channel();
        self.calls.send(Call { input, answer }).await.ok()?;
        output.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn calls_that_arrive_during_a_batch_share_the_next_one() {
        let batches = Arc::new(AtomicUsize::new(0));
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let (seen, entered) = (batches.clone(), gate.clone());
        let batcher = Batcher::start(100, move |inputs: Vec<u32>| {
            seen.fetch_add(1, Ordering::SeqCst);
            let entered = entered.clone();
            async move {
                entered.acquire().await.expect("open").forget();
                inputs.into_iter().map(|n| n * 2).collect()
            }
        });
        let calls: Vec<_> = (0..50_u32)
            .map(|n| {
                let batcher = batcher.clone();
                tokio::spawn(async move { batcher.call(n).await })
            })
            .collect();
        gate.add_permits(50);
        for (n, call) in calls.into_iter().enumerate() {
            assert_eq!(call.await.expect("no panic"), Some(n as u32 * 2));
        }
        assert!(batches.load(Ordering::SeqCst) < 50, "the calls went out one by one");
    }
}
