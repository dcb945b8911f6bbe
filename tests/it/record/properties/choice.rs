//! The relay's choice of what may run, over random populations.

use std::collections::BTreeMap;

use entropy_schema::record::dispatch;
use entropy_schema::record::enqueue::NewJob;
use entropy_schema::{lanes, queues, users};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use uuid::Uuid;

use super::try_all;
use crate::harness::Book;

const TENANTS: usize = 4;
const LANES: usize = 6;

/// A waiting job.
#[derive(Debug, Clone)]
struct Waiting {
    /// A lane, or a tenant whose jobs have none.
    place: Result<usize, usize>,
    key: Option<u8>,
    class: i16,
    /// Why it is not available; none: it is.
    wait: Option<&'static str>,
}

/// A lane's circumstances.
#[derive(Debug, Clone)]
struct Road {
    tenant: usize,
    paused: bool,
    /// It waits for a limit.
    later: bool,
}

#[derive(Debug, Clone)]
struct Population {
    roads: Vec<Road>,
    jobs: Vec<Waiting>,
    /// Shuffles the order in which they became available.
    order: Vec<Index>,
    /// Tenants that have paused their queue of messages, and of tallies.
    paused: (Vec<usize>, Vec<usize>),
    lane_limit: i64,
    plain_limit: i64,
}

fn population() -> impl Strategy<Value = Population> {
    let road = (0..TENANTS, prop::bool::weighted(0.15), prop::bool::weighted(0.15))
        .prop_map(|(tenant, paused, later)| Road { tenant, paused, later });
    let place = prop_oneof![(0..LANES).prop_map(Ok), (0..TENANTS).prop_map(Err)];
    let key = prop_oneof![5 => (0..3_u8).prop_map(Some), 1 => Just(None)];
    let wait = prop_oneof![
        6 => Just(None),
        4 => select(vec!["scheduled", "retry", "kind_unknown"]).prop_map(Some),
    ];
    let job = (place, key, 0..3_i16, wait).prop_map(|(place, key, class, wait)| Waiting {
        place,
        key,
        class,
        wait,
    });
    let some_tenants = || prop::collection::vec(0..TENANTS, 0..2);
    (
        prop::collection::vec(road, LANES),
        prop::collection::vec(job, 0..60),
        prop::collection::vec(any::<Index>(), 60),
        (some_tenants(), some_tenants()),
        1..LANES as i64 + 2,
        1..40_i64,
    )
        .prop_map(|(roads, jobs, order, paused, lane_limit, plain_limit)| Population {
            roads,
            jobs,
            order,
            paused,
            lane_limit,
            plain_limit,
        })
}

/// The population in the record: ids of lanes and jobs, and each job's turn.
struct Settled {
    lanes: Vec<Uuid>,
    jobs: Vec<Uuid>,
    turns: Vec<i64>,
}

async fn settle(book: &Book, population: &Population) -> Settled {
    let mut conn = book.conn().await;
    let mut tenants: Vec<Uuid> = (0..TENANTS).map(|_| Uuid::new_v4()).collect();
    tenants.sort_unstable();
    for tenant in &tenants {
        users::create_organization(&mut conn, *tenant, "租户").await.expect("an organisation");
    }
    let mut ids = Vec::new();
    for road in &population.roads {
        let lane = Uuid::now_v7();
        lanes::create(&mut conn, lane, tenants[road.tenant], "conversation").await.expect("a lane");
        ids.push(lane);
    }
    let jobs: Vec<NewJob> = population
        .jobs
        .iter()
        .map(|job| NewJob {
            organization_id: tenants
                [job.place.map_or_else(|tenant| tenant, |lane| population.roads[lane].tenant)],
            queue: if job.place.is_ok() { "send" } else { "cost" },
            class: job.class,
            lane_id: job.place.ok().map(|lane| ids[lane]),
            order_key: job.key.map(|key| format!("客户 {key}")),
            ..book.job()
        })
        .collect();
    drop(conn);
    book.enqueue(&jobs).await;
    let mut turns: Vec<i64> = (0..jobs.len() as i64).collect();
    for (at, index) in population.order.iter().enumerate().take(turns.len()) {
        let other = index.index(turns.len());
        turns.swap(at, other);
    }
    let mut statements = String::new();
    for ((job, wanted), turn) in jobs.iter().zip(&population.jobs).zip(&turns) {
        let due = wanted.wait.map_or_else(
            || "due_at = NULL, wait_code = NULL".to_owned(),
            |code| format!("due_at = now() + interval '1 hour', wait_code = '{code}'"),
        );
        statements +=
            &format!("UPDATE pending SET seq = {turn} + 1000000, {due} WHERE job_id = '{}';", job.id);
    }
    for (age, (lane, road)) in ids.iter().zip(&population.roads).enumerate() {
        // Each is due, the first one for the longest time.
        let when =
            if road.later { "+ interval '1 hour'".into() } else { format!("- interval '{} s'", 100 - age) };
        statements += &format!("UPDATE lanes SET runnable_at = now() {when} WHERE id = '{lane}';");
    }
    book.run(&statements).await;
    let mut conn = book.conn().await;
    for (lane, road) in ids.iter().zip(&population.roads).filter(|(_, road)| road.paused) {
        lanes::pause(&mut conn, tenants[road.tenant], *lane, "放假").await.expect("paused");
    }
    for (queue, paused) in [("send", &population.paused.0), ("cost", &population.paused.1)] {
        for tenant in paused {
            queues::pause(&mut conn, tenants[*tenant], queue).await.expect("paused");
        }
    }
    Settled { lanes: ids, jobs: jobs.iter().map(|job| job.id).collect(), turns }
}

