//! Plans to begin with. They are copied, never referred to: a changed template changes nobody's plan.

use serde_json::Value;

/// A plan to begin with.
#[derive(Debug, Clone, Copy)]
pub struct Template {
    /// Stable name.
    pub key: &'static str,
    /// What people call it.
    pub name: &'static str,
    /// What it is for.
    pub description: &'static str,
    text: &'static str,
}

impl Template {
    /// Returns the plan.
    pub fn config(&self) -> serde_json::Result<Value> {
        serde_json::from_str(self.text)
    }
}

/// All of them, in the order in which they are shown.
pub const ALL: [Template; 4] = [
    Template {
        key: "new_lead",
        name: "新线索",
        description: "打上“新线索”标签后开始：自我介绍、常见问题、邀请沟通，四个工作日内最多三条；客户一回复就转人工。",
        text: include_str!("templates/new_lead.json"),
    },
    Template {
        key: "event_invitation",
        name: "活动邀约",
        description: "手动选人：一次邀请、一次提醒；客户回应就转人工登记，婉拒打标签。",
        text: include_str!("templates/event_invitation.json"),
    },
    Template {
        key: "win_back",
        name: "沉默唤醒",
        description: "每周二上午找出九十天没有回复的老客户：一次问候、一次近况，不再多打扰。",
        text: include_str!("templates/win_back.json"),
    },
    Template {
        key: "repurchase",
        name: "复购",
        description: "成交三十天后回访，再用补货提醒或搭配建议（A/B）问一次。",
        text: include_str!("templates/repurchase.json"),
    },
];

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use entropy_schema::replies::SensitiveWord;
    use uuid::Uuid;

    use super::*;
    use crate::ai::words::{ADVERTISING_LAW, Words, normalize};
    use crate::sop::calendar::Calendar;
    use crate::sop::config::window::Range;
    use crate::sop::validate::{OrganizationCaps, Report, Surroundings, check};

    /// What an organisation has that has chosen nothing yet, but for the shipped list of words.
    #[test]
    fn every_template_can_be_submitted_as_it_is() {
        let word = |word: &&str| SensitiveWord {
            id: Uuid::now_v7(),
            normalized: normalize(word),
            action: "review".into(),
        };
        let words = Words::new(&ADVERTISING_LAW.iter().map(word).collect::<Vec<_>>());
        let calendar = Calendar::shipped();
        let around = Surroundings {
            materials: &BTreeMap::new(),
            workflows: &BTreeSet::new(),
            window: Some(Range {
                from: "09:00".parse().expect("a time"),
                to: "21:00".parse().expect("a time"),
            }),
            caps: OrganizationCaps {
                per_contact_per_day: Some(2),
                per_contact_per_week: Some(5),
                per_account_per_day: Some(150),
                max_unanswered: Some(3),
            },
            words: Some(&words),
            opt_out_words: &[],
            sender_names: &[],
            accounts: &[],
            today: "2026-11-23".parse().expect("a day"),
            is_holiday: &|day| calendar.is_holiday(day),
        };
        for template in ALL {
            let (report, config) = check(&template.config().expect("JSON"), &around);
            assert_eq!(report, Report::default(), "{}", template.name);
            assert!(config.is_some());
        }
    }

    #[test]
    fn templates_have_names_of_their_own() {
        let keys: BTreeSet<_> = ALL.iter().map(|template| template.key).collect();
        assert_eq!(keys.len(), ALL.len());
        assert_eq!(ALL.map(|template| template.name), ["新线索", "活动邀约", "沉默唤醒", "复购"]);
        for template in ALL {
            assert!(template.description.chars().count() <= 200);
        }
    }
}
