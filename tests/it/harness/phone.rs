//! A provider inside this process, for tests of attempts without any process.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use entropy_jobs::message::Message;
use entropy_jobs::provider::{Device, ErrorClass, MessageSender, SendError, Sent};
use entropy_jobs::services::FloodGuard;
use futures::FutureExt;
use futures::future::BoxFuture;

/// Takes everything and remembers it, unless it was told to refuse.
#[derive(Debug, Default)]
pub(crate) struct Phone {
    received: Mutex<Vec<(String, String)>>,
    refuses: Mutex<bool>,
}

impl Phone {
    /// Returns what was sent: to whom, and what it says.
    pub(crate) fn received(&self) -> Vec<(String, String)> {
        self.received.lock().expect("the phone").clone()
    }

    /// From now on everything is refused, or nothing any more.
    pub(crate) fn refuse(&self, all: bool) {
        *self.refuses.lock().expect("the phone") = all;
    }
}

impl MessageSender for Phone {
    fn send<'a>(
        &'a self,
        _: &'a Device,
        to_wxid: &'a str,
        message: &'a Message,
        _: Instant,
        _: &'a str,
    ) -> BoxFuture<'a, Result<Sent, SendError>> {
        if *self.refuses.lock().expect("the phone") {
            let error = SendError {
                class: ErrorClass::Refused,
                code: "gewe_refused",
                message: "refused".to_owned(),
                detail: None,
            };
            return async { Err(error) }.boxed();
        }
        let mut received = self.received.lock().expect("the phone");
        received.push((to_wxid.to_owned(), message.readable().to_owned()));
        let new_msg_id = format!("90071992547409{:04}", received.len());
        async { Ok(Sent { msg_id: None, new_msg_id, create_time: None }) }.boxed()
    }

    fn check_online<'a>(&'a self, _: &'a Device, _: &'a str) -> BoxFuture<'a, Result<bool, SendError>> {
        async { Ok(true) }.boxed()
    }
}

impl FloodGuard for Phone {
    fn check(&self, _: &str) -> Result<(), Duration> {
        Ok(())
    }
}
