package engine_test

import (
	"context"
	"encoding/json"
	stdflag "flag"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/mysqltest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/engine"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/mysql"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/storetest"
)

var shardRooms = stdflag.Int("shard-rooms", 1000, "rooms of TestShardsOfACall")

// route is what vtgate has counted: statements, and the shards that they went to.
type route struct{ statements, shards int }

func (r route) String() string { return fmt.Sprintf("%d / %d", r.statements, r.shards) }

// rpcs are the calls of the API that make a read, or the work that does.
var rpcs = map[string]string{
	"Event": "GetEvent", "EventOf": "a webhook that was recorded before", "Room": "GetRoom",
	"RoomsByID": "a page of a sweep",
	"Document":  "GetStorageDocument, GetYjsDocument", "ReadDocuments": "ReadDocument", "Thread": "GetThread",
	"Comment": "GetComment", "ActiveUsers": "ListActiveUsers", "SessionsOf": "folding sessions", "Group": "GetGroup",
	"Counts": "GetStatus: counts", "Task": "GetTask", "LastEvents": "GetStatus: latest events", "Events": "ListEvents",
	"Rooms": "ListRooms", "RoomIDs": "rooms that a sweep looks for", "Documents": "ListDocuments",
	"Threads":  "ListThreads",
	"Comments": "ListComments", "UserSessions": "ListUserSessions", "Notifications": "ListNotifications",
	"ThreadsByID": "threads with their changes", "ActiveUsersByRoom": "active users with their changes",
	"GroupsByID": "groups with their changes",
	"Copies":     "a page of a snapshot", "Groups": "ListGroups", "TaskList": "ListTasks",
	"Tasks": "GetEvent: its tasks", "LatestRooms": "getRooms of the REST API", "AuditEntries": "ListAuditEntries",
	"Oldest": "the ages of the oldest rows",
}

// TestShardsOfACall, which needs Vitess, has a line for each read.
func TestReadsHaveCalls(t *testing.T) {
	t.Parallel()
	unknown := maps.Clone(rpcs)
	for _, read := range storetest.Reads() {
		if rpcs[read.Name] == "" {
			t.Errorf("nothing is said to read %s", read.Name)
		}
		delete(unknown, read.Name)
	}
	for name := range unknown {
		t.Errorf("there is no read %s", name)
	}
}

// What accepting a webhook and applying a fetch does reaches one shard, statement by
// statement, however many there are: the gateway asks shards as often as it asks a single
// one. Run with -v it prints for each call how many statements it sends and how often these
// reach a shard, with 1, 2 and 4 shards; -shard-rooms=100000 for as many rooms.
func TestShardsOfACall(t *testing.T) {
	t.Parallel()
	counts := []int{1, 2, 4}
	table := make(map[string][]route)
	for _, n := range counts {
		for what, r := range routesOf(t, n) {
			table[what] = append(table[what], r)
			if one := table[what][0]; strings.HasPrefix(what, "1 ") && r != one {
				t.Errorf("%q with %d shards: statements / shards = %v; want %v, as with one", what, n, r, one)
			}
		}
	}
	var b strings.Builder
	for _, what := range slices.Sorted(maps.Keys(table)) {
		fmt.Fprintf(&b, "| %s |", strings.TrimLeft(what, "12 "))
		for _, r := range table[what] {
			fmt.Fprintf(&b, " %v |", r)
		}
		b.WriteString("\n")
	}
	t.Logf("%d rooms; statements / how often they reach a shard:\n\n"+
		"| call | 1 shard | 2 shards | 4 shards |\n|---|---|---|---|\n%s", *shardRooms, b.String())
}

