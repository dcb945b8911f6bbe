//! Which price holds, and what tokens cost at it. Pure.
//!
//! A price holds for a time, for a range of input tokens (a tier), and for some hours of the day (a band). Of the prices
//! that hold, the one whose band covers the hour wins over the one without a band. The cost is exact to ten places and
//! rounded once, at the end, half to even.

use std::str::FromStr;

use bigdecimal::{BigDecimal, RoundingMode};
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use entropy_schema::costs::Price;

use crate::calendar;

/// Decimal places of every amount.
pub const SCALE: i64 = 10;

/// The most that one line may cost, in yuan: what is more does not fit the ledger's column, or makes no sense.
const MOST: u64 = 9_999_999_999;

/// Hours of the day, as clocks show them: from one minute to before another, over midnight if the second is earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Band {
    from: u16,
    to: u16,
}

/// The text is not a band.
#[derive(Debug, thiserror::Error)]
#[error("must be two different times such as \"22:00-08:00\"")]
pub struct NotABand;

impl FromStr for Band {
    type Err = NotABand;

    fn from_str(text: &str) -> Result<Band, NotABand> {
        let (from, to) = text.split_once('-').ok_or(NotABand)?;
        let band = Band { from: minute(from)?, to: minute(to)? };
        if band.from == band.to { Err(NotABand) } else { Ok(band) }
    }
}

fn minute(text: &str) -> Result<u16, NotABand> {
    let &[a, b, b':', c, d] = text.as_bytes() else { return Err(NotABand) };
    if ![a, b, c, d].iter().all(u8::is_ascii_digit) {
        return Err(NotABand);
    }
    let number = |tens: u8, ones: u8| u16::from(tens - b'0') * 10 + u16::from(ones - b'0');
    let (hours, minutes) = (number(a, b), number(c, d));
    if hours < 24 && minutes < 60 { Ok(hours * 60 + minutes) } else { Err(NotABand) }
}

impl Band {
    /// Tells whether a minute of the day lies in it.
    pub fn covers(self, minute: u16) -> bool {
        if self.from < self.to {
            (self.from..self.to).contains(&minute)
        } else {
            minute >= self.from || minute < self.to
        }
    }

    /// Tells whether some minute lies in both.
    pub fn overlaps(self, other: Band) -> bool {
        self.covers(other.from) || other.covers(self.from)
    }
}

/// What a model read and wrote.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Read, those out of a cache included.
    pub input: i64,
    /// Of those, out of a cache.
    pub cached: i64,
    /// Written.
    pub output: i64,
}

/// Returns the price that holds for a model at a moment and so many input tokens.
pub fn choose<'a>(
    prices: &'a [Price],
    model: &str,
    input_tokens: i64,
    at: DateTime<Utc>,
    zone: Tz,
) -> Option<&'a Price> {
    let minute = calendar::minute_of(at, zone);
    let holds = |price: &&Price| {
        price.model_name == model
            && price.valid_from <= at
            && price.valid_to.is_none_or(|to| at < to)
            && price.min_input <= input_tokens
            && price.max_input.is_none_or(|max| input_tokens < max)
    };
    let (mut banded, mut plain) = (None, None);
    for price in prices.iter().filter(holds) {
        match price.band.parse::<Band>() {
            Ok(band) if band.covers(minute) => banded = Some(price),
            Ok(_) => {}
            Err(NotABand) if price.band.is_empty() => plain = Some(price),
            Err(NotABand) => {}
        }
    }
    banded.or(plain)
}

