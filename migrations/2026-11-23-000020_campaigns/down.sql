DROP TABLE schedules;
ALTER TABLE contacts DROP COLUMN source, DROP COLUMN timezone;
ALTER TABLE wechat_accounts DROP COLUMN adviser_name, DROP COLUMN risk_signal, DROP COLUMN risk_lifted_at, DROP COLUMN warm_since;
ALTER TABLE organization_settings
    DROP COLUMN campaign_name,
    DROP COLUMN approval_required,
    DROP COLUMN max_unanswered,
    DROP COLUMN new_contacts_per_day,
    DROP COLUMN account_per_day,
    DROP COLUMN contact_per_week,
    DROP COLUMN contact_per_day,
    DROP COLUMN campaign_until,
    DROP COLUMN campaign_from;
DROP TABLE calendars;
DROP TABLE material_revisions;
DROP TABLE materials;
DROP TABLE stops;
DROP TABLE consents;
DROP FUNCTION campaign_now();
DROP TABLE sop_steps;
DROP TABLE sop_enrollments;
DROP TABLE sop_versions;
DROP TABLE sop_tasks;
