//! The resources, one file each: their request and response types beside their handlers.

mod account_ai;
mod account_fields;
mod account_health;
mod account_limits;
mod accounts;
mod ai_replies;
mod ai_runs;
mod ai_workflows;
mod alerts;
mod audit;
mod auth;
mod batch;
mod budgets;
mod bulk;
mod calendars;
mod callback_events;
mod contact_import;
mod contact_syncs;
mod contacts;
mod control;
mod conversations;
mod costs;
mod drafts;
mod enqueue;
mod enrollments;
mod job_view;
mod jobs;
mod lanes;
mod material_files;
mod materials;
mod media;
mod message;
mod prices;
#[cfg(test)]
mod properties;
mod queues;
mod reports;
mod schedule_lines;
mod schedules;
mod search;
mod sends;
mod sensitive_words;
mod settings;
mod sop;
mod sop_dry_run;
mod sop_funnel;
mod sop_life;
mod sop_reviews;
mod sop_runs;
mod sop_step;
mod sop_tasks;
mod sop_tasks_view;
mod sop_why;
mod span;
mod stops;
mod users;
mod workers;

use poem::endpoint::make_sync;
use poem::http::header;
use poem::{Endpoint, EndpointExt, IntoEndpoint, Response};
use poem_openapi::{OpenApiService, Tags};

pub(crate) use self::sop_funnel::{Funnel, FunnelKey};
use crate::http::operation::Operations;

/// The chapters of the API.
#[derive(Tags)]
enum Tag {
    /// Organisations, people, logging in.
    Auth,
    /// WeChat accounts, their limits, pause and resume.
    Accounts,
    /// Work: enqueue it, see where it stands, step in.
    Jobs,
    /// What left, when, to whom, with which outcome.
    Sends,
    /// Who answers customers: workflows, words, and what the organisation has chosen.
    Answers,
    /// What a person should look at.
    Alerts,
    /// What was said to whom, who answers, contacts.
    Conversations,
    /// Plans that write to many people, step by step: what they say and send, when, and what stops them.
    Campaigns,
    /// Queues, lanes, workers, and what the platform does by the clock.
    Operations,
    /// Prices of models and what was spent.
    Costs,
    /// Who did what.
    Audit,
}

/// What decides who answers customers, and what people should look at.
type Answering = (
    ai_workflows::AiWorkflows,
    account_ai::AccountAnswers,
    settings::Settings,
    sensitive_words::SensitiveWords,
    drafts::Drafts,
    alerts::Alerts,
);

const ANSWERING: Answering = (
    ai_workflows::AiWorkflows,
    account_ai::AccountAnswers,
    settings::Settings,
    sensitive_words::SensitiveWords,
    drafts::Drafts,
    alerts::Alerts,
);

/// Plans, what they send, and when they may.
type Campaigning = (
    sop_tasks::SopTasks,
    sop_life::SopLife,
    sop_runs::SopRuns,
    sop_reviews::SopReviews,
    sop::Sop,
    (materials::Materials, material_files::MaterialFiles),
    calendars::Calendars,
    stops::Stops,
);

const CAMPAIGNING: Campaigning = (
    sop_tasks::SopTasks,
    sop_life::SopLife,
    sop_runs::SopRuns,
    sop_reviews::SopReviews,
    sop::Sop,
    (materials::Materials, material_files::MaterialFiles),
    calendars::Calendars,
    stops::Stops,
);

/// What plans would do, have done, and why not.
type Foreseeing = (sop_dry_run::SopDryRun, sop_funnel::SopFunnel, sop_why::SopWhy);

const FORESEEING: Foreseeing = (sop_dry_run::SopDryRun, sop_funnel::SopFunnel, sop_why::SopWhy);

type Api = (
    auth::Auth,
    users::Users,
    accounts::Accounts,
    (enqueue::Enqueue, batch::Batch, ai_replies::AiReplies, ai_runs::AiRuns, sop_step::SopSteps),
    jobs::Jobs,
    control::Control,
    bulk::Bulk,
    sends::Sends,
    (
        conversations::Conversations,
        contacts::Contacts,
        contact_import::ContactImport,
        contact_syncs::ContactSyncs,
        media::MessageMedia,
    ),
    queues::Queues,
    lanes::Lanes,
    (workers::Workers, schedules::Schedules),
    (callback_events::CallbackEvents, search::MessageSearch),
    (costs::Costs, prices::Prices, budgets::Budgets, reports::Reports),
    audit::AuditLog,
    (Answering, Campaigning, enrollments::SopEnrollments, Foreseeing),
);