/// Which jobs a look at the lanes hands out, and in which lanes it finds nothing.
fn heads(population: &Population, settled: &Settled) -> (Vec<Uuid>, Vec<Uuid>) {
    let (mut heads, mut idle) = (Vec::new(), Vec::new());
    let open = |lane: &usize| !population.roads[*lane].paused && !population.roads[*lane].later;
    let looked_at = (0..LANES).filter(open).take(usize::try_from(population.lane_limit).expect("a limit"));
    for lane in looked_at {
        let paused = population.paused.0.contains(&population.roads[lane].tenant);
        let of_lane: Vec<usize> =
            (0..population.jobs.len()).filter(|n| population.jobs[*n].place == Ok(lane)).collect();
        let held_back = |n: usize| {
            let job = &population.jobs[n];
            job.key.is_some()
                && of_lane.iter().any(|other| {
                    let before = &population.jobs[*other];
                    (before.class, before.key) == (job.class, job.key)
                        && settled.turns[*other] < settled.turns[n]
                        && before.wait.is_some_and(|why| why != "scheduled")
                })
        };
        let may_run = |n: &&usize| !paused && population.jobs[**n].wait.is_none() && !held_back(**n);
        match of_lane.iter().filter(may_run).min_by_key(|n| (population.jobs[**n].class, settled.turns[**n]))
        {
            Some(n) => heads.push(settled.jobs[*n]),
            None => idle.push(settled.lanes[lane]),
        }
    }
    (heads, idle)
}

/// Which jobs without a lane are handed out: an equal share of each tenant, in order.
fn shares(population: &Population, settled: &Settled) -> Vec<Uuid> {
    let mut waiting: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (n, job) in population.jobs.iter().enumerate() {
        if let (Err(tenant), None) = (job.place, job.wait)
            && !population.paused.1.contains(&tenant)
        {
            waiting.entry(tenant).or_default().push(n);
        }
    }
    let limit = usize::try_from(population.plain_limit).expect("a limit");
    let share = (limit / waiting.len().max(1)).max(1);
    let order = |n: &usize| (population.jobs[*n].class, settled.turns[*n]);
    let mut chosen: Vec<usize> = Vec::new();
    for jobs in waiting.values_mut() {
        jobs.sort_by_key(order);
        chosen.extend(jobs.iter().take(share));
    }
    chosen.truncate(limit);
    chosen.sort_by_key(order);
    chosen.into_iter().map(|n| settled.jobs[n]).collect()
}

#[test]
fn the_relay_chooses_as_documented() {
    try_all("the relay chooses as documented", 48, &population(), async |book, population| {
        let settled = settle(book, &population).await;
        let mut conn = book.conn().await;
        let picks = dispatch::pick_lanes(&mut conn, population.lane_limit, 3000).await.expect("picked");
        let (mut expected, mut idle_expected) = heads(&population, &settled);
        let mut found: Vec<Uuid> = picks.dispatched.iter().map(|one| one.job_id).collect();
        let mut idle = picks.idle;
        for list in [&mut expected, &mut idle_expected, &mut found, &mut idle] {
            list.sort_unstable();
        }
        if found != expected || idle != idle_expected {
            return Err(format!("lanes: {found:?}, {idle:?} instead of {expected:?}, {idle_expected:?}"));
        }
        let plain =
            dispatch::pick_plain(&mut conn, "cost", population.plain_limit, 3000).await.expect("picked");
        let plain: Vec<Uuid> = plain.into_iter().map(|one| one.job_id).collect();
        let expected = shares(&population, &settled);
        if plain != expected {
            return Err(format!("without a lane: {plain:?} instead of {expected:?}"));
        }
        Ok(())
    });
}
