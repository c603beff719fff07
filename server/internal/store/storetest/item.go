package storetest

import (
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// itemKit makes the items of a kind.
type itemKit struct {
	list mirror.Resource
	// item is the n-th version of an item, with rows in its first part.
	item func(id string, n int, rows ...string) store.Item
}

// itemKits has one for each of store.ItemKinds, whose items are held to all rules.
var itemKits = map[mirror.Kind]itemKit{
	mirror.KindThread: {threadOf("room", ""), func(id string, n int, rows ...string) store.Item {
		comments := make([]mirror.Comment, len(rows))
		for i, row := range rows {
			comments[i] = commentIn(row, i)
		}
		return store.ThreadItem(threadIn(id, n, comments...))
	}},
	mirror.KindGroup: {groupOf(""), func(id string, n int, rows ...string) store.Item {
		return store.GroupItem(groupIn(id, n, rows...))
	}},
}

// itemCases are the rules for items, for each kind.
func itemCases() (cases []testCase) {
	for _, kind := range store.ItemKinds() {
		for _, c := range []struct {
			name string
			run  func(e *env, k itemKit)
		}{
			{"unchanged one moves its times alone", unchangedItem},
			{"changed one has its new rows only", changedItem},
			{"404 alone deletes nothing", missingItem},
			{"one that a list lacks is deleted by its 404", deletedItem},
			{"list marks stale what it shows as changed", listedItems},
			{"another lease writes nothing", itemFences},
			{"odd ids stay apart", oddItemIDs},
			{"one that is not trusted is written again", invalidatedItem},
		} {
			cases = append(cases, testCase{kind.Kind.String() + ": " + c.name, func(e *env) {
				e.mirrorRoom("room", e.roomContent(`{}`))
				c.run(e, itemKits[kind.Kind])
			}})
		}
	}
	return cases
}

// of returns the resource of an item.
func (k itemKit) of(id string) mirror.Resource {
	r := k.list
	r.ID = id
	return r
}

// mirrorItem has an item fetched as it is.
func (e *env) mirrorItem(k itemKit, item store.Item) mirror.Applied {
	e.Helper()
	e.request(mirror.Request{Resource: k.of(item.ID)})
	lease := e.claim(k.of(item.ID))
	applied, err := e.ApplyItem(e.ctx(), lease, item, e.now, e.now, settle)
	e.must("ApplyItem", err)
	return e.caughtUp(lease, applied)
}

// missItem has an item fetched that is not there.
func (e *env) missItem(r mirror.Resource) mirror.Applied {
	e.Helper()
	lease := e.claim(r)
	applied, err := e.ApplyItemMissing(e.ctx(), lease, e.now, settle)
	e.must("ApplyItemMissing", err)
	return e.caughtUp(lease, applied)
}

// listItems has the list fetched in the background.
func (e *env) listItems(k itemKit, items ...store.Item) (mirror.Applied, error) {
	e.Helper()
	e.request(mirror.Request{Resource: k.list, Background: true})
	lease := e.claim(k.list)
	applied, err := applyList(e.ctx(), e.Store, lease, e.now, items, e.now, 0)
	if err != nil {
		e.fail(lease, e.failure())
		return applied, err
	}
	return e.caughtUp(lease, applied), nil
}

// wantStored checks the rows of an item.
func (e *env) wantStored(k itemKit, want store.Item) {
	e.Helper()
	got, err := e.StoredItem(e.ctx(), k.of(want.ID))
	e.must("StoredItem", err)
	what := store.Differs(store.ItemKindOf(k.list), want, got)
	if what != "" || got.ID != want.ID || got.SHA256 != want.SHA256 {
		e.Fatalf("StoredItem %q = %+v: %s; want %+v", want.ID, got, what, want)
	}
}

// known returns what is stored of an item of a list.
func (e *env) known(k itemKit, id string) store.Known {
	e.Helper()
	known, err := e.KnownItems(e.ctx(), k.list)
	e.must("KnownItems", err)
	return known[id]
}

func unchangedItem(e *env, k itemKit) {
	r, item := k.of("design"), k.item("design", 1, "alice")
	e.mirrorItem(k, item)
	before, rows := e.changes(r.Bucket()), e.tables(r)
	e.pass(time.Hour)
	e.want("ApplyItem of the same", e.mirrorItem(k, item), mirror.Applied{})
	e.want("changes", e.changes(r.Bucket()), before)
	e.want("rows", e.tables(r), rows)
	e.want("fetch time", e.task(r).FetchTime, e.now)
}

func changedItem(e *env, k itemKit) {
	e.mirrorItem(k, k.item("design", 1, "alice", "bob"))
	other, item := k.item("other", 1, "bob"), k.item("design", 2, "carol")
	e.mirrorItem(k, other)
	e.want("ApplyItem", e.mirrorItem(k, item), mirror.Applied{Changed: true})
	e.wantStored(k, item)
	e.wantStored(k, other)
	changes := e.changes(k.list.Bucket())
	last := changes[len(changes)-1]
	epoch := int64(0)
	if k.list.Room != "" {
		epoch = 1
	}
	e.want("change", last, entry(last.Number, k.of("design"), mirror.ChangeUpserted, epoch, e.now))
}

func missingItem(e *env, k itemKit) {
	item := k.item("design", 1, "alice")
	e.mirrorItem(k, item)
	e.request(mirror.Request{Resource: k.of("design")})
	e.want("ApplyItemMissing", e.missItem(k.of("design")), mirror.Applied{})
	e.wantStored(k, item)
	e.want("missing", e.known(k, "design").Missing, true)
	e.want("ApplyItem", e.mirrorItem(k, item), mirror.Applied{})
	e.want("missing once it is back", e.known(k, "design").Missing, false)
}

func deletedItem(e *env, k itemKit) {
	r, item, other := k.of("design"), k.item("design", 1, "alice"), k.item("other", 1)
	e.mirrorItem(k, item)
	e.mirrorItem(k, other)
	applied, err := e.listItems(k, other)
	e.must("ApplyList", err)
	e.want("ApplyList", applied, mirror.Applied{AlsoDue: []mirror.Resource{r}})
	e.wantStored(k, item)
	e.want("ApplyItemMissing", e.missItem(r), mirror.Applied{Changed: true})
	_, err = e.StoredItem(e.ctx(), r)
	e.wantErr("StoredItem", err, store.ErrNotFound)
	e.want("tombstone", e.known(k, "design").Copy.Deleted, true)
	e.wantStored(k, other)
	changes := e.changes(r.Bucket())
	e.want("change", changes[len(changes)-1].Kind, mirror.ChangeDeleted)
	// A tombstone is not announced twice, and can be revived.
	applied, err = e.listItems(k, other)
	e.must("ApplyList", err)
	e.want("ApplyList without the tombstone", applied, mirror.Applied{})
	e.want("ApplyItem", e.mirrorItem(k, item), mirror.Applied{Changed: true})
	e.wantStored(k, item)
}

func listedItems(e *env, k itemKit) {
	e.mirrorItem(k, k.item("a", 1))
	e.mirrorItem(k, k.item("b", 1))
	applied, err := e.listItems(k, k.item("c", 1), k.item("b", 2), k.item("a", 1))
	e.must("ApplyList", err)
	if store.ItemKindOf(k.list).FromList {
		e.want("ApplyList", applied, mirror.Applied{
			Changed: true, Added: []mirror.Resource{k.of("c")}, AlsoDue: []mirror.Resource{k.of("b")},
		})
		e.wantStored(k, k.item("c", 1))
	} else {
		e.want("ApplyList", applied, mirror.Applied{AlsoDue: []mirror.Resource{k.of("b"), k.of("c")}})
		e.wantBackground("listed", k.of("c"), true)
	}
	e.wantStored(k, k.item("b", 1))
	e.wantState(k.of("a"), mirror.TaskDone)
	e.wantState(k.of("b"), mirror.TaskPending)
	e.wantState(k.list, mirror.TaskDone)
}

func itemFences(e *env, k itemKit) {
	item := k.item("a", 1)
	e.mirrorItem(k, item)
	e.request(mirror.Request{Resource: k.list}, mirror.Request{Resource: k.of("a")})
	list, one := e.claim(k.list), e.claim(k.of("a"))
	list.Token, one.Token = newToken(), newToken()
	before := e.task(k.of("a"))
	_, err := applyList(e.ctx(), e.Store, list, e.now, nil, e.now, 0)
	e.wantErr("ApplyList", err, store.ErrLeaseLost)
	_, err = e.ApplyItem(e.ctx(), one, k.item("a", 2), e.now, e.now, settle)
	e.wantErr("ApplyItem", err, store.ErrLeaseLost)
	_, err = e.ApplyItemMissing(e.ctx(), one, e.now, settle)
	e.wantErr("ApplyItemMissing", err, store.ErrLeaseLost)
	e.want("task", e.task(k.of("a")), before)
	e.wantStored(k, item)
}

func oddItemIDs(e *env, k itemKit) {
	ids := []string{" a", "A", "a", "a ", "a/b:c?d#e%f", "roo\u0308m", "ro\u00f6m"}
	for i, id := range ids {
		e.mirrorItem(k, k.item(id, i, id))
	}
	for i, id := range ids {
		e.wantStored(k, k.item(id, i, id))
		e.want("known", e.known(k, id).Copy.SHA256, k.item(id, i, id).SHA256)
	}
}

func invalidatedItem(e *env, k itemKit) {
	item := k.item("design", 1, "alice")
	e.mirrorItem(k, item)
	e.must("Invalidate", e.Invalidate(e.ctx(), k.of("design")))
	e.want("ApplyItem of the same", e.mirrorItem(k, item), mirror.Applied{Changed: true})
	e.wantStored(k, item)
	e.want("ApplyItem of the same again", e.mirrorItem(k, item), mirror.Applied{})
}
