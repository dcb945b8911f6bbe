//! Answers for which nobody came: drafts whose time has passed, and turns whose job died. People are asked instead.

use diesel_async::AsyncConnection;
use entropy_schema::{Conn, Db, Error, drafts, replies};

use super::prepare::hand_off;

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
    for turn in replies::abandoned(&mut conn, BATCH).await? {
        conn.transaction(async |conn| abandoned(conn, &turn).await).await?;
    }
    Ok(())
}

async fn abandoned(conn: &mut Conn, found: &replies::Abandoned) -> Result<(), Error> {
    let (organization, conversation) = (found.organization_id, found.conversation_id);
    let chat = replies::lock_chat(conn, organization, conversation).await?;
    let turn = replies::lock_turn(conn, organization, conversation, found.turn_id).await?;
    let waits =
        turn.is_some_and(|turn| turn.run == found.run && matches!(turn.state.as_str(), "open" | "replying"));
    if chat.is_some() && waits {
        let note = "the job that was to answer died; a person should answer this customer";
        let _ = hand_off(conn, organization, conversation, "answer_failed", note).await?;
        // Where people answer already, handing off closes nothing.
        let turn = replies::lock_turn(conn, organization, conversation, found.turn_id).await?;
        if turn.is_some_and(|turn| matches!(turn.state.as_str(), "open" | "replying")) {
            replies::set_turn(conn, found.turn_id, "dropped", Some("answer_failed")).await?;
        }
    }
    Ok(())
}
