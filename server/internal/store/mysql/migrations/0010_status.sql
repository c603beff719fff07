-- +goose NO TRANSACTION
-- +goose Up

-- Changes that sweeps found and no event told of: how many of each kind, and when the
-- first and the latest of them were counted. A few small rows for each project.
create table if not exists mirror_unannounced (
    project_id varbinary(64) not null,
    kind smallint not null,
    changes bigint not null,
    first_time datetime(6) not null,
    last_time datetime(6) not null,
    primary key (project_id, kind)
) engine = InnoDB default character set utf8mb4 collate utf8mb4_bin;
