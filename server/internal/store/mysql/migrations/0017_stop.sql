-- +goose NO TRANSACTION
-- +goose Up

-- An operator can stop fetching. The table has a row for each project, so this costs
-- nothing whatever is mirrored.
alter table mirror_project
    -- Why an operator has stopped fetching, and when; null if none has.
    add column stop_reason mediumtext,
    add column stop_time datetime(6);
