//! The generator of mixed traffic and its judgement, with nothing going wrong; and that what is wrong is found.

use crate::harness::history::Fault;
use crate::harness::traffic::{Evidence, JobRow, Traffic, TrafficShape};
use crate::harness::{Platform, chaos, secs};

/// Doctors the evidence and returns the faults and breaches that are found then.
fn doctored(evidence: &Evidence, doctor: impl FnOnce(&mut Evidence)) -> (Vec<Fault>, Vec<String>) {
    let mut doctored = evidence.clone();
    doctor(&mut doctored);
    let report = doctored.judge();
    assert!(!report.is_clean());
    (report.faults, report.breaches)
}

/// A request whose answer is lost is made again elsewhere, and is the same job.
#[tokio::test]
async fn traffic_goes_on_while_processes_of_the_api_die() {
    let mut platform = Platform::with().api(2).workers(1).start().await;
    let shape = TrafficShape { accounts: 4, rate_per_s: 25.0, ..TrafficShape::default() };
    let mut traffic = Traffic::prepare(&platform, chaos::seed(), shape).await;
    let bases = [platform.base(0).to_owned(), platform.base(1).to_owned()];
    let kill = async {
        for n in [0, 1, 0] {
            tokio::time::sleep(secs(1)).await;
            platform.kill_api(n);
            tokio::time::sleep(secs(1)).await;
            platform.restart_api(n);
        }
    };
    futures::join!(traffic.run(&bases, secs(7)), kill);
    platform.idle(secs(90)).await;
    let report = traffic.check(&platform).await;
    println!("{report}");
    report.assert_clean();
    assert!(report.api_retries > 0 && report.sent > 20, "{report}");
    assert!(report.unknown.is_empty(), "no worker has died: {report}");
}

/// Everything that callers do, and a doctored copy of what came of it for each way of being wrong.
#[tokio::test]
async fn quiet_traffic_is_carried_out_and_a_doctored_record_or_ledger_is_rejected() {
    let platform = Platform::with().api(2).workers(2).start().await;
    let shape = TrafficShape { rate_per_s: 25.0, ..TrafficShape::default() };
    let mut traffic = Traffic::prepare(&platform, chaos::seed(), shape).await;
    let bases = [platform.base(0).to_owned(), platform.base(1).to_owned()];
    // Twice: conversations go on where they were.
    traffic.run(&bases, secs(4)).await;
    traffic.run(&bases, secs(4)).await;
    platform.idle(secs(90)).await;
    let report = traffic.check(&platform).await;
    println!("{report}");
    report.assert_clean();
    assert!(report.sent > 30 && report.cancelled > 0 && report.expired > 0 && report.tallies > 0, "{report}");
    assert!(report.account_pauses > 0 && report.uncertain_pauses == 0, "{report}");
    assert_eq!((report.arrived, report.calls), (report.sent, report.sent), "{report}");
    assert_eq!(report.dead + report.unknown.len(), 0, "nothing has died: {report}");

    let evidence = traffic.evidence(&platform).await;
    let message = evidence.arrived.last().expect("an arrival").message.clone();
    let of_message = |evidence: &Evidence| {
        let found = evidence.jobs.iter().position(|job| job.text.as_deref() == Some(message.text.as_str()));
        found.expect("its job")
    };

    let (faults, breaches) = doctored(&evidence, |evidence| drop(evidence.arrived.pop()));
    assert_eq!((faults, breaches), (vec![Fault::Lost(message.clone())], vec![]));

    let (faults, breaches) = doctored(&evidence, |evidence| {
        let mut again = evidence.arrived.last().expect("an arrival").clone();
        // A day later, so that no limit is broken besides.
        again.at_us += 86_400_000_000;
        evidence.arrived.push(again);
    });
    assert_eq!(breaches, [""; 0]);
    assert!(faults.contains(&Fault::Repeated(message.clone(), 2)), "{faults:?}");

    let (faults, breaches) = doctored(&evidence, |evidence| {
        let job = of_message(evidence);
        evidence.jobs[job].final_state = Some("cancelled".into());
        let id = evidence.jobs[job].id;
        evidence.sends.retain(|send| send.job_id != id);
    });
    assert_eq!((faults, breaches), (vec![Fault::Denied(message.clone())], vec![]));

    let (faults, breaches) = doctored(&evidence, |evidence| {
        let job = of_message(evidence);
        evidence.jobs[job].final_state = Some("cancelled".into());
    });
    assert_eq!((faults, breaches.len()), (vec![], 1), "the send says one thing and the job another");

    let (faults, breaches) = doctored(&evidence, |evidence| {
        let job = of_message(evidence);
        evidence.jobs[job].final_state = None;
    });
    assert_eq!((faults, breaches.len()), (vec![], 1), "it has not ended");

    let (faults, breaches) = doctored(&evidence, |evidence| {
        let job = of_message(evidence);
        let twin = JobRow { id: uuid::Uuid::now_v7(), ..evidence.jobs[job].clone() };
        evidence.jobs.push(twin);
    });
    assert_eq!(breaches.len(), 1, "one request became two jobs: {breaches:?}");
    // Nothing that is asked for then fits the arrival.
    assert_eq!(faults, [Fault::Unasked(message.clone())]);

    let (faults, breaches) = doctored(&evidence, |evidence| {
        let job = of_message(evidence);
        evidence.jobs.remove(job);
    });
    assert_eq!((faults, breaches.len()), (vec![Fault::Unasked(message.clone())], 1), "a job is gone");

    let (faults, breaches) = doctored(&evidence, |evidence| drop(evidence.costs.pop()));
    assert_eq!((faults, breaches.len()), (vec![], 1), "a run was not entered");
    let (faults, breaches) = doctored(&evidence, |evidence| {
        let line = evidence.costs.last().expect("a line").clone();
        evidence.costs.push(line);
    });
    assert_eq!((faults, breaches.len()), (vec![], 1), "a run was entered twice");

    let (faults, _) = doctored(&evidence, |evidence| {
        let pause = evidence.rules.pauses[0].clone();
        let middle_us = (pause.from_us + pause.until_us) / 2;
        let jobs = &evidence.jobs;
        let of_account = |job: uuid::Uuid| {
            jobs.iter().any(|row| row.id == job && row.app_id.as_deref() == Some(pause.app_id.as_str()))
        };
        let send = evidence.sends.iter_mut().find(|send| of_account(send.job_id)).expect("a send");
        send.gate_us = middle_us;
    });
    assert!(faults.iter().any(|fault| matches!(fault, Fault::SentWhilePaused { .. })), "{faults:?}");

    let (faults, breaches) = doctored(&evidence, |evidence| {
        // One that failed, at the same moment as another.
        let call = evidence.calls.last().expect("a call").clone();
        evidence.rules.accounts.get_mut(&call.message.app_id).expect("its limits").min_gap = secs(1);
        evidence.arrived.retain(|arrival| arrival.message.app_id != call.message.app_id);
        evidence.calls.push(call);
    });
    assert_eq!(breaches, [""; 0]);
    assert!(faults.iter().any(|fault| matches!(fault, Fault::TooClose { gap_us: 0, .. })), "{faults:?}");

    let (faults, _) = doctored(&evidence, |evidence| {
        evidence.rules.accounts.values_mut().for_each(|limits| limits.per_minute = 1);
    });
    assert!(faults.iter().all(|fault| matches!(fault, Fault::TooMany { .. })), "{faults:?}");
}
