package storetest

import (
	"cmp"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

const stateColumns = `generation, applied_generation, due_time, not_before, settle, delete_generation, lease_until,
	again_time, attempts, last_error, fail_time, fetch_time, source_update_time, missing_since, background, hint_time,
	notice_time, deaths`

// insert writes the state of a resource.
func (d database) insert(t *rapid.T, r mirror.Resource, s store.State) {
	when := func(t time.Time) sql.NullTime { return sql.NullTime{Time: t, Valid: !t.IsZero()} }
	_, err := d.sql.Exec(t.Context(),
		`insert into mirror_resource_state (bucket, project_id, room_id, kind, resource_id, `+
			stateColumns+`) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		append(keyArgs(r), s.Generation, s.Applied, when(s.Due), when(s.NotBefore), s.Settle,
			sql.NullInt64{Int64: s.DeleteGeneration, Valid: s.DeleteGeneration != 0}, when(s.LeaseUntil), when(s.RefetchAt),
			s.Attempts, s.LastError, when(s.FailTime), when(s.FetchTime), when(s.SourceUpdateTime), when(s.MissingSince),
			s.Background, when(s.EventTime), when(s.NoticeTime), s.Deaths)...)
	if err != nil {
		t.Fatalf("insert a state = %v", err)
	}
}

// states reads the states of what is in a room.
func (d database) states(t *rapid.T, room mirror.RoomID) map[mirror.Resource]store.State {
	out := make(map[mirror.Resource]store.State)
	err := d.sql.Each(t.Context(), "select kind, resource_id, "+stateColumns+
		" from mirror_resource_state where room_id = ?",
		func(scan func(dest ...any) error) error {
			r := mirror.Resource{Project: project, Room: room}
			var s store.State
			var due, notBefore, lease, again, fail, fetch, source, missing, event, notice sql.NullTime
			var deleted sql.NullInt64
			if err := scan(&r.Kind, &r.ID, &s.Generation, &s.Applied, &due, &notBefore, &s.Settle, &deleted, &lease, &again,
				&s.Attempts, &s.LastError, &fail, &fetch, &source, &missing, &s.Background, &event,
				&notice, &s.Deaths); err != nil {
				return err
			}
			s.DeleteGeneration = deleted.Int64
			for to, from := range map[*time.Time]sql.NullTime{
				&s.Due: due, &s.NotBefore: notBefore, &s.LeaseUntil: lease, &s.RefetchAt: again, &s.FailTime: fail,
				&s.FetchTime: fetch, &s.SourceUpdateTime: source, &s.MissingSince: missing, &s.EventTime: event,
				&s.NoticeTime: notice,
			} {
				if from.Valid {
					*to = from.Time.UTC()
				}
			}
			out[r] = s
			return nil
		}, string(room))
	if err != nil {
		t.Fatalf("read states = %v", err)
	}
	return out
}

// drawTime draws a time around now, or none.
func drawTime(t *rapid.T, now time.Time, what string) time.Time {
	n := rapid.IntRange(-4, 3).Draw(t, what)
	if n == -4 {
		return time.Time{}
	}
	return now.Add(time.Duration(n) * 7 * time.Second)
}

func drawState(t *rapid.T, now time.Time) store.State {
	s := store.State{
		Generation: rapid.Int64Range(1, 3).Draw(t, "generation"), Due: drawTime(t, now, "due"),
		NotBefore: drawTime(t, now, "not before"), Settle: rapid.Bool().Draw(t, "settle"),
		RefetchAt: drawTime(t, now, "refetch at"), Attempts: rapid.IntRange(0, 2).Draw(t, "attempts"), LastError: "x",
		FailTime: drawTime(t, now, "fail time"), FetchTime: drawTime(t, now, "fetch time"),
		SourceUpdateTime: drawTime(t, now, "source update time"), Background: rapid.Bool().Draw(t, "background"),
		EventTime: drawTime(t, now, "event time"), NoticeTime: drawTime(t, now, "notice time"),
		Deaths: rapid.IntRange(0, 5).Draw(t, "deaths"),
	}
	s.Applied = rapid.Int64Range(0, s.Generation).Draw(t, "applied")
	s.DeleteGeneration = rapid.Int64Range(0, s.Generation).Draw(t, "delete generation")
	return s
}

// lease leases a resource, which gets a state if it has none.
func (d database) lease(t *rapid.T, r mirror.Resource, now time.Time,
	states map[mirror.Resource]store.State,
) mirror.Lease {
	if _, ok := states[r]; !ok {
		states[r] = drawState(t, now)
		d.insert(t, r, states[r])
	}
	lease := mirror.Lease{
		Resource: r, Token: newToken(), Generation: states[r].Generation,
		Background: rapid.Bool().Draw(t, "leased in the background"),
	}
	if _, err := d.sql.Exec(t.Context(), "update mirror_resource_state set lease_token = ?"+whereKey,
		append([]any{lease.Token[:]}, keyArgs(r)...)...); err != nil {
		t.Fatalf("lease = %v", err)
	}
	return lease
}

// Resources become stale by State.MarkStale, and by one statement of each engine, which says the same of many at once.
func TestMarkStaleEqualsSQL(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		d := newDatabase(t, e)
		s := d.open(t)
		rooms := 0
		rapid.Check(t, func(t *rapid.T) {
			rooms++
			now := time.Date(2026, 3, 1, 12, 0, 0, 123_456_000, time.UTC)
			room := mirror.RoomID(fmt.Sprintf("room-%d", rooms))
			resources := []mirror.Resource{
				roomOf(room), storageOf(room), ydocOf(room), threadOf(room, ""), threadOf(room, "th_1"), activeUsersOf(room),
				userSessionsOf(room),
			}
			want := make(map[mirror.Resource]store.State)
			for _, r := range resources {
				if rapid.Bool().Draw(t, "known") {
					want[r] = drawState(t, now)
					d.insert(t, r, want[r])
				}
			}
			mark := func(list []store.Stale) {
				for _, w := range store.MergeStale(list) {
					if st := want[w.Resource].MarkStale(w); st.Generation > 0 {
						want[w.Resource] = st
					}
				}
			}
			resource := rapid.SampledFrom(resources)
			pending := func(what string, got []mirror.Pending) {
				for _, p := range got {
					if p.Generation != want[p.Resource].Generation {
						t.Fatalf("%s = %+v; want generation %d", what, p, want[p.Resource].Generation)
					}
				}
			}
			switch rapid.SampledFrom([]string{"accept", "request", "retry", "room", "park"}).Draw(t, "by") {
			case "accept":
				var batch []mirror.Delivery
				var list []store.Stale
				for i := range rapid.IntRange(1, 3).Draw(t, "events") {
					ev := mirror.Event{
						Project: project, ID: fmt.Sprintf("msg-%d-%d", rooms, i), SendTime: now,
						ReceiveTime: drawTime(t, now, "received"),
						SourceTime:  drawTime(t, now, "changed"),
					}
					ev.ReceiveTime = cmp.Or(ev.ReceiveTime, now)
					delivery := mirror.Delivery{Event: ev}
					for range rapid.IntRange(0, 4).Draw(t, "invalidations") {
						in := mirror.Invalidation{
							Resource: resource.Draw(t, "resource"), IfUnknown: rapid.Bool().Draw(t, "if unknown"),
							Deleted:     rapid.Bool().Draw(t, "deleted"),
							MinInterval: time.Duration(rapid.IntRange(0, 2).Draw(t, "min interval")) * 10 * time.Second,
						}
						delivery.Invalidations = append(delivery.Invalidations, in)
						list = append(list, store.StaleByEvent(ev, in))
					}
					batch = append(batch, delivery)
				}
				got, err := s.Accept(t.Context(), batch)
				if err != nil {
					t.Fatalf("Accept = %v", err)
				}
				mark(list)
				for _, a := range got {
					pending("Accept", a.Pending)
				}
			case "request":
				var requests []mirror.Request
				var list []store.Stale
				for range rapid.IntRange(1, 5).Draw(t, "requests") {
					r := mirror.Request{
						Resource: resource.Draw(t, "resource"), Unlisted: rapid.Bool().Draw(t, "unlisted"),
						Background: rapid.Bool().Draw(t, "background"), Settle: rapid.Bool().Draw(t, "settle"),
					}
					requests, list = append(requests, r), append(list, store.StaleByRequest(r, now))
				}
				got, err := s.Request(t.Context(), requests, now)
				if err != nil {
					t.Fatalf("Request = %v", err)
				}
				mark(list)
				pending("Request", got)
			case "retry":
				r := resource.Draw(t, "resource")
				task, err := s.Retry(t.Context(), r, now)
				if want[r].Generation == 0 {
					if !errors.Is(err, store.ErrNotFound) {
						t.Fatalf("Retry of what is unknown = %v; want %v", err, store.ErrNotFound)
					}
					break
				}
				w, wantErr := store.PlanRetry(want[r], r, now)
				if !errors.Is(err, wantErr) {
					t.Fatalf("Retry of %+v = %v; want %v", want[r], err, wantErr)
				}
				if err == nil {
					want[r] = want[r].Release()
					mark([]store.Stale{w})
					if d := gocmp.Diff(want[r].Task(r, now), task); d != "" {
						t.Fatalf("Retry (-want +got):\n%s", d)
					}
				}
			case "room":
				lease := d.lease(t, roomOf(room), now, want)
				content := mirror.RoomContent{FetchTime: now, Source: []byte(`{}`), CreateTime: now}
				applied, err := s.ApplyRoom(t.Context(), lease, content, now, 0)
				if err != nil {
					t.Fatalf("ApplyRoom = %v", err)
				}
				var list []store.Stale
				for _, r := range resources {
					child := slices.Contains(mirror.ChildKinds(), r.Kind)
					if _, known := want[r]; child && (known || slices.Contains(childrenOf(room), r)) {
						list = append(list, store.Stale{Resource: r, Now: now, Background: lease.Background})
					}
				}
				mark(list)
				var due []mirror.Resource
				for _, w := range store.MergeStale(list) {
					due = append(due, w.Resource)
				}
				if d := gocmp.Diff(due, applied.AlsoDue); d != "" {
					t.Fatalf("also due (-want +got):\n%s", d)
				}
				delete(want, roomOf(room))
			case "park":
				lease := d.lease(t, storageOf(room), now, want)
				parent := store.Parent{State: want[roomOf(room)]}
				if parent.State.Generation == 0 {
					mark([]store.Stale{{Resource: roomOf(room), Now: now, Background: lease.Background}})
					parent.State, parent.Fresh = want[roomOf(room)], true
				}
				if _, err := s.Park(t.Context(), lease, now); err != nil {
					t.Fatalf("Park = %v", err)
				}
				plan := store.PlanPark(want[storageOf(room)], parent, lease, now)
				mark(plan.Stale)
				delete(want, storageOf(room))
			}
			got := d.states(t, room)
			for r, st := range want {
				if d := gocmp.Diff(st, got[r]); d != "" {
					t.Fatalf("state of %v %q (-by MarkStale +by SQL):\n%s", r.Kind, r.ID, d)
				}
			}
		})
	})
}

// JSON that a server does not take for a column costs no other row its own, and the
// row says why it has none.
func TestRefusedJSONIsLostAlone(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		d := newDatabase(t, e)
		env := newEnv(t, d.open)
		env.mirrorRoom("room", env.roomContent(`{}`))
		const plain = `{"plain":true}`
		var users []mirror.ActiveUser
		var sessions []mirror.UserSession
		for what, source := range sources() {
			for _, info := range []string{source, plain} {
				n := int64(len(users))
				users = append(users, mirror.ActiveUser{ConnectionID: n, UserID: what, Info: []byte(info)})
				s := env.session("room", fmt.Sprintf("msg_%02d", n), n)
				s.Info = []byte(info)
				sessions = append(sessions, s)
				r := notificationOf("room", fmt.Sprintf("in_%02d", n))
				env.applyNotification(r, mirror.NotificationFold{
					FetchTime: env.now, Rows: []mirror.Notification{env.notification(r, s.ID)},
					Inbox: mirror.Inbox{Source: []byte(info)},
				})
			}
		}
		env.mirrorUsers("room", users...)
		env.upsertSessions(sessions...)
		count := func(table, where string, args ...any) int {
			t.Helper()
			n, err := dbtest.Value[int](t.Context(), d.sql, "select count(*) from "+table+" where "+where, args...)
			if err != nil {
				t.Fatalf("%s: %v", table, err)
			}
			return n
		}
		for table, column := range map[string]string{
			"mirror_active_user": "info", "mirror_user_session": "info", "mirror_notification": "inbox",
		} {
			if n := count(table, column+" is null and "+column+"_json = ?", []byte(plain)); n != 0 {
				t.Errorf("%s: %d plain rows lost their JSON; want none", table, n)
			}
			lost := column + " is null and " + column + "_json <> ?"
			if n := count(table, "("+lost+") <> ("+column+"_problem <> '')", []byte{}); n != 0 {
				t.Errorf("%s: %d rows have JSON and say why not, or neither; want none", table, n)
			}
			if n := count(table, column+"_problem like 'contains the character%'"); n != 1 {
				t.Errorf("%s: %d rows say that there is a NUL; want one", table, n)
			}
		}
	})
}
