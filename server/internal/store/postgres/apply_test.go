package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/postgres"
)

// mirrored claims the storage of a room that is mirrored, after an event on it.
func mirrored(t *testing.T, s *postgres.Store, event string, now time.Time) mirror.Lease {
	t.Helper()
	storage := mirror.Resource{Project: "default", Room: "room", Kind: mirror.KindStorage}
	if _, err := s.Request(t.Context(), []mirror.Request{{Resource: storage.RoomResource()}}, now); err != nil {
		t.Fatalf("Request = %v", err)
	}
	room, err := s.Claim(t.Context(), storage.RoomResource(), [16]byte{1}, now, time.Minute)
	if err == nil {
		_, err = s.ApplyRoom(t.Context(), room, mirror.RoomContent{FetchTime: now, Source: []byte(`{}`), CreateTime: now},
			now, 0)
	}
	if err != nil {
		t.Fatalf("mirror the room = %v", err)
	}
	if _, err := s.Accept(t.Context(), arrivalOf(event, storage, now)); err != nil {
		t.Fatalf("Accept = %v", err)
	}
	lease, err := s.Claim(t.Context(), storage, [16]byte{2}, now, time.Minute)
	if err != nil {
		t.Fatalf("Claim = %v", err)
	}
	return lease
}

// A store decides on what the claim has read, or reads under a lock. Whatever
// happens during the fetch, both have to end in the same rows.
func TestApplyEqualsApplyUnderLock(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	later := now.Add(time.Second)
	for _, c := range []struct {
		name   string
		during func(ctx context.Context, s *postgres.Store, lease mirror.Lease) error
		want   error
	}{
		{"nothing", func(context.Context, *postgres.Store, mirror.Lease) error { return nil }, nil},
		{"event", func(ctx context.Context, s *postgres.Store, l mirror.Lease) error {
			_, err := s.Accept(ctx, arrivalOf("during", l.Resource, later))
			return err
		}, nil},
		{"request", func(ctx context.Context, s *postgres.Store, l mirror.Lease) error {
			_, err := s.Request(ctx, []mirror.Request{{Resource: l.Resource}}, later)
			return err
		}, nil},
		{"retry", func(ctx context.Context, s *postgres.Store, l mirror.Lease) error {
			_, err := s.Retry(ctx, l.Resource, later)
			return err
		}, store.ErrLeaseLost},
		{"renewal", func(ctx context.Context, s *postgres.Store, l mirror.Lease) error {
			return s.Renew(ctx, l, later.Add(time.Minute))
		}, nil},
		{"lease taken over", func(ctx context.Context, s *postgres.Store, l mirror.Lease) error {
			_, err := s.Claim(ctx, l.Resource, [16]byte{3}, now.Add(time.Hour), time.Minute)
			return err
		}, store.ErrLeaseLost},
		{"room gone", func(ctx context.Context, s *postgres.Store, l mirror.Lease) error {
			room := l.Resource.RoomResource()
			a := arrivalOf("gone", room, now)
			a[0].Invalidations[0].Deleted = true
			if _, err := s.Accept(ctx, a); err != nil {
				return err
			}
			lease, err := s.Claim(ctx, room, [16]byte{3}, now, time.Minute)
			if err == nil {
				_, err = s.ApplyMissing(ctx, lease, store.Failure{Now: later}, 0)
			}
			return err
		}, store.ErrEpochChanged},
		{"room created anew", func(ctx context.Context, s *postgres.Store, l mirror.Lease) error {
			room := l.Resource.RoomResource()
			if _, err := s.Request(ctx, []mirror.Request{{Resource: room}}, now); err != nil {
				return err
			}
			lease, err := s.Claim(ctx, room, [16]byte{3}, now, time.Minute)
			if err == nil {
				_, err = s.ApplyRoom(ctx, lease, mirror.RoomContent{FetchTime: later, Source: []byte(`{}`), CreateTime: later},
					later, 0)
			}
			return err
		}, store.ErrEpochChanged},
	} {
		for _, settle := range []time.Duration{0, time.Minute} {
			for _, changed := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s/settle=%s/changed=%t", c.name, settle, changed), func(t *testing.T) {
					t.Parallel()
					type outcome struct {
						Applied  mirror.Applied
						Task     mirror.Task
						Document mirror.Document
						Changes  []mirror.Change
					}
					var got [2]outcome
					for i := range got {
						url := dbtest.Postgres.Database(t)
						claimer, other := open(t, postgres.Config{URL: url}), open(t, postgres.Config{URL: url})
						doc := mirror.DocumentContent{
							FetchTime: now, Content: []byte("content"), DeriveVersion: 1,
							Data: []byte(`{"a":1}`),
						}
						lease := mirrored(t, claimer, "first", now)
						if !changed {
							if _, err := claimer.ApplyDocument(t.Context(), lease, doc, now, 0); err != nil {
								t.Fatalf("ApplyDocument = %v", err)
							}
							lease = mirrored(t, claimer, "second", now)
						}
						if err := c.during(t.Context(), other, lease); err != nil {
							t.Fatalf("%s = %v", c.name, err)
						}
						if i == 1 {
							lease.Seen = nil
						}
						var err error
						if got[i].Applied, err = other.ApplyDocument(t.Context(), lease, doc, later, settle); !errors.Is(err, c.want) {
							t.Fatalf("ApplyDocument = %v; want %v", err, c.want)
						}
						if got[i].Task, err = other.Task(t.Context(), lease.Resource, later); err != nil {
							t.Fatalf("Task = %v", err)
						}
						if got[i].Document, err = other.Document(t.Context(), lease.Resource, true); err != nil &&
							!errors.Is(err, store.ErrNotFound) {
							t.Fatalf("Document = %v", err)
						}
						got[i].Changes = changesOf(t, other, lease.Resource)
					}
					if diff := cmp.Diff(got[1], got[0]); diff != "" {
						t.Fatalf("after a decision on what Claim read (-under a lock, +so):\n%s", diff)
					}
				})
			}
		}
	}
}

