package store_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

func resource(kind mirror.Kind, id string) mirror.Resource {
	return mirror.Resource{Project: "default", Room: "room", Kind: kind, ID: id}
}

// A child wakes its room unless that is due, and brings it to the fore if it is wanted at once.
func TestPlanParkWakesTheRoom(t *testing.T) {
	t.Parallel()
	room, later := resource(mirror.KindRoom, ""), now.Add(time.Hour)
	for _, c := range []struct {
		what       string
		background bool
		room       store.Parent
		stale      []store.Stale
		also       bool
	}{
		{"not due", true, store.Parent{}, []store.Stale{{Resource: room, Now: now, Background: true}}, true},
		{"not due, wanted at once", false, store.Parent{}, []store.Stale{{Resource: room, Now: now}}, true},
		{"due", false, store.Parent{State: store.State{Due: later}}, nil, false},
		{"due in the background", true, store.Parent{State: store.State{Due: later, Background: true}}, nil, false},
		{
			"due in the background, wanted at once", false,
			store.Parent{State: store.State{Due: later, Background: true}},
			[]store.Stale{{Resource: room, Now: later, SameGeneration: true}},
			true,
		},
		{"made due just now", true, store.Parent{State: store.State{Due: now, Background: true}, Fresh: true}, nil, true},
	} {
		lease := mirror.Lease{Resource: resource(mirror.KindStorage, "")}
		plan := store.PlanPark(store.State{Generation: 1, Due: now, Background: c.background}, c.room, lease, now)
		if d := cmp.Diff(c.stale, plan.Stale); d != "" || (len(plan.AlsoDue) == 1) != c.also || !plan.State.Due.IsZero() {
			t.Errorf("PlanPark beside a room that is %s = %+v (-want +got):\n%s", c.what, plan, d)
		}
	}
	lives := store.Parent{Copy: store.RoomCopy{Epoch: 1}}
	plan := store.PlanPark(store.State{Generation: 1}, lives, mirror.Lease{}, now)
	if !plan.State.Due.Equal(now) || plan.AlsoDue != nil {
		t.Errorf("PlanPark in a room that lives = %+v; want it due at once", plan)
	}
}

func TestPlanMissingChild(t *testing.T) {
	t.Parallel()
	st, f := store.State{Generation: 2, Applied: 1, Due: now}, store.Failure{Now: now, NotBefore: now.Add(time.Minute)}
	lease := mirror.Lease{Resource: resource(mirror.KindStorage, ""), Generation: 2, Epoch: 1}
	for what, c := range map[string]struct {
		room store.Parent
		due  time.Time
		err  error
	}{
		"lives": {store.Parent{Copy: store.RoomCopy{Epoch: 1}}, f.NotBefore, nil},
		"is missing": {
			store.Parent{Copy: store.RoomCopy{Epoch: 1}, State: store.State{MissingSince: now}},
			time.Time{},
			nil,
		},
		"is gone":           {store.Parent{Copy: store.RoomCopy{Epoch: 1, DeleteTime: now}}, time.Time{}, nil},
		"is of a new epoch": {store.Parent{Copy: store.RoomCopy{Epoch: 2}}, time.Time{}, store.ErrEpochChanged},
	} {
		plan, err := store.PlanMissingChild(st, c.room, lease, f)
		if !errors.Is(err, c.err) || !plan.State.Due.Equal(c.due) {
			t.Errorf("PlanMissingChild in a room that %s = %+v, %v; want it due %v, %v", what, plan, err, c.due, c.err)
		}
	}
}

func TestPlanRoom(t *testing.T) {
	t.Parallel()
	stored := store.RoomCopy{Epoch: 3, SHA256: [32]byte{1}, CreateTime: now}
	same := store.RoomCopy{SHA256: [32]byte{1}, CreateTime: now}
	for what, c := range map[string]struct {
		state           store.State
		stored, fetched store.RoomCopy
		want            store.RoomPlan
	}{
		"the same": {store.State{}, stored, same, store.RoomPlan{Plan: store.Plan{Epoch: 3}}},
		"other content": {
			store.State{},
			stored,
			store.RoomCopy{CreateTime: now},
			store.RoomPlan{Plan: store.Plan{Change: mirror.ChangeUpserted, Epoch: 3}},
		},
		"another one": {
			store.State{},
			stored,
			store.RoomCopy{SHA256: [32]byte{1}, CreateTime: now.Add(1)},
			store.RoomPlan{Plan: store.Plan{Change: mirror.ChangeUpserted, Epoch: 4}, Children: true},
		},
		"a new one": {
			store.State{},
			store.RoomCopy{},
			same,
			store.RoomPlan{Plan: store.Plan{Change: mirror.ChangeUpserted, Epoch: 1}, Children: true},
		},
		"one that was missing": {
			store.State{MissingSince: now}, stored, same, store.RoomPlan{Plan: store.Plan{Epoch: 3}, Children: true},
		},
	} {
		got := store.PlanRoom(c.state, c.stored, c.fetched, mirror.Lease{}, now, now, 0)
		if d := cmp.Diff(c.want, got, cmpopts.IgnoreFields(store.Plan{}, "State")); d != "" {
			t.Errorf("PlanRoom of %s (-want +got):\n%s", what, d)
		}
	}
}

// What is told of a resource more than once is marked once.
func TestMergeStale(t *testing.T) {
	t.Parallel()
	a, b := resource(mirror.KindStorage, ""), resource(mirror.KindThread, "")
	got := store.MergeStale([]store.Stale{
		{Resource: b, Now: now, Background: true},
		{
			Resource: a, Now: now.Add(time.Second), MinInterval: time.Minute, IfUnknown: true, Background: true,
			SourceTime: now,
		},
		{Resource: a, Now: now, Event: true, Deleted: true, Lift: true, SourceTime: now.Add(-time.Second)},
	})
	want := []store.Stale{
		{Resource: a, Now: now, Event: true, Deleted: true, Lift: true, SourceTime: now},
		{Resource: b, Now: now, Background: true},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("MergeStale (-want +got):\n%s", d)
	}
}
