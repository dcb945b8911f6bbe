//! A plan played before it runs: what every recipient would get when, why somebody gets nothing, when it ends and what it
//! costs.
//!
//! Three steps: [`gather()`] reads everything in a few statements, [`Gathered::play`] is arithmetic over all of it and may
//! take a second (call it where nobody waits for the thread), [`Played::page`] puts texts to what is shown. The questions are those
//! of the real run: who is taken in is asked as enrolling does, what speaks against a message as the gate does
//! ([`objections`](super::checks::objections)), time and caps by the rehearsal with the gate's own question; texts are rendered
//! and held against the organisation's sensitive words as they are for sending.
//!
//! What cannot be known before: the id of an enrollment does not exist yet, so the contact's own stands for it, and another arm
//! of a split may be drawn later; nobody answers but the share that is assumed; other campaigns are counted with what they have
//! sent and have in their lanes, not with what they will send; an account that is offline stays so; what a model writes; how
//! long a person takes who must look at a text: it is sent as if that were no time at all.
//!
//! | module | what it owns |
//! |---|---|
//! | `gather` | everything that must be known |
//! | `play` | everybody's way through the plan |
//! | `texts` | what its steps say to them |
//! | `accounts` | the accounts' pace and limits |
//! | `costs` | what models cost |
//! | `played` | what was found |

mod accounts;
mod costs;
mod gather;
mod play;
mod played;
mod texts;

pub use self::costs::{Bill, Rate};
pub use self::gather::{Gathered, MOST, Question, TooMany, draft, gather};
pub use self::played::{AccountLoad, Item, Played};
