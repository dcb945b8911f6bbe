//! Which way an enrollment takes at a split: always the same, for ever.
//!
//! The first eight bytes, big end first, of `SHA-256("entropy.sop.split.v1" ‖ 0x00 ‖ id ‖ step)` are taken modulo the sum of
//! the weights, which is 100; `id` is the 16 bytes of the enrollment's UUID and `step` the step's name. The arm is the one in
//! whose share of the weights, in the order of the plan, the number lies. None of this may ever change: people who are under
//! way would be moved between the arms, and the numbers of both would be worthless.

use uuid::Uuid;

use super::config::step::{Arm, Split};

const DOMAIN: &[u8] = b"entropy.sop.split.v1\0";

/// Returns the arm that an enrollment takes; none if there is no arm, or none that weighs anything.
pub fn arm(split: &Split, enrollment: Uuid) -> Option<&Arm> {
    let whole: u64 = split.arms.iter().map(|arm| u64::from(arm.weight)).sum();
    let mut place = draw(enrollment, split.id.as_str()).checked_rem(whole)?;
    split.arms.iter().find(|arm| {
        let weight = u64::from(arm.weight);
        let found = place < weight;
        place = place.saturating_sub(weight);
        found
    })
}

fn draw(enrollment: Uuid, step: &str) -> u64 {
    let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
    digest.update(DOMAIN);
    digest.update(enrollment.as_bytes());
    digest.update(step.as_bytes());
    let digest = digest.finish();
    digest.as_ref().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn split(weights: &[u8]) -> Split {
        let arms: Vec<_> = weights
            .iter()
            .enumerate()
            .map(|(at, weight)| json!({"key": format!("arm_{at}"), "weight": weight, "next": null}))
            .collect();
        serde_json::from_value(json!({"id": "d2_ab", "arms": arms})).expect("a split")
    }

    fn place(split: &Split, enrollment: Uuid) -> usize {
        let arm = arm(split, enrollment).expect("an arm");
        split.arms.iter().position(|other| other.key == arm.key).expect("one of them")
    }

    #[test]
    fn these_never_change() {
        // Worked out by another program.
        for (id, step, expected) in VECTORS {
            assert_eq!(draw(id.parse().expect("an id"), step), *expected, "{id} {step}");
        }
    }

    #[test]
    fn each_arm_gets_its_share() {
        for weights in [&[50, 50][..], &[1, 99], &[25, 25, 25, 25], &[10, 20, 70]] {
            let split = split(weights);
            let mut counts = vec![0_u32; weights.len()];
            for number in 0..20_000_u128 {
                counts[place(&split, Uuid::from_u128(number))] += 1;
            }
            for (count, weight) in counts.iter().zip(weights) {
                let expected = f64::from(*weight) * 200.0;
                // Five standard deviations of a binomial.
                let slack = 5.0 * (expected * (1.0 - f64::from(*weight) / 100.0)).sqrt();
                assert!((f64::from(*count) - expected).abs() < slack, "{weights:?}: {counts:?}");
            }
        }
    }

    #[test]
    fn one_split_says_nothing_about_another() {
        let first = split(&[50, 50]);
        let mut second = first.clone();
        second.id = "d3_ab".to_owned().try_into().expect("a name");
        let same =
            (0..10_000_u128).map(Uuid::from_u128).filter(|id| place(&first, *id) == place(&second, *id));
        assert!((4_700..5_300).contains(&same.count()));
    }

    #[test]
    fn a_split_that_weighs_nothing_leads_nowhere() {
        assert_eq!(arm(&split(&[]), Uuid::nil()), None);
        assert_eq!(arm(&split(&[0, 0]), Uuid::nil()), None);
        assert_eq!(place(&split(&[0, 7, 0]), Uuid::nil()), 1);
    }

    const VECTORS: &[(&str, &str, u64)] = &[
        ("00000000-0000-0000-0000-000000000000", "d2_ab", 10354273554611447990),
        ("018f3c1e-7b2a-7c3d-8e4f-5a6b7c8d9e0f", "d2_ab", 11095767143591609833),
        ("018f3c1e-7b2a-7c3d-8e4f-5a6b7c8d9e0f", "a", 12564248371346072787),
        (
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
            "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz",
            5655764619347723990,
        ),
    ];
}
