-- +goose Up

-- Both columns only change the catalogue: no row is rewritten.

-- When the latest event on the resource arrived. A fetch that begins long enough
-- after it needs no settle fetch.
alter table mirror_resource_state add column notice_time timestamptz;

-- How often the process ended during the task since its last success: leases that
-- were neither given back nor renewed.
alter table mirror_resource_state add column deaths smallint not null default 0;