// routesOf calls everything on a database of so many shards. The hot path begins with 1,
// reads with 2.
func routesOf(t *testing.T, n int) map[string]route {
	t.Helper()
	cluster := mysqltest.StartShards(t, n, mysql.VSchema())
	migrate(t, cluster.URL())
	fillShards(t, cluster)
	s := open(t, engine.Config{URL: cluster.URL()})
	routes := make(map[string]route)
	count := func(what string, call func() error) {
		t.Helper()
		if err := call(); err != nil { // opens connections
			t.Fatalf("%s = %v", what, err)
		}
		before := executed(t, cluster)
		if err := call(); err != nil {
			t.Fatalf("%s = %v", what, err)
		}
		after := executed(t, cluster)
		routes[what] = route{after.statements - before.statements, after.shards - before.shards}
	}
	ctx, now := t.Context(), testTime
	room := mirror.Resource{Project: "default", Room: "lobby", Kind: mirror.KindRoom}
	storage := mirror.Resource{Project: "default", Room: "lobby", Kind: mirror.KindStorage}
	calls := 0
	claimed := func(r mirror.Resource) (lease mirror.Lease, err error) {
		calls++
		if _, err = s.Request(ctx, requestsFor(r), now); err == nil {
			lease, err = s.Claim(ctx, r, [16]byte{byte(calls)}, now, time.Minute)
		}
		return lease, err
	}
	count("1 webhook: Accept of one event", func() error {
		calls++
		_, err := s.Accept(ctx, []mirror.Delivery{deliveryOf(fmt.Sprint("msg_", calls), storage)})
		return err
	})
	count("1 webhook: Accept of a duplicate", func() error {
		_, err := s.Accept(ctx, []mirror.Delivery{deliveryOf("msg_1", storage)})
		return err
	})
	count("1 apply of a room: Request, Claim, ApplyRoom", func() error {
		lease, err := claimed(room)
		if err == nil {
			_, err = s.ApplyRoom(ctx, lease, mirror.RoomContent{
				FetchTime: now, Source: fmt.Appendf(nil, `{"n":%d}`, calls), CreateTime: now,
			}, now, 0)
		}
		return err
	})
	count("1 apply of a document: Request, Claim, ApplyDocument", func() error {
		lease, err := claimed(storage)
		if err == nil {
			_, err = s.ApplyDocument(ctx, lease, mirror.DocumentContent{
				FetchTime: now, Content: fmt.Appendf(nil, `{"n":%d}`, calls), DeriveVersion: 1,
			}, now, 0)
		}
		return err
	})
	count("1 apply of what has not changed: Request, Claim, Renew, ApplyDocument", func() error {
		lease, err := claimed(storage)
		if err == nil {
			err = s.Renew(ctx, lease, now.Add(time.Hour))
		}
		if err == nil {
			_, err = s.ApplyDocument(ctx, lease, mirror.DocumentContent{
				FetchTime: now, Content: []byte(`{"n":0}`), DeriveVersion: 1,
			}, now, 0)
		}
		return err
	})
	count("1 retry: Request, Claim, Fail", func() error {
		lease, err := claimed(storage)
		if err == nil {
			_, err = s.Fail(ctx, lease, store.Failure{Now: now, NotBefore: now})
		}
		return err
	})
	count("2 poll for work: Due", func() error {
		_, err := s.Due(ctx, store.Look{
			Project: "default", Kinds: mirror.Kinds(), Now: now, LeaseTTL: time.Minute, Limit: 100,
		})
		return err
	})
	seen := make(map[string]bool)
	for _, read := range storetest.Reads() {
		for _, what := range []string{"", " of a room"} {
			if strings.Contains(fmt.Sprintf("%+v", read.Filter), " Room:r-8 ") != (what != "") || seen[read.Name+what] {
				continue
			}
			seen[read.Name+what] = true // the first one has no other filter
			count("2 "+rpcs[read.Name]+what, func() error { read.Call(ctx, s); return nil })
		}
	}
	return routes
}

// executed reads vtgate's counters, but for what it does for sessions and by itself.
func executed(t *testing.T, cluster *mysqltest.Shards) (r route) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, cluster.Debug(), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Timeout: time.Minute}).Do(req)
	if err != nil {
		t.Fatalf("read vtgate's counters = %v", err)
	}
	defer func() { _ = resp.Body.Close() }()
	var counters struct{ QueryExecutions, QueryRoutes map[string]int }
	if err := json.NewDecoder(resp.Body).Decode(&counters); err != nil {
		t.Fatalf("read vtgate's counters = %v", err)
	}
	for name, n := range counters.QueryExecutions {
		kind, _, _ := strings.Cut(name, ".")
		if slices.Contains([]string{"SELECT", "INSERT", "UPDATE", "DELETE"}, kind) {
			r.statements += n
			r.shards += counters.QueryRoutes[name]
		}
	}
	return r
}

