//! Everybody whom the plan meets: what happens to them, what they hear, and what is on record of them then. Worked out by hand from
//! the plan and the calendar of 2026, before the program was asked.

use serde_json::{Value, json};
use uuid::Uuid;

use super::stage::Heard;

/// The tag that begins it.
pub(super) const LEAD: &str = "新线索-课程咨询";

const CONFIRMED: &str = "好的，以后不再给您发送消息。如需帮助，随时回复我们。";

/// When, in Shanghai; the step, or how it ended; how that stands, and why. `confirmation` is the one line after an opt-out.
pub(super) type Row = (&'static str, &'static str, &'static str);

/// What happens to somebody.
#[derive(Debug, Clone, Copy)]
pub(super) enum What {
    /// A person of the team sets their tags.
    Tags(&'static [&'static str]),
    /// They write.
    Writes(&'static str),
}

use What::{Tags, Writes};

/// Somebody's way through the plan.
pub(super) struct Person {
    /// What the account's owner calls them.
    pub(super) name: &'static str,
    /// The end of the enrollment's id, which decides the arm of the split: hashed by another program, 1, 3, 4, 6, 14, 17, 20 to
    /// 23, 25, 26 and 28 are read the article, and 2, 5, 7 to 13, 15, 16, 18 and 19 get the note.
    id: u8,
    /// Which of the accounts writes.
    pub(super) account: usize,
    pub(super) happens: &'static [(&'static str, What)],
    pub(super) table: &'static [Row],
}

