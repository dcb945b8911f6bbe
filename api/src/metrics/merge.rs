//! Sums the counters of several processes, each in Prometheus' text form. Pure.

use std::collections::BTreeMap;

/// All that is known of one metric.
#[derive(Default)]
struct Family {
    head: Vec<String>,
    /// In the order in which they were first seen: buckets of a histogram must stay sorted.
    series: Vec<(String, f64)>,
}

/// Merges pages: equal series are summed, HELP and TYPE are kept once.
///
/// Counters of processes that are gone still count, since what they did was done. Gauges of such processes do not.
pub(super) fn merge<'a>(pages: impl Iterator<Item = (&'a str, bool)>) -> String {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    for (page, alive) in pages {
        let mut types: BTreeMap<&str, &str> = BTreeMap::new();
        let mut current = "";
        for line in page.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if let Some(comment) = line.strip_prefix("# ") {
                let mut words = comment.splitn(3, ' ');
                let (Some(what @ ("HELP" | "TYPE")), Some(name)) = (words.next(), words.next()) else {
                    continue;
                };
                current = name;
                if what == "TYPE" {
                    types.insert(name, words.next().unwrap_or_default());
                }
                let head = &mut families.entry(name.to_owned()).or_default().head;
                if !head.iter().any(|known| known.starts_with(&format!("# {what} "))) {
                    head.push(line.to_owned());
                }
                continue;
            }
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse::<f64>() else { continue };
            let name = series.split('{').next().unwrap_or_default();
            // The series of a histogram have longer names than the histogram.
            let family = if name.starts_with(current) && !current.is_empty() { current } else { name };
            if types.get(family) == Some(&"gauge") && !alive {
                continue;
            }
            let all = &mut families.entry(family.to_owned()).or_default().series;
            match all.iter_mut().find(|(known, _)| known == series) {
                Some((_, sum)) => *sum += value,
                None => all.push((series.to_owned(), value)),
            }
        }
    }
    let mut text = String::new();
    for family in families.values().filter(|family| !family.series.is_empty()) {
        for line in &family.head {
            text.push_str(line);
            text.push('\n');
        }
        for (series, value) in &family.series {
            text.push_str(&format!("{series} {value}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "\
# HELP a_total attempts
# TYPE a_total counter
a_total{kind=\"send message\",outcome=\"done\"} 3
a_total{kind=\"x\",outcome=\"done\"} 1
# HELP s_seconds how long
# TYPE s_seconds histogram
s_seconds_bucket{le=\"0.5\"} 1
s_seconds_bucket{le=\"10\"} 2
s_seconds_bucket{le=\"+Inf\"} 2
s_seconds_sum 1.5
s_seconds_count 2
# HELP g now
# TYPE g gauge
g 4
";

    #[test]
    fn equal_series_are_summed_under_one_head() {
        let merged = merge([(ONE, true), (ONE, true)].into_iter());
        assert_eq!(merged.matches("# TYPE a_total counter").count(), 1);
        assert!(merged.contains("a_total{kind=\"send message\",outcome=\"done\"} 6\n"), "{merged}");
        assert!(merged.contains("s_seconds_sum 3\n") && merged.contains("g 8\n"), "{merged}");
        let bucket = |le: &str| merged.find(&format!("s_seconds_bucket{{le=\"{le}\"}}"));
        assert!(bucket("0.5") < bucket("10") && bucket("10") < bucket("+Inf"), "{merged}");
    }

    #[test]
    fn what_the_dead_did_counts_and_what_they_were_does_not() {
        let merged = merge([(ONE, true), (ONE, false)].into_iter());
        assert!(merged.contains("outcome=\"done\"} 6\n") && merged.contains("g 4\n"), "{merged}");
        assert!(!merge([(ONE, false)].into_iter()).contains("# TYPE g"));
    }

    #[test]
    fn lines_that_are_no_metrics_are_left_out() {
        assert_eq!(merge([("# nonsense\nx y z\n\n", true)].into_iter()), "");
    }
}
