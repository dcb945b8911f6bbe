//! Failures in fixed shares: a deck of cards for each kind of call, dealt from a seed.
//!
//! A plan with a probability meets a share of the calls *on average*, and in a short run not at all. A mix is exact: of
//! every `of` calls of an account to one route each mode meets as many as it was named times, and the rest succeed.
//! The order within a deck follows from the seed, the route and the number of the deck alone.

use std::collections::HashMap;

use serde::Deserialize;

use crate::failures::{Failure, Mode, Target};

/// The largest deck.
const MAX_CARDS: usize = 1000;

/// A mix as it is asked for. Absent conditions match everything, but a mix without a `route` meets sends only.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewMix {
    #[serde(default)]
    app_id: Option<String>,
    /// The last part of a route, such as `postText` or `checkOnline`.
    #[serde(default)]
    route: Option<String>,
    /// Drawn if absent.
    #[serde(default)]
    seed: Option<u64>,
    /// How many calls one deck lasts.
    of: usize,
    /// One call of each deck for every entry; the others succeed.
    modes: Vec<Card>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Card {
    mode: Mode,
    #[serde(default)]
    delay_ms: Option<u64>,
}

/// A mix in force.
#[derive(Debug)]
pub(crate) struct Mix {
    app_id: Option<String>,
    route: Option<String>,
    seed: u64,
    /// One deck, unshuffled.
    cards: Vec<Option<Failure>>,
    /// What is left of the deck of each account and route.
    decks: HashMap<(String, String), Deck>,
}

#[derive(Debug, Default)]
struct Deck {
    dealt: u64,
    rest: Vec<Option<Failure>>,
}

impl NewMix {
    /// Makes the decks ready, or says what is wrong with them.
    pub(crate) fn shuffle(self) -> Result<Mix, String> {
        if !(1..=MAX_CARDS).contains(&self.of) || self.modes.len() > self.of {
            return Err(format!(
                "of must be between 1 and {MAX_CARDS}, and there can be no more modes than that"
            ));
        }
        let cards: Result<Vec<_>, _> =
            self.modes.iter().map(|card| Failure::new(card.mode, card.delay_ms).map(Some)).collect();
        let mut cards = cards?;
        cards.resize(self.of, None);
        Ok(Mix {
            app_id: self.app_id,
            route: self.route,
            seed: self.seed.unwrap_or_else(|| fastrand::u64(..)),
            cards,
            decks: HashMap::new(),
        })
    }
}

impl Mix {
    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// Whether this mix decides about a call, be it that it spares it.
    pub(crate) fn meets(&self, target: Target<'_>) -> bool {
        let right_route = match &self.route {
            Some(route) => route == target.route,
            None => target.is_send,
        };
        right_route && self.app_id.as_deref().is_none_or(|app_id| target.app_id == Some(app_id))
    }

    /// Deals the next card for a call that it meets.
    pub(crate) fn deal(&mut self, target: Target<'_>) -> Option<Failure> {
        let key = (target.app_id.unwrap_or_default().to_owned(), target.route.to_owned());
        let deck = self.decks.entry(key).or_default();
        if deck.rest.is_empty() {
            deck.rest.clone_from(&self.cards);
            // Names of routes are few and short: their bytes are seed enough.
            let route =
                target.route.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(257).wrapping_add(byte.into()));
            fastrand::Rng::with_seed(
                self.seed ^ route.rotate_left(17) ^ deck.dealt.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            )
            .shuffle(&mut deck.rest);
            deck.dealt += 1;
        }
        deck.rest.pop().flatten()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn mix(json: Value) -> Result<Mix, String> {
        serde_json::from_value::<NewMix>(json).map_err(|error| error.to_string())?.shuffle()
    }

    fn of_ten(seed: u64) -> Mix {
        let modes = json!([{"mode": "risk"}, {"mode": "slow_drip", "delay_ms": 1}]);
        mix(json!({"of": 10, "seed": seed, "modes": modes})).unwrap()
    }

    fn send(app_id: &'static str, route: &'static str) -> Target<'static> {
        Target { app_id: Some(app_id), to_wxid: Some("wxid_1"), route, is_send: true }
    }

    fn deals(mix: &mut Mix, app_id: &'static str, route: &'static str, calls: usize) -> Vec<Option<Mode>> {
        (0..calls).map(|_| mix.deal(send(app_id, route)).map(|failure| failure.mode)).collect()
    }

    #[test]
    fn every_deck_holds_each_mode_as_often_as_it_was_named() {
        let mut mix = of_ten(1);
        for _ in 0..20 {
            let dealt = deals(&mut mix, "wx_a", "postText", 10);
            for mode in [Mode::Risk, Mode::SlowDrip] {
                assert_eq!(dealt.iter().filter(|dealt| **dealt == Some(mode)).count(), 1, "{dealt:?}");
            }
        }
    }

    #[test]
    fn a_seed_deals_the_same_again_and_another_one_something_else() {
        let of_seed = |seed| deals(&mut of_ten(seed), "wx_a", "postText", 100);
        assert_eq!(of_seed(7), of_seed(7));
        assert_ne!(of_seed(7), of_seed(8));
        let first = of_seed(7);
        assert_ne!(first[..10], first[10..20], "each deck is shuffled anew");
    }

    #[test]
    fn accounts_and_routes_have_decks_of_their_own() {
        let mut mix = of_ten(3);
        let alone = deals(&mut of_ten(3), "wx_a", "postText", 10);
        let mut among_others = Vec::new();
        for _ in 0..10 {
            among_others.extend(deals(&mut mix, "wx_a", "postText", 1));
            deals(&mut mix, "wx_b", "postText", 1);
            deals(&mut mix, "wx_a", "postImage", 3);
        }
        assert_eq!(alone, among_others);
        let of_route = |route| deals(&mut of_ten(3), "wx_a", route, 100);
        assert_ne!(of_route("postText"), of_route("postVideo"));
    }

    #[test]
    fn a_mix_meets_what_it_names_and_sends_if_it_names_no_route() {
        let check = Target { app_id: Some("wx_a"), to_wxid: None, route: "checkOnline", is_send: false };
        assert!(of_ten(1).meets(send("wx_a", "postText")) && !of_ten(1).meets(check));
        let checks = mix(json!({"of": 1, "app_id": "wx_a", "route": "checkOnline", "modes": []})).unwrap();
        assert!(checks.meets(check) && !checks.meets(send("wx_a", "postText")));
        assert!(!checks.meets(Target { app_id: Some("wx_b"), ..check }));
    }

    #[test]
    fn more_modes_than_cards_are_refused() {
        let modes = json!([{"mode": "risk"}, {"mode": "risk"}]);
        assert!(mix(json!({"of": 1, "modes": modes})).is_err());
        assert!(mix(json!({"of": 0, "modes": []})).is_err());
        assert!(mix(json!({"of": 1001, "modes": []})).is_err());
        assert!(mix(json!({"of": 1, "modes": [{"mode": "risk", "delay_ms": 999_999_999}]})).is_err());
    }
}