/// Everybody. Who says nothing hears four messages over three workdays, and is left alone two days later.
pub(super) const PEOPLE: &[Person] = &[
    // Friday night. The window opens on Monday at half past nine; that day is the start. She is asked on Wednesday and answers
    // with a question, which is no refusal: her adviser takes over.
    Person {
        name: "李女士",
        id: 1,
        account: 0,
        happens: &[("11-20 21:40", Tags(&[LEAD])), ("11-25 16:20", Writes("周六有吗？"))],
        table: &[
            ("11-23 09:30", "d1_hello", "sent"),
            ("11-23 10:00", "d1_gap", "done"),
            ("11-23 10:00", "d1_outline", "sent"),
            // 20 hours after the outline.
            ("11-24 06:00", "d1_listen", "done"),
            // The first workday after the start.
            ("11-24 10:00", "d2_wait", "done"),
            ("11-24 10:00", "d2_ab", "done article"),
            ("11-24 10:00", "d2_case", "sent"),
            // The second.
            ("11-25 15:00", "d3_wait", "done"),
            ("11-25 15:00", "d3_check", "done else"),
            ("11-25 15:00", "d3_invite", "sent"),
            ("11-25 16:20", "d3_listen", "done replied"),
            ("11-25 16:20", "d3_reply", "done else"),
            ("11-25 16:20", "d3_handoff", "done"),
            ("11-25 16:20", "done_human", "done"),
            ("11-25 16:20", "completed", "转人工"),
        ],
    },
    // The other arm, and a refusal: a tag, and no more messages. The plan's own tag is no reason of a stop rule.
    Person {
        name: "王先生",
        id: 2,
        account: 0,
        happens: &[("11-20 21:40", Tags(&[LEAD])), ("11-25 15:30", Writes("不需要，谢谢"))],
        table: &[
            ("11-23 09:30", "d1_hello", "sent"),
            ("11-23 10:00", "d1_gap", "done"),
            ("11-23 10:00", "d1_outline", "sent"),
            ("11-24 06:00", "d1_listen", "done"),
            ("11-24 10:00", "d2_wait", "done"),
            ("11-24 10:00", "d2_ab", "done ai_note"),
            ("11-24 10:00", "d2_ai", "sent"),
            ("11-25 15:00", "d3_wait", "done"),
            ("11-25 15:00", "d3_check", "done else"),
            ("11-25 15:00", "d3_invite", "sent"),
            ("11-25 15:30", "d3_listen", "done replied"),
            ("11-25 15:30", "d3_reply", "done case_0"),
            ("11-25 15:30", "d3_decline", "done"),
            ("11-25 15:30", "done_decline", "done"),
            ("11-25 15:30", "completed", "客户婉拒"),
        ],
    },
    // An answer on Monday: the first wait has no way of its own for it, so the stop rule hands her over.
    Person {
        name: "张女士",
        id: 3,
        account: 0,
        happens: &[("11-20 21:40", Tags(&[LEAD])), ("11-23 10:20", Writes("多少钱？"))],
        table: &[
            ("11-23 09:30", "d1_hello", "sent"),
            ("11-23 10:00", "d1_gap", "done"),
            ("11-23 10:00", "d1_outline", "sent"),
            ("11-23 10:20", "d1_listen", "canceled replied"),
            ("11-23 10:20", "exited", "replied 客户已回复"),
        ],
    },
    // 退订 between the first two messages.
    Person {
        name: "赵先生",
        id: 4,
        account: 0,
        happens: &[("11-20 21:40", Tags(&[LEAD])), ("11-23 09:45", Writes("退订"))],
        table: &[
            ("11-23 09:30", "d1_hello", "sent"),
            ("11-23 09:45", "d1_gap", "canceled opted_out"),
            ("11-23 09:45", "confirmation", "sent"),
            ("11-23 09:45", "exited", "opted_out"),
        ],
    },
    // 退订 in place of an answer to the invitation: no branch reads it.
    Person {
        name: "钱女士",
        id: 6,
        account: 0,
        happens: &[("11-20 21:40", Tags(&[LEAD])), ("11-25 15:30", Writes("退订"))],
        table: &[
            ("11-23 09:30", "d1_hello", "sent"),
            ("11-23 10:00", "d1_gap", "done"),
            ("11-23 10:00", "d1_outline", "sent"),
            ("11-24 06:00", "d1_listen", "done"),
            ("11-24 10:00", "d2_wait", "done"),
            ("11-24 10:00", "d2_ab", "done article"),
            ("11-24 10:00", "d2_case", "sent"),
            ("11-25 15:00", "d3_wait", "done"),
            ("11-25 15:00", "d3_check", "done else"),
            ("11-25 15:00", "d3_invite", "sent"),
            ("11-25 15:30", "d3_listen", "canceled opted_out"),
            ("11-25 15:30", "confirmation", "sent"),
            ("11-25 15:30", "exited", "opted_out"),
        ],
    },
    // 退订 before the first message: the confirmation is all that he hears, on a Saturday.
    Person {
        name: "陈先生",
        id: 5,
        account: 0,
        happens: &[("11-20 21:40", Tags(&[LEAD])), ("11-21 10:00", Writes("退订"))],
        table: &[("11-21 10:00", "confirmation", "sent"), ("11-21 10:00", "exited", "opted_out")],
    },
    // She writes first, on Sunday: she is a person's then, and gets none of it.
    Person {
        name: "蒋女士",
        id: 7,
        account: 0,
        happens: &[("11-20 21:40", Tags(&[LEAD])), ("11-22 12:00", Writes("在吗"))],
        table: &[("11-22 12:00", "exited", "replied 客户已回复")],
    },
    // The adviser notes a high intent on Tuesday. On Wednesday the adviser takes over instead of the invitation.
    Person {
        name: "孙女士",
        id: 14,
        account: 0,
        happens: &[("11-20 21:40", Tags(&[LEAD])), ("11-24 17:00", Tags(&[LEAD, "高意向"]))],
        table: &[
            ("11-23 09:30", "d1_hello", "sent"),
            ("11-23 10:00", "d1_gap", "done"),
            ("11-23 10:00", "d1_outline", "sent"),
            ("11-24 06:00", "d1_listen", "done"),
            ("11-24 10:00", "d2_wait", "done"),
            ("11-24 10:00", "d2_ab", "done article"),
            ("11-24 10:00", "d2_case", "sent"),
            ("11-25 15:00", "d3_wait", "done"),
            ("11-25 15:00", "d3_check", "done case_0"),
            ("11-25 15:00", "d3_handoff", "done"),
            ("11-25 15:00", "done_human", "done"),
            ("11-25 15:00", "completed", "转人工"),
        ],
    },
    // The same for a score of 85, with the other arm.
    Person {
        name: "周先生",
        id: 8,
        account: 0,
        happens: &[("11-20 21:40", Tags(&[LEAD]))],
        table: &[
            ("11-23 09:30", "d1_hello", "sent"),
            ("11-23 10:00", "d1_gap", "done"),
            ("11-23 10:00", "d1_outline", "sent"),
            ("11-24 06:00", "d1_listen", "done"),
            ("11-24 10:00", "d2_wait", "done"),
            ("11-24 10:00", "d2_ab", "done ai_note"),
            ("11-24 10:00", "d2_ai", "sent"),
            ("11-25 15:00", "d3_wait", "done"),
            ("11-25 15:00", "d3_check", "done case_0"),
            ("11-25 15:00", "d3_handoff", "done"),
            ("11-25 15:00", "done_human", "done"),
            ("11-25 15:00", "completed", "转人工"),
        ],
    },
    // The goal.
    Person {
        name: "吴女士",
        id: 17,
        account: 0,
        happens: &[("11-20 21:40", Tags(&[LEAD])), ("11-24 12:00", Tags(&[LEAD, "已预约试听"]))],
        table: &[
            ("11-23 09:30", "d1_hello", "sent"),
            ("11-23 10:00", "d1_gap", "done"),
            ("11-23 10:00", "d1_outline", "sent"),
            ("11-24 06:00", "d1_listen", "done"),
            ("11-24 10:00", "d2_wait", "done"),
            ("11-24 10:00", "d2_ab", "done article"),
            ("11-24 10:00", "d2_case", "sent"),
            ("11-24 12:00", "d3_wait", "canceled goal"),
            ("11-24 12:00", "exited", "goal 已预约"),
        ],
    },
    // A tag that stops it.
    Person {
        name: "郑先生",
        id: 9,
        account: 0,
        happens: &[("11-20 21:40", Tags(&[LEAD])), ("11-23 15:00", Tags(&[LEAD, "已成交"]))],
        table: &[
            ("11-23 09:30", "d1_hello", "sent"),
            ("11-23 10:00", "d1_gap", "done"),
            ("11-23 10:00", "d1_outline", "sent"),
            ("11-23 15:00", "d1_listen", "canceled tag_rule"),
            ("11-23 15:00", "exited", "tag_rule 状态变化"),
        ],
    },
    // Silent to the end. Tagged once more she is not written to again: she has been through it.
    Person {
        name: "冯女士",
        id: 10,
        account: 0,
        happens: &[("11-20 21:40", Tags(&[LEAD])), ("11-27 16:00", Tags(&[LEAD, "三天SOP未回复"]))],
        table: &[
            ("11-23 09:30", "d1_hello", "sent"),
            ("11-23 10:00", "d1_gap", "done"),
            ("11-23 10:00", "d1_outline", "sent"),
            ("11-24 06:00", "d1_listen", "done"),
            ("11-24 10:00", "d2_wait", "done"),
            ("11-24 10:00", "d2_ab", "done ai_note"),
            ("11-24 10:00", "d2_ai", "sent"),
            ("11-25 15:00", "d3_wait", "done"),
            ("11-25 15:00", "d3_check", "done else"),
            ("11-25 15:00", "d3_invite", "sent"),
            // Two days after the invitation.
            ("11-27 15:00", "d3_listen", "done"),
            ("11-27 15:00", "d5_tag", "done"),
            ("11-27 15:00", "done_silent", "done"),
            ("11-27 15:00", "completed", "未回复"),
        ],
    },
    // A competitor is not who the plan is meant for, and who has not agreed is not written to.
    Person {
        name: "褚先生",
        id: 11,
        account: 0,
        happens: &[("11-20 21:40", Tags(&[LEAD, "同行"]))],
        table: &[],
    },
    Person { name: "卫女士", id: 12, account: 0, happens: &[("11-20 21:40", Tags(&[LEAD]))], table: &[] },
    // Due at noon, when the window has just closed: it opens at two. The 20 hours end on Tuesday after ten, so the second day's
    // message is not waited for any more.
    Person {
        name: "沈先生",
        id: 20,
        account: 0,
        happens: &[("11-23 11:58", Tags(&[LEAD]))],
        table: &[
            ("11-23 14:00", "d1_hello", "sent"),
            ("11-23 14:30", "d1_gap", "done"),
            ("11-23 14:30", "d1_outline", "sent"),
            ("11-24 10:30", "d1_listen", "done"),
            ("11-24 10:30", "d2_wait", "done"),
            ("11-24 10:30", "d2_ab", "done article"),
            ("11-24 10:30", "d2_case", "sent"),
            ("11-25 15:00", "d3_wait", "done"),
            ("11-25 15:00", "d3_check", "done else"),
            ("11-25 15:00", "d3_invite", "sent"),
            ("11-27 15:00", "d3_listen", "done"),
            ("11-27 15:00", "d5_tag", "done"),
            ("11-27 15:00", "done_silent", "done"),
            ("11-27 15:00", "completed", "未回复"),
        ],
    },
    // The outline would be due at 20:42, after hours: Tuesday. The 20 hours end before Wednesday's window opens, and the time for
    // the second day's message has passed, so it comes when the window opens; the third day's comes at its time.
    Person {
        name: "韩女士",
        id: 21,
        account: 0,
        happens: &[("11-23 20:10", Tags(&[LEAD]))],
        table: &[
            ("11-23 20:12", "d1_hello", "sent"),
            ("11-23 20:42", "d1_gap", "done"),
            ("11-24 09:30", "d1_outline", "sent"),
            ("11-25 05:30", "d1_listen", "done"),
            ("11-25 09:30", "d2_wait", "done"),
            ("11-25 09:30", "d2_ab", "done article"),
            ("11-25 09:30", "d2_case", "sent"),
            ("11-25 15:00", "d3_wait", "done"),
            ("11-25 15:00", "d3_check", "done else"),
            ("11-25 15:00", "d3_invite", "sent"),
            ("11-27 15:00", "d3_listen", "done"),
            ("11-27 15:00", "d5_tag", "done"),
            ("11-27 15:00", "done_silent", "done"),
            ("11-27 15:00", "completed", "未回复"),
        ],
    },
    // A Friday night before a Saturday that is worked: that Saturday is the start. The Sunday after it is none.
    Person {
        name: "杨先生",
        id: 22,
        account: 0,
        happens: &[("10-09 21:40", Tags(&[LEAD]))],
        table: &[
            ("10-10 09:30", "d1_hello", "sent"),
            ("10-10 10:00", "d1_gap", "done"),
            ("10-10 10:00", "d1_outline", "sent"),
            ("10-11 06:00", "d1_listen", "done"),
            ("10-12 10:00", "d2_wait", "done"),
            ("10-12 10:00", "d2_ab", "done article"),
            ("10-12 10:00", "d2_case", "sent"),
            ("10-13 15:00", "d3_wait", "done"),
            ("10-13 15:00", "d3_check", "done else"),
            ("10-13 15:00", "d3_invite", "sent"),
            ("10-15 15:00", "d3_listen", "done"),
            ("10-15 15:00", "d5_tag", "done"),
            ("10-15 15:00", "done_silent", "done"),
            ("10-15 15:00", "completed", "未回复"),
        ],
    },
    // The make-up Saturday before the Spring Festival is the start, and the next workday after it the 24th, at ten. The ten days
    // of the deadline end that morning at half past nine.
    Person {
        name: "朱女士",
        id: 23,
        account: 0,
        happens: &[("02-13 21:40", Tags(&[LEAD]))],
        table: &[
            ("02-14 09:30", "d1_hello", "sent"),
            ("02-14 10:00", "d1_gap", "done"),
            ("02-14 10:00", "d1_outline", "sent"),
            ("02-15 06:00", "d1_listen", "done"),
            ("02-24 09:30", "d2_wait", "canceled deadline"),
            ("02-24 09:30", "exited", "deadline 超期结束"),
        ],
    },
    // The evening before Labour Day: five days of holidays lie between the first day and the second. Her two days to answer end
    // on a Saturday that is worked, the deadline a day later.
    Person {
        name: "秦女士",
        id: 13,
        account: 0,
        happens: &[("04-30 19:50", Tags(&[LEAD]))],
        table: &[
            ("04-30 19:52", "d1_hello", "sent"),
            ("04-30 20:22", "d1_gap", "done"),
            ("04-30 20:22", "d1_outline", "sent"),
            ("05-01 16:22", "d1_listen", "done"),
            ("05-06 10:00", "d2_wait", "done"),
            ("05-06 10:00", "d2_ab", "done ai_note"),
            ("05-06 10:00", "d2_ai", "sent"),
            ("05-07 15:00", "d3_wait", "done"),
            ("05-07 15:00", "d3_check", "done else"),
            ("05-07 15:00", "d3_invite", "sent"),
            ("05-09 15:00", "d3_listen", "done"),
            ("05-09 15:00", "d5_tag", "done"),
            ("05-09 15:00", "done_silent", "done"),
            ("05-09 15:00", "completed", "未回复"),
        ],
    },
    // The day before the National Day's seven: all four messages, and then the deadline before the two days of waiting are over.
    Person {
        name: "尤先生",
        id: 25,
        account: 0,
        happens: &[("09-30 10:00", Tags(&[LEAD]))],
        table: &[
            ("09-30 10:02", "d1_hello", "sent"),
            ("09-30 10:32", "d1_gap", "done"),
            ("09-30 10:32", "d1_outline", "sent"),
            ("10-01 06:32", "d1_listen", "done"),
            ("10-08 10:00", "d2_wait", "done"),
            ("10-08 10:00", "d2_ab", "done article"),
            ("10-08 10:00", "d2_case", "sent"),
            ("10-09 15:00", "d3_wait", "done"),
            ("10-09 15:00", "d3_check", "done else"),
            ("10-09 15:00", "d3_invite", "sent"),
            ("10-10 10:02", "d3_listen", "canceled deadline"),
            ("10-10 10:02", "exited", "deadline 超期结束"),
        ],
    },
    // 退订 on a holiday, far from any step: confirmed at once, for an answer keeps no office hours.
    Person {
        name: "许女士",
        id: 26,
        account: 0,
        happens: &[("09-30 10:00", Tags(&[LEAD])), ("10-03 08:15", Writes("退订"))],
        table: &[
            ("09-30 10:02", "d1_hello", "sent"),
            ("09-30 10:32", "d1_gap", "done"),
            ("09-30 10:32", "d1_outline", "sent"),
            ("10-01 06:32", "d1_listen", "done"),
            ("10-03 08:15", "d2_wait", "canceled opted_out"),
            ("10-03 08:15", "confirmation", "sent"),
            ("10-03 08:15", "exited", "opted_out"),
        ],
    },
    // GeWe refuses both messages of the first day: the second refusal in a row holds him, for a person to look.
    Person {
        name: "何先生",
        id: 28,
        account: 1,
        happens: &[("11-23 10:00", Tags(&[LEAD]))],
        table: &[
            ("11-23 10:02", "d1_hello", "failed refused"),
            ("11-23 10:32", "d1_gap", "done"),
            ("11-23 10:32", "d1_outline", "failed refused"),
            ("11-23 10:32", "paused", "send_failures"),
        ],
    },
    // An account whose adviser has no name: the first message would lack it, and the plan ends rather than that.
    Person {
        name: "吕女士",
        id: 15,
        account: 2,
        happens: &[("11-23 10:00", Tags(&[LEAD]))],
        table: &[
            ("11-23 10:02", "d1_hello", "skipped missing_variable"),
            ("11-23 10:02", "exited", "missing_variable"),
        ],
    },
];