// changesOf returns the entries of the bucket of a resource.
func changesOf(t *testing.T, s *postgres.Store, r mirror.Resource) []mirror.Change {
	t.Helper()
	changes, err := s.Changes(t.Context(), []store.ChangeRange{{Bucket: r.Bucket(), To: 10}})
	if err != nil {
		t.Fatalf("Changes = %v", err)
	}
	return changes
}

// A server may find only at the commit that it has to undo a transaction. All of
// it is run again, and nothing is done twice.
func TestFailedCommitIsRetried(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for what, call := range map[string]func(ctx context.Context, claimer, other *postgres.Store, l mirror.Lease) error{
		"apply": func(ctx context.Context, claimer, _ *postgres.Store, l mirror.Lease) error {
			_, err := claimer.ApplyDocument(ctx, l, mirror.DocumentContent{
				FetchTime: now, Content: []byte("content"),
				DeriveVersion: 1,
			}, now, 0)
			return err
		},
		"apply under lock": func(ctx context.Context, _, other *postgres.Store, l mirror.Lease) error {
			l.Seen = nil
			_, err := other.ApplyDocument(ctx, l, mirror.DocumentContent{
				FetchTime: now, Content: []byte("content"),
				DeriveVersion: 1,
			}, now, 0)
			return err
		},
		"fail": func(ctx context.Context, claimer, _ *postgres.Store, l mirror.Lease) error {
			_, err := claimer.Fail(ctx, l, store.Failure{Now: now, NotBefore: now.Add(time.Minute), Cause: "down"})
			return err
		},
		"accept": func(ctx context.Context, claimer, _ *postgres.Store, l mirror.Lease) error {
			got, err := claimer.Accept(ctx, arrivalOf("msg", l.Resource, now))
			if err == nil && (!got[0].Fresh || got[0].Pending[0].Generation != l.Generation+1) {
				return fmt.Errorf("Accept = %+v; want it fresh and raised once", got)
			}
			return err
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			url := dbtest.Postgres.Own(t)
			claimer, other, conn := open(t, postgres.Config{URL: url}), open(t, postgres.Config{URL: url}), connect(t, url)
			lease := mirrored(t, claimer, "first", now)
			mustExec(t, conn, `create sequence commits`)
			mustExec(t, conn, `create function refuse() returns trigger language plpgsql as $$
				begin
					if nextval('commits') <= 2 then
						raise exception 'not now' using errcode = 'serialization_failure';
					end if;
					return null;
				end $$`)
			mustExec(t, conn, `create constraint trigger refuse after update on mirror_resource_state
				deferrable initially deferred for each row execute function refuse()`)
			if err := call(t.Context(), claimer, other, lease); err != nil {
				t.Fatalf("call with two failed commits = %v; want it retried", err)
			}
			if n := value[int](t, conn, "select last_value from commits"); n != 3 {
				t.Fatalf("commits = %d; want 3", n)
			}
			changes := changesOf(t, other, lease.Resource)
			want := 1 // that of the room
			if what == "apply" || what == "apply under lock" {
				want++
			}
			if len(changes) != want {
				t.Fatalf("Changes = %v; want %d", changes, want)
			}
		})
	}
}

