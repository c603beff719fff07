-- +goose Up

-- Changes that sweeps found and no event told of: how many of each kind, and when the
-- first and the latest of them were counted. A few small rows for each project.
create table mirror_unannounced (
    project_id text collate "C" not null,
    kind smallint not null,
    changes bigint not null,
    first_time timestamptz not null,
    last_time timestamptz not null,
    constraint mirror_unannounced_pkey primary key (project_id, kind)
);
