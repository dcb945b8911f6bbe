//! Answers for which nobody came: drafts whose time has passed, turns whose job or whose messages have ended without an
//! answer, and calls of the model whose end nobody has written. People are asked instead, and every call is booked.

use diesel_async::AsyncConnection;
use entropy_schema::abandoned::{self, Turn};
use entropy_schema::{Conn, Db, Error, drafts, replies};

use super::ending;
use super::prepare::hand_off;
use crate::step;

/// Rows that one pass looks at.
const BATCH: i64 = 100;

/// Hands off what is overdue, each in a transaction of its own. Any number of processes may do so at once.
pub async fn pass(db: &Db) -> entropy_schema::Result<()> {
    let mut conn = db.conn().await?;
    for draft in drafts::overdue(&mut conn, BATCH).await? {
        conn.transaction(async |conn| {
            let (organization, conversation) = (draft.organization_id, draft.conversation_id);
            let chat = replies::lock_chat(conn, organization, conversation).await?;
            let turn = replies::lock_turn(conn, organization, conversation, draft.turn_id).await?;
            if !drafts::expire(conn, draft.id).await? {
                return Ok(());
            }
            let waits = turn.as_ref().is_some_and(|turn| turn.state == "review" && turn.run == draft.run);
            if chat.is_some() && waits {
                let note =
                    "nobody decided about an answer of the AI in time; a person should answer this customer";
                let _ = hand_off(conn, organization, conversation, "draft_expired", note).await?;
            }
            Ok::<_, Error>(())
        })
        .await?;
    }
    for run in abandoned::runs(&mut conn, BATCH).await? {
        conn.transaction(async |conn| ending::given_up(conn, &run).await).await?;
    }
    for turn in abandoned::turns(&mut conn, BATCH).await? {
        conn.transaction(async |conn| {
            end(conn, &turn).await?;
            step!("overdue.written");
            Ok::<_, Error>(())
        })
        .await?;
        step!("overdue.committed");
    }
    Ok(())
}

/// Ends a turn that waits in vain: what was called off is dropped, about everything else a person is asked.
async fn end(conn: &mut Conn, found: &Turn) -> Result<(), Error> {
    let (organization, conversation) = (found.organization_id, found.conversation_id);
    let chat = replies::lock_chat(conn, organization, conversation).await?;
    let waits = async |conn: &mut Conn| -> Result<bool, Error> {
        let turn = replies::lock_turn(conn, organization, conversation, found.turn_id).await?;
        Ok(turn.is_some_and(|turn| {
            turn.run == found.run && turn.state == found.state && turn.job_id == found.job_id
        }))
    };
    if chat.is_none() || !waits(conn).await? {
        return Ok(());
    }
    match found.called_off.as_deref() {
        // Its time passed before it could be sent: nobody wanted that.
        None | Some("expired") => {}
        Some(code) => return replies::set_turn(conn, found.turn_id, "dropped", Some(code)).await,
    }
    let note = match found.state.as_str() {
        "answering" => "the answer could not be sent in time; a person should answer this customer",
        _ => "the job that was to answer died; a person should answer this customer",
    };
    let _ = hand_off(conn, organization, conversation, "answer_failed", note).await?;
    // Where people answer already, handing off closes nothing.
    if waits(conn).await? {
        replies::set_turn(conn, found.turn_id, "dropped", Some("answer_failed")).await?;
    }
    Ok(())
}