impl Person {
    pub(super) fn wxid(&self) -> String {
        format!("wxid_lead_{}", self.id)
    }

    pub(super) fn enrollment(&self) -> Uuid {
        Uuid::from_u128(0x0193_0000_0000_7000_8000_0000_0000_0000 | u128::from(self.id))
    }

    /// As the team brings them in: all have agreed but one.
    pub(super) fn import(&self) -> Value {
        let agreed = json!([{ "purpose": "课程资料与活动通知", "basis": "到店登记表", "given_at": "2026-01-05T10:00:00+08:00" }]);
        let consents = if self.name == "卫女士" { json!([]) } else { agreed };
        let variables = match self.name {
            "周先生" => json!({ "score": 85 }),
            "李女士" => json!({ "课程名": "少儿编程" }),
            _ => json!({}),
        };
        json!({ "wxid": self.wxid(), "nickname": "小雨", "remark": self.name, "consents": consents, "variables": variables })
    }

    /// What a step says to them.
    fn words(&self, step: &str) -> String {
        let name = self.name;
        let course = if name == "李女士" { "少儿编程" } else { "我们的课程" };
        match step {
            "d1_hello" => format!(
                "{name}好，我是启明教育的课程顾问小李。您之前咨询了{course}，我先把课程大纲发您，您有空再看就好。如果不想继续收到这类消息，\
                 直接回复“退订”即可。"
            ),
            "d1_outline" => "课程大纲.pdf".to_owned(),
            "d2_case" => "三位学员的一年".to_owned(),
            // No model is there to be asked.
            "d2_ai" => format!("{name}，大纲里您最关心哪一部分？我可以先给您讲讲。"),
            "d3_invite" => "预约试听".to_owned(),
            "confirmation" => CONFIRMED.to_owned(),
            _ => panic!("{step} says nothing"),
        }
    }

    /// What their phone receives.
    pub(super) fn hears(&self) -> impl Iterator<Item = Heard> {
        let said = self.table.iter().filter(|(_, _, how)| *how == "sent");
        said.map(|(at, step, _)| Heard { at: (*at).to_owned(), wxid: self.wxid(), words: self.words(step) })
    }

    /// What is on record of them.
    pub(super) fn record(&self) -> Vec<String> {
        let rows = self.table.iter().filter(|(_, step, _)| *step != "confirmation");
        rows.map(|(at, step, how)| format!("{at} {step} {how}")).collect()
    }
}
