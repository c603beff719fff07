-- +goose NO TRANSACTION
-- +goose Up

-- As in the migrations before, each statement can be run again. Both columns only
-- change the dictionary: no row is rewritten.

-- When the latest event on the resource arrived. A fetch that begins long enough
-- after it needs no settle fetch.
alter table mirror_resource_state add column notice_time datetime(6);

-- How often the process ended during the task since its last success: leases that
-- were neither given back nor renewed.
alter table mirror_resource_state add column deaths smallint not null default 0;
