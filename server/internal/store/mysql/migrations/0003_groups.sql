-- +goose NO TRANSACTION
-- +goose Up

-- As in the migrations before, each statement can be run again.

-- Groups of users. They belong to the project and to no room; their bucket is
-- that of the empty room id. How fresh a group is stands in mirror_resource_state.
create table if not exists mirror_group (
    bucket smallint not null,
    project_id varbinary(64) not null,
    group_id varbinary(128) not null,
    organization_id varbinary(128) not null,
    -- The group as Liveblocks answered it, byte for byte.
    source_json longblob not null,
    -- Of source_json in canonical form. Zero if it is to be written again.
    content_sha256 binary(32) not null,
    create_time datetime(6),
    update_time datetime(6),
    delete_time datetime(6),
    primary key (bucket, project_id, group_id)
) engine = InnoDB default character set utf8mb4 collate utf8mb4_bin;

create table if not exists mirror_group_member (
    bucket smallint not null,
    project_id varbinary(64) not null,
    group_id varbinary(128) not null,
    user_id varbinary(512) not null,
    add_time datetime(6),
    primary key (bucket, project_id, group_id, user_id),
    key mirror_group_member_by_user (project_id, user_id, group_id)
) engine = InnoDB default character set utf8mb4 collate utf8mb4_bin;