const DESCRIPTION: &str = "\
Takes work for WeChat accounts, carries it out under strict limits, and says at any time where it stands and why.\n\n\
- Ids are UUIDs, times RFC 3339, provider ids strings.\n\
- Errors are `application/problem+json` with a stable `code`; unknown fields and parameters are refused.\n\
- Lists are pages of at most 200, newest first; pass `next_cursor` as `cursor`.\n\
- Jobs are accepted with 202: they are stored and will run, also if Redis is away.\n\
- Send an `Idempotency-Key` with everything that makes a job: the same key and body is the same job.";

fn service() -> OpenApiService<Operations<Api>, ()> {
    let api: Api = (
        auth::Auth,
        users::Users,
        accounts::Accounts,
        (enqueue::Enqueue, batch::Batch, ai_replies::AiReplies, ai_runs::AiRuns, sop_step::SopSteps),
        jobs::Jobs,
        control::Control,
        bulk::Bulk,
        sends::Sends,
        (
            conversations::Conversations,
            contacts::Contacts,
            contact_import::ContactImport,
            contact_syncs::ContactSyncs,
            media::MessageMedia,
        ),
        queues::Queues,
        lanes::Lanes,
        (workers::Workers, schedules::Schedules),
        (callback_events::CallbackEvents, search::MessageSearch),
        (costs::Costs, prices::Prices, budgets::Budgets, reports::Reports),
        audit::AuditLog,
        (ANSWERING, CAMPAIGNING, enrollments::SopEnrollments, FORESEEING),
    );
    OpenApiService::new(Operations(api), "Entropy", "1").description(DESCRIPTION).server("/api/v1")
}

/// Returns the operations, and the document that describes them.
pub(crate) fn endpoint() -> impl Endpoint<Output = Response> + 'static {
    let document = openapi_document();
    let document =
        make_sync(move |_| Response::builder().content_type("application/json").body(document.clone()));
    poem::Route::new()
        .at("/openapi.json", poem::get(document))
        .nest_no_strip("/", service().into_endpoint())
        .map_to_response()
}

/// Returns the page that shows the document.
pub(crate) fn docs() -> impl Endpoint<Output = Response> + 'static {
    // The page carries its script and style in itself.
    const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
        img-src data:; connect-src 'self'; frame-ancestors 'none'";
    let page = service().swagger_ui_html();
    make_sync(move |_| {
        Response::builder()
            .content_type("text/html; charset=utf-8")
            .header(header::CONTENT_SECURITY_POLICY, POLICY)
            .header(header::CACHE_CONTROL, "no-cache")
            .body(page.clone())
    })
}

/// Checks an `Idempotency-Key`.
#[cfg(feature = "fuzzing")]
pub(crate) fn checked_key(key: Option<&str>) -> Result<Option<String>, crate::problem::ApiError> {
    enqueue::checked_key(key, "Idempotency-Key")
}

/// Returns the OpenAPI document: pretty JSON in a stable order.
pub fn openapi_document() -> String {
    service().spec()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn document() -> Value {
        serde_json::from_str(&openapi_document()).expect("JSON")
    }

    #[test]
    fn the_document_is_the_same_every_time() {
        assert_eq!(openapi_document(), openapi_document());
    }

    #[test]
    fn every_operation_has_a_name_a_summary_a_tag_and_its_problems() {
        let document = document();
        let paths = document["paths"].as_object().expect("paths");
        assert!(paths.len() >= 30, "{}", paths.len());
        for (path, operations) in paths {
            for (method, operation) in operations.as_object().expect("operations") {
                let name = format!("{method} {path}");
                assert!(operation["operationId"].is_string(), "{name}");
                assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{name}");
                assert!(operation["description"].as_str().is_some_and(|text| !text.is_empty()), "{name}");
                assert!(operation["tags"].as_array().is_some_and(|tags| tags.len() == 1), "{name}");
                assert!(operation["responses"]["503"].is_object(), "{name}");
                let open = path.starts_with("/auth/register") || path.starts_with("/auth/login");
                assert_eq!(operation["security"].is_array(), !open, "{name}");
            }
        }
    }
}
