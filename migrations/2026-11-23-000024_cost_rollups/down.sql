DROP TABLE cost_rollup_progress;
DROP TABLE cost_rollups;
