package queue

import (
	"cmp"
	"container/heap"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// lane is the urgency of a resource: lower lanes go first.
type lane int

const (
	// laneApart is for tasks that take minutes. They need no worker.
	laneApart lane = iota
	// laneLive is for events and requests.
	laneLive
	// laneSettle is for what has been applied, and is only to be fetched once more. It
	// goes after laneLive, but not for longer than settlePatience.
	laneSettle
	// laneBackground is for tasks that run while nothing else is ready, and for now
	// and then one beside it.
	laneBackground
	lanes
)

// laneOf returns the lane of a resource that is due in the lane l. settles means that all
// that is known of it has been applied; of others than documents and threads that does
// not mean that nothing is left to do.
func laneOf(l lane, r mirror.Resource, settles bool) lane {
	if l == laneLive && settles && r.Announced() {
		return laneSettle
	}
	return l
}

// class says what a task needs to begin, beside a worker.
type class int

const (
	// classFree needs nothing more.
	classFree class = iota
	// classPart can do a part of its work without a call.
	classPart
	// classCall needs a turn to call Liveblocks, and a place among the fetches.
	classCall
	classes
)

func classOf(k mirror.Kind) class {
	switch k.Traits().Calls {
	case mirror.CallsNone:
		return classFree
	case mirror.CallsPart:
		return classPart
	case mirror.CallsAlways:
	}
	return classCall
}

// entry is a resource whose task waits to begin.
type entry struct {
	resource mirror.Resource
	lane     lane
	class    class
	// due orders the entries of a lane. An entry does not begin before.
	due time.Time
	// number orders entries that are due at the same time.
	number int64
	// place is that in its line; -1 if it is in none.
	place int
	// alone means that the task begins while nothing else runs.
	alone bool
	// causes are the spans of the deliveries that made it stale.
	causes []mirror.Span
}

// before orders entries. A room comes before what is in it.
func (e *entry) before(o *entry) bool {
	room := func(e *entry) int {
		if e.resource.Kind == mirror.KindRoom {
			return 0
		}
		return 1
	}
	return cmp.Or(e.due.Compare(o.due), cmp.Compare(room(e), room(o)), cmp.Compare(e.number, o.number)) < 0
}

// line holds entries by due time.
type line []*entry

func (l line) Len() int           { return len(l) }
func (l line) Less(i, j int) bool { return l[i].before(l[j]) }
func (l line) Swap(i, j int) {
	l[i], l[j] = l[j], l[i]
	l[i].place, l[j].place = i, j
}

// Push is part of heap.Interface.
func (l *line) Push(x any) {
	e, _ := x.(*entry) // nothing else is pushed
	e.place = len(*l)
	*l = append(*l, e)
}

// Pop is part of heap.Interface.
func (l *line) Pop() any {
	old := *l
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*l = old[:len(old)-1]
	e.place = -1
	return e
}

// head returns the first entry, nil if there is none.
func (l line) head() *entry {
	if len(l) == 0 {
		return nil
	}
	return l[0]
}

// first returns the one that comes first of two entries, either of which may be nil.
func first(a, b *entry) *entry {
	if a == nil || b != nil && b.before(a) {
		return b
	}
	return a
}

// lines holds all entries.
type lines struct {
	of     [lanes][classes]line
	queued map[mirror.Resource]*entry
	count  [lanes]int // of queued
	number int64
	// aside are entries whose room already has its share of the fetches.
	aside map[mirror.RoomID][]*entry
	// alone are entries that begin while nothing else runs, in order.
	alone []*entry
}

func newLines() lines {
	return lines{queued: make(map[mirror.Resource]*entry), aside: make(map[mirror.RoomID][]*entry)}
}

// add adds a resource.
func (l *lines) add(r mirror.Resource, at lane, c class, due time.Time, alone bool, causes []mirror.Span) {
	l.number++
	e := &entry{
		resource: r, lane: at, class: c, due: due, number: l.number, place: -1, alone: alone, causes: causes,
	}
	l.queued[r] = e
	l.count[at]++
	if alone {
		l.alone = append(l.alone, e)
	} else {
		l.insert(e)
	}
}

func (l *lines) insert(e *entry) { heap.Push(&l.of[e.lane][e.class], e) }

// hasten gives an entry the more urgent lane and the earlier due time, and the class
// if it needs less.
func (l *lines) hasten(e *entry, at lane, c class, due time.Time) {
	inLine := e.place >= 0
	if inLine {
		heap.Remove(&l.of[e.lane][e.class], e.place)
	}
	l.count[e.lane]--
	e.lane, e.class = min(e.lane, at), min(e.class, c)
	l.count[e.lane]++
	if due.Before(e.due) {
		e.due = due
	}
	if inLine {
		l.insert(e)
	}
}

// remove removes an entry that is in a line or that begins alone.
func (l *lines) remove(e *entry) {
	if e.place >= 0 {
		heap.Remove(&l.of[e.lane][e.class], e.place)
	} else if len(l.alone) > 0 && l.alone[0] == e {
		l.alone = l.alone[1:]
	}
	delete(l.queued, e.resource)
	l.count[e.lane]--
}

// setAside takes an entry out of its line until returnOne of its room.
func (l *lines) setAside(e *entry) {
	heap.Remove(&l.of[e.lane][e.class], e.place)
	l.aside[e.resource.Room] = append(l.aside[e.resource.Room], e)
}

// returnOne returns an entry of the room to its line.
func (l *lines) returnOne(room mirror.RoomID) {
	list := l.aside[room]
	if len(list) == 0 {
		return
	}
	l.insert(list[0])
	if list = list[1:]; len(list) == 0 {
		delete(l.aside, room)
	} else {
		l.aside[room] = list
	}
}

// head returns the entry of a lane that is due first.
func (l *lines) head(at lane) *entry {
	var e *entry
	for c := range classes {
		e = first(e, l.of[at][c].head())
	}
	return e
}