// fillShards writes the rooms straight into the servers, each of which keeps those of its
// shard.
func fillShards(t *testing.T, cluster *mysqltest.Shards) {
	t.Helper()
	made, err := os.ReadFile("../mysql/testdata/many_rooms.sql")
	if err != nil {
		t.Fatalf("ReadFile = %v", err)
	}
	text := strings.ReplaceAll(string(made), ":rooms", strconv.Itoa(*shardRooms))
	errs := make([]error, len(cluster.Servers))
	var wg sync.WaitGroup
	for i := range cluster.Servers {
		wg.Go(func() { errs[i] = fillShard(t.Context(), t, cluster, i, text) })
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			t.Fatalf("fill shard %d = %v", i, err)
		}
	}
}

func fillShard(ctx context.Context, t *testing.T, cluster *mysqltest.Shards, i int, text string) error {
	t.Helper()
	db := dbtest.MySQL.Connect(t, cluster.Direct(i))
	others := fmt.Sprintf("where conv(reverse(lpad(bin(bucket), 8, '0')), 2, 10) * %d div 256 <> %d",
		len(cluster.Servers), i)
	for statement := range strings.SplitSeq(text, ";\n") {
		if strings.TrimSpace(statement) == "" {
			continue
		}
		if _, err := db.Exec(ctx, statement); err != nil {
			return err
		}
		if strings.Contains(statement, "insert into made\n") {
			if _, err := db.Exec(ctx, "delete from made "+others); err != nil {
				return err
			}
		}
	}
	var tables []string
	err := db.Each(ctx, "select table_name from information_schema.columns where table_schema = database() "+
		"and column_name = 'bucket' and table_name like 'mirror%'", func(scan func(dest ...any) error) error {
		var name string
		err := scan(&name)
		tables = append(tables, name)
		return err
	})
	for _, table := range tables {
		if err == nil {
			_, err = db.Exec(ctx, "delete from "+table+" "+others)
		}
	}
	return err
}

// A shard that fails at the search for due work, and at nothing else, is told, so that the
// search is made again soon; what the others have is found meanwhile.
func TestDueOfAFailingShard(t *testing.T) {
	t.Parallel()
	mysqltest.Need(t, mysqltest.ManyShards)
	to := dbtest.MySQL.Own(t)
	migrate(t, to)
	s, shard := open(t, engine.Config{URL: to}), dbtest.MySQL.Connect(t, mysqltest.Below(t, to)[0])
	var requests []mirror.Request
	for i := range 40 {
		room := mirror.Resource{Project: "default", Room: mirror.RoomID(fmt.Sprint("room", i)), Kind: mirror.KindRoom}
		requests = append(requests, mirror.Request{Resource: room})
	}
	if _, err := s.Request(t.Context(), requests, testTime); err != nil {
		t.Fatalf("Request = %v", err)
	}
	due := func() (int, error) {
		list, err := s.Due(t.Context(), store.Look{
			Project: "default", Kinds: []mirror.Kind{mirror.KindRoom}, Now: testTime, LeaseTTL: time.Minute, Limit: 100,
		})
		return len(list.Resources) + len(list.Background), err
	}
	if n, err := due(); err != nil || n != len(requests) {
		t.Fatalf("Due = %d, %v; want all of %d", n, err, len(requests))
	}
	rename := func(from, to string) {
		t.Helper()
		mustExec(t, shard, "alter table mirror_resource_state rename column "+from+" to "+to)
	}
	rename("resource_id", "renamed")
	n, err := due()
	rename("renamed", "resource_id")
	if err == nil || n == 0 || n == len(requests) {
		t.Errorf("Due beside a shard that fails = %d, %v; want an error, and what the others have", n, err)
	}
	if n, err := due(); err != nil || n != len(requests) {
		t.Errorf("Due afterwards = %d, %v; want all of %d", n, err, len(requests))
	}
}
