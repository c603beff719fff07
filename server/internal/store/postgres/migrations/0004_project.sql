-- +goose Up

-- What is known of the Liveblocks project behind a project. The table has a row for
-- each project, so this costs nothing whatever is mirrored.
alter table mirror_project
    -- A salt and the HMAC of the secret key that was shown to belong to the mirrored
    -- rooms; null until one was.
    add column key_hash bytea,
    -- When an operator stated that the key is right although no room shows it.
    add column key_confirm_time timestamptz,
    -- Events of another Liveblocks project that were set aside: whose the latest was,
    -- when it came, and how many there are.
    add column foreign_project_id text collate "C" not null default '',
    add column foreign_events bigint not null default 0,
    add column foreign_time timestamptz,
    -- How many rooms and groups an operator has confirmed to be gone, and when.
    add column confirmed_rooms bigint not null default 0,
    add column confirmed_groups bigint not null default 0,
    add column confirm_time timestamptz;
