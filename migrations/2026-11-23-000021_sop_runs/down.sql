DROP TABLE sop_run_contacts;
DROP TABLE sop_runs;