/// Returns what tokens cost at a price, in yuan. None: more than the ledger can hold.
pub fn cost(tokens: Tokens, price: &Price) -> Option<BigDecimal> {
    let cached = tokens.cached.clamp(0, tokens.input.max(0));
    let cached_price = price.cached_input_price_per_1k.as_ref().unwrap_or(&price.input_price_per_1k);
    let per_thousand = BigDecimal::from(tokens.input.max(0) - cached) * &price.input_price_per_1k
        + BigDecimal::from(cached) * cached_price
        + BigDecimal::from(tokens.output.max(0)) * &price.output_price_per_1k;
    // A thousandth is exact in decimals; a division would not know that.
    let exact = per_thousand * BigDecimal::new(1.into(), 3);
    let cost = exact.with_scale_round(SCALE, RoundingMode::HalfEven);
    (cost <= MOST).then_some(cost)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn number(text: &str) -> BigDecimal {
        BigDecimal::from_str(text).expect("a number")
    }

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().expect("a time")
    }

    fn price(input: &str, output: &str) -> Price {
        Price {
            id: Uuid::now_v7(),
            organization_id: Uuid::nil(),
            model_name: "模型".into(),
            input_price_per_1k: number(input),
            output_price_per_1k: number(output),
            cached_input_price_per_1k: None,
            min_input: 0,
            max_input: None,
            band: String::new(),
            valid_from: at("2026-01-01T00:00:00Z"),
            valid_to: None,
            created_by: None,
        }
    }

    fn tokens(input: i64, cached: i64, output: i64) -> Tokens {
        Tokens { input, cached, output }
    }

    #[test]
    fn costs_are_exact_to_ten_places() {
        let cases = [
            (tokens(100, 0, 0), price("0.0008", "0.002"), "0.00008"),
            (tokens(1500, 0, 500), price("0.008", "0.024"), "0.024"),
            (tokens(1, 0, 0), price("0.0000001", "1"), "0.0000000001"),
            // Half to even: 0.00000000005 and 0.00000000015.
            (tokens(1, 0, 0), price("0.00000005", "1"), "0"),
            (tokens(3, 0, 0), price("0.00000005", "1"), "0.0000000002"),
            // Rounded once, over both: half and half make one.
            (tokens(1, 0, 1), price("0.00000005", "0.00000005"), "0.0000000001"),
            (tokens(-5, 0, -5), price("1", "1"), "0"),
        ];
        for (tokens, price, expected) in cases {
            assert_eq!(cost(tokens, &price), Some(number(expected)), "{tokens:?}");
        }
        assert_eq!(cost(tokens(i64::MAX, 0, 0), &price("999999", "0")), None, "the ledger cannot hold it");
    }

    #[test]
    fn input_out_of_a_cache_has_its_own_price_if_there_is_one() {
        let mut with = price("0.02", "0.06");
        assert_eq!(cost(tokens(1000, 400, 0), &with), Some(number("0.02")));
        with.cached_input_price_per_1k = Some(number("0.005"));
        assert_eq!(cost(tokens(1000, 400, 0), &with), Some(number("0.014")));
        assert_eq!(cost(tokens(1000, 4000, 0), &with), Some(number("0.005")), "no more than was read");
        with.cached_input_price_per_1k = Some(number("0"));
        assert_eq!(cost(tokens(1000, 1000, 0), &with), Some(number("0")));
    }

    #[test]
    fn a_tier_holds_from_its_first_token_and_below_its_last() {
        let low = Price { max_input: Some(32_000), ..price("1", "1") };
        let high = Price { min_input: 32_000, ..price("2", "2") };
        let prices = [low, high];
        let found = |input| {
            choose(&prices, "模型", input, at("2026-11-22T00:00:00Z"), calendar::DEFAULT_ZONE)
                .map(|price| price.id)
        };
        assert_eq!(found(0), Some(prices[0].id));
        assert_eq!(found(31_999), Some(prices[0].id));
        assert_eq!(found(32_000), Some(prices[1].id));
        let gap = [Price { min_input: 10, ..price("1", "1") }];
        assert!(choose(&gap, "模型", 9, at("2026-11-22T00:00:00Z"), calendar::DEFAULT_ZONE).is_none());
    }

    #[test]
    fn a_band_wins_over_the_price_of_the_whole_day() {
        let day = price("2", "2");
        let night = Price { band: "22:00-08:00".into(), ..price("1", "1") };
        let prices = [night, day];
        let found = |when: &str| {
            choose(&prices, "模型", 1, at(when), calendar::DEFAULT_ZONE).map(|price| price.band.as_str())
        };
        // Shanghai is eight hours ahead.
        assert_eq!(found("2026-11-22T13:59:59Z"), Some(""));
        assert_eq!(found("2026-11-22T14:00:00Z"), Some("22:00-08:00"));
        assert_eq!(found("2026-11-22T16:00:00Z"), Some("22:00-08:00"));
        assert_eq!(found("2026-11-22T23:59:59Z"), Some("22:00-08:00"));
        assert_eq!(found("2026-11-23T00:00:00Z"), Some(""));
        assert_eq!(found("2025-12-31T23:59:59Z"), None, "not yet valid");
        assert!(
            choose(&prices[..1], "模型", 1, at("2026-11-22T04:00:00Z"), calendar::DEFAULT_ZONE).is_none()
        );
        assert!(choose(&prices, "模型2", 1, at("2026-11-22T04:00:00Z"), calendar::DEFAULT_ZONE).is_none());
    }

    #[test]
    fn bands_are_read_strictly() {
        for good in ["00:00-23:59", "22:00-00:00", "08:30-08:31"] {
            assert!(good.parse::<Band>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "8:00-9:00",
            "08:00",
            "08:00-08:00",
            "24:00-01:00",
            "08:60-09:00",
            "08:00-09:00 ",
            "０8:00-09:00",
            "+8:00-09:00",
        ] {
            assert!(bad.parse::<Band>().is_err(), "{bad}");
        }
    }

    #[test]
    fn bands_overlap_exactly_if_some_minute_lies_in_both() {
        let times = ["00:00", "01:00", "07:59", "08:00", "12:00", "22:00", "23:59"];
        let bands: Vec<Band> = times
            .iter()
            .flat_map(|from| times.iter().map(move |to| format!("{from}-{to}")))
            .filter_map(|text| text.parse().ok())
            .collect();
        assert_eq!(bands.len(), times.len() * (times.len() - 1));
        for a in &bands {
            for b in &bands {
                let some = (0..1440).any(|minute| a.covers(minute) && b.covers(minute));
                assert_eq!(a.overlaps(*b), some, "{a:?} {b:?}");
            }
        }
    }
}