// A claim does not wait for the disk. What is committed after it does.
func TestOnlyTheClaimIsAsynchronous(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	url := dbtest.Postgres.Own(t)
	s, conn := open(t, postgres.Config{URL: url, MaxConns: 1}), connect(t, url)
	mustExec(t, conn, `create table seen (what text, setting text)`)
	mustExec(t, conn, `create function note() returns trigger language plpgsql as $$
		begin
			insert into seen values (case when new.lease_token is null then 'other' else 'claim' end,
				current_setting('synchronous_commit'));
			return null;
		end $$`)
	mustExec(t, conn, `create constraint trigger note after insert or update on mirror_resource_state
		deferrable initially deferred for each row execute function note()`)
	lease := mirrored(t, s, "first", now)
	if _, err := s.ApplyDocument(t.Context(), lease, mirror.DocumentContent{
		FetchTime: now, Content: []byte("content"),
		DeriveVersion: 1,
	}, now, 0); err != nil {
		t.Fatalf("ApplyDocument = %v", err)
	}
	got := value[[]string](t, conn,
		"select array_agg(distinct what || ' ' || setting order by what || ' ' || setting) from seen")
	if diff := cmp.Diff([]string{"claim off", "other on"}, got); diff != "" {
		t.Fatalf("synchronous_commit at the commit of claims and others (-want +got):\n%s", diff)
	}
}

// A transaction that ends early is rolled back, and its session goes on.
func TestSessionOutlivesRollback(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	url := dbtest.Postgres.Database(t)
	s, conn := open(t, postgres.Config{URL: url, MaxConns: 1}), connect(t, url)
	const sessions = "select pid from pg_stat_activity where datname = current_database() " +
		"and pid <> pg_backend_pid() and backend_type = 'client backend'"
	lease := mirrored(t, s, "first", now)
	before := value[int](t, conn, sessions)
	lease.Token[0]++
	if _, err := s.Fail(t.Context(), lease, store.Failure{Now: now}); !errors.Is(err, store.ErrLeaseLost) {
		t.Fatalf("Fail = %v; want %v", err, store.ErrLeaseLost)
	}
	if _, err := s.Request(t.Context(), []mirror.Request{{Resource: lease.Resource}}, now); err != nil {
		t.Fatalf("Request = %v", err)
	}
	if after := value[int](t, conn, sessions); after != before {
		t.Fatalf("sessions = %d, then %d; want the same one", before, after)
	}
}
