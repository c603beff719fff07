-- +goose Up

-- Groups of users. They belong to the project and to no room; their bucket is
-- that of the empty room id. How fresh a group is stands in mirror_resource_state.
create table mirror_group (
    bucket smallint not null,
    project_id text collate "C" not null,
    group_id text collate "C" not null,
    organization_id text collate "C" not null,
    -- The group as Liveblocks answered it, byte for byte.
    source_json bytea not null,
    -- Of source_json in canonical form. Empty if it is to be written again.
    content_sha256 bytea not null,
    create_time timestamptz,
    update_time timestamptz,
    delete_time timestamptz,
    constraint mirror_group_pkey primary key (bucket, project_id, group_id)
);

create table mirror_group_member (
    bucket smallint not null,
    project_id text collate "C" not null,
    group_id text collate "C" not null,
    user_id text collate "C" not null,
    add_time timestamptz,
    constraint mirror_group_member_pkey primary key (bucket, project_id, group_id, user_id)
);

create index mirror_group_member_by_user on mirror_group_member (project_id, user_id, group_id);
