package engine_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/lson"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/engine"
)

// meter tells the processor time this process and the server spend.
type meter struct {
	serverCPU   func() time.Duration
	own, server time.Duration
}

func newMeter(b *testing.B, e *dbtest.Engine, url string) *meter {
	b.Helper()
	db := e.Connect(b, url)
	if e == dbtest.Postgres {
		postmaster := parent(value[int](b, db, "select pg_backend_pid()"))
		return &meter{serverCPU: func() time.Duration { return familyCPU(postmaster) }}
	}
	pid, err := os.ReadFile(value[string](b, db, "select @@pid_file"))
	if err != nil {
		b.Fatalf("ReadFile = %v", err)
	}
	return &meter{serverCPU: func() time.Duration { return processCPU(strings.TrimSpace(string(pid))) }}
}

func (m *meter) start() {
	m.server -= m.serverCPU()
	m.own -= ownCPU()
}

func (m *meter) stop() {
	m.own += ownCPU()
	m.server += m.serverCPU()
}

func (m *meter) report(b *testing.B, n int, unit string) {
	b.Helper()
	b.ReportMetric(float64(m.own.Microseconds())/float64(n), "client-µs/"+unit)
	b.ReportMetric(float64(m.server.Microseconds())/float64(n), "server-µs/"+unit)
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), unit+"s/s")
}

func ownCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// parent is the process that started pid; 0 if it cannot be looked at.
func parent(pid int) int {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:])) // the name before may hold blanks
	n, _ := strconv.Atoi(fields[1])
	return n
}

// familyCPU is what the living children of a process have used.
func familyCPU(pid int) (total time.Duration) {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	for _, child := range strings.Fields(string(b)) {
		b, _ := os.ReadFile("/proc/" + child + "/schedstat")
		ns, _, _ := strings.Cut(string(b), " ")
		n, _ := strconv.ParseInt(ns, 10, 64) // 0 of one that has ended
		total += time.Duration(n)
	}
	return total
}

// processCPU is what a process has used, to a hundredth of a second; 0 of one that
// cannot be looked at.
func processCPU(pid string) time.Duration {
	b, _ := os.ReadFile("/proc/" + pid + "/stat")
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:])) // the name before may hold blanks
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

func benchStorage(room int) mirror.Resource {
	return mirror.Resource{
		Project: "default", Room: mirror.RoomID("bench:" + strconv.Itoa(room)),
		Kind: mirror.KindStorage,
	}
}

var benchPayload = []byte(
	`{"type":"storageUpdated","data":{"projectId":"605a50b01a36d5ea7a2e9104","roomId":"bench:00000","updatedAt":"2026-03-01T12:00:00.000Z"}}`)

func benchDelivery(id string, room int, now time.Time) mirror.Delivery {
	r := benchStorage(room)
	return mirror.Delivery{
		Event: mirror.Event{
			Project: "default", ID: id, Type: "storageUpdated", Room: r.Room, LiveblocksProject: "605a50b01a36d5ea7a2e9104",
			Payload: benchPayload, SendTime: now, ReceiveTime: now, SourceTime: now, Outcome: mirror.OutcomeQueued,
		},
		Invalidations: []mirror.Invalidation{{Resource: r}},
	}
}

// edit accepts one event for each of the first n rooms.
func edit(b *testing.B, s store.Store, n int, id string, now time.Time) {
	b.Helper()
	batch := make([]mirror.Delivery, n)
	for i := range batch {
		batch[i] = benchDelivery(id+strconv.Itoa(i), i, now)
	}
	for some := range slices.Chunk(batch, 500) {
		if _, err := s.Accept(b.Context(), some); err != nil {
			b.Fatalf("Accept = %v", err)
		}
	}
}

// benchEach runs a benchmark on every engine, one after the other.
func benchEach(b *testing.B, f func(b *testing.B, e *dbtest.Engine)) {
	b.Helper()
	for _, e := range dbtest.Engines() {
		b.Run(e.Name, func(b *testing.B) { f(b, e) })
	}
}

// BenchmarkAccept accepts edits of known rooms.
func BenchmarkAccept(b *testing.B) {
	benchEach(b, func(b *testing.B, e *dbtest.Engine) {
		b.Helper()
		for _, size := range []int{1, 8, 32, 128} {
			b.Run(strconv.Itoa(size), func(b *testing.B) {
				url := e.Database(b)
				s := open(b, engine.Config{URL: url})
				const rooms = 2000
				edit(b, s, rooms, "first", testTime)
				m := newMeter(b, e, url)
				batch := make([]mirror.Delivery, size)
				n := 0
				b.ReportAllocs()
				b.ResetTimer()
				m.start()
				for range b.N {
					for i := range batch {
						n++
						batch[i] = benchDelivery("msg_2gTQnJ5Bf"+strconv.Itoa(n), n*7919%rooms, testTime)
					}
					if _, err := s.Accept(b.Context(), batch); err != nil {
						b.Fatalf("Accept = %v", err)
					}
				}
				b.StopTimer()
				m.stop()
				m.report(b, n, "event")
			})
		}
	})
}

// benchLease claims a resource; n tells its lease from others.
func benchLease(b *testing.B, s store.Store, r mirror.Resource, n int, now time.Time) (mirror.Lease, error) {
	b.Helper()
	id := [16]byte{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24), byte(r.Kind)}
	return s.Claim(b.Context(), r, id, now, time.Minute)
}

// benchRooms mirrors rooms, each with a Storage document that is due.
func benchRooms(b *testing.B, s store.Store, rooms int, now time.Time) {
	b.Helper()
	edit(b, s, rooms, "first", now)
	for i := range rooms {
		room := benchStorage(i).RoomResource()
		_, err := s.Request(b.Context(), []mirror.Request{{Resource: room}}, now)
		var l mirror.Lease
		if err == nil {
			l, err = benchLease(b, s, room, i, now)
		}
		if err == nil {
			_, err = s.ApplyRoom(b.Context(), l, mirror.RoomContent{
				FetchTime: now, Source: []byte(`{"type":"room"}`),
				CreateTime: now,
			}, now, 0)
		}
		if err != nil {
			b.Fatalf("mirror a room = %v", err)
		}
	}
}

// BenchmarkReadDocuments reads documents that the readers have, as most reads do.
func BenchmarkReadDocuments(b *testing.B) {
	benchEach(b, func(b *testing.B, e *dbtest.Engine) {
		b.Helper()
		const rooms = 200
		url := e.Database(b)
		s := open(b, engine.Config{URL: url})
		benchRooms(b, s, rooms, testTime)
		for i := range rooms {
			l, err := benchLease(b, s, benchStorage(i), i+rooms, testTime)
			if err == nil {
				_, err = s.ApplyDocument(b.Context(), l, benchDocument(b, 1<<10, i, 0), testTime, 0)
			}
			if err != nil {
				b.Fatalf("mirror a document = %v", err)
			}
		}
		for _, size := range []int{1, 4, 16} {
			b.Run(strconv.Itoa(size), func(b *testing.B) {
				reads := make([]store.DocumentRead, size)
				read := func(first int) []*mirror.Document {
					for i := range reads {
						reads[i].Resource = benchStorage((first + i) % rooms)
					}
					documents, err := s.ReadDocuments(b.Context(), reads, 1<<20)
					if err != nil || slices.Contains(documents, nil) {
						b.Fatalf("ReadDocuments = %v, %v; want all", documents, err)
					}
					return documents
				}
				sums := make(map[mirror.RoomID][32]byte, rooms)
				for i := range rooms {
					d := read(i)[0]
					sums[d.Room] = d.SHA256
				}
				have := func(first int) {
					for i := range reads {
						reads[i].Have = sums[benchStorage((first+i)%rooms).Room]
					}
				}
				m := newMeter(b, e, url)
				b.ReportAllocs()
				b.ResetTimer()
				m.start()
				for n := range b.N {
					have(n)
					read(n)
				}
				b.StopTimer()
				m.stop()
				m.report(b, b.N*size, "document")
			})
		}
	})
}

// BenchmarkApply claims documents and applies them with eight workers, changed
// and as they were.
func BenchmarkApply(b *testing.B) {
	benchEach(b, func(b *testing.B, e *dbtest.Engine) {
		b.Helper()
		for _, size := range []int{10 << 10, 100 << 10} {
			for _, changed := range []bool{true, false} {
				b.Run(fmt.Sprintf("%dKiB/changed=%t", size>>10, changed), func(b *testing.B) {
					benchmarkApply(b, e, size, changed)
				})
			}
		}
	})
}

func benchmarkApply(b *testing.B, e *dbtest.Engine, size int, changed bool) {
	b.Helper()
	// As many as wait after a burst; documents are shared, to save memory.
	const rooms, workers, documents, settle = 2000, 8, 50, time.Hour
	url := e.Database(b)
	s := open(b, engine.Config{URL: url})
	now := testTime
	lease := func(r mirror.Resource, n int) (mirror.Lease, error) { return benchLease(b, s, r, n, now) }
	versions := make([][2]mirror.DocumentContent, documents)
	benchRooms(b, s, rooms, now)
	for i := range versions {
		for v := range versions[i] {
			versions[i][v] = benchDocument(b, size, i, v)
		}
	}
	m := newMeter(b, e, url)
	round := func(k, n int) error {
		next, failed := make(chan int, n), make(chan error, workers)
		for i := range n {
			next <- i
		}
		close(next)
		var wg sync.WaitGroup
		for range workers {
			wg.Go(func() {
				for i := range next {
					l, err := lease(benchStorage(i), k*rooms+i+1<<20)
					var applied mirror.Applied
					if err == nil {
						doc := versions[i%documents][0]
						if changed {
							doc = versions[i%documents][k%2]
						}
						applied, err = s.ApplyDocument(b.Context(), l, doc, now, settle)
					}
					if err == nil && applied.Changed != (changed || k == 0) {
						err = fmt.Errorf("changed = %t", applied.Changed)
					}
					if err != nil {
						failed <- err
						return
					}
				}
			})
		}
		wg.Wait()
		select {
		case err := <-failed:
			return err
		default:
			return nil
		}
	}
	if err := round(0, rooms); err != nil {
		b.Fatalf("first round = %v", err)
	}
	b.ResetTimer()
	for k, left := 1, b.N; left > 0; k++ {
		n := min(left, rooms)
		left -= n
		b.StopTimer()
		now = now.Add(time.Minute)
		edit(b, s, n, "round"+strconv.Itoa(k)+"-", now)
		b.StartTimer()
		m.start()
		if err := round(k, n); err != nil {
			b.Fatalf("round %d = %v", k, err)
		}
		m.stop()
	}
	b.StopTimer()
	m.report(b, b.N, "op")
}

// benchDocument is a board of cards and prose whose plain JSON has about size
// bytes. The versions of a document differ in one number near its begin.
func benchDocument(b *testing.B, size, seed, revision int) mirror.DocumentContent {
	b.Helper()
	r := rand.New(rand.NewPCG(uint64(seed), uint64(size)))
	var words [400]string
	for i := range words {
		letters := make([]byte, 2+r.IntN(8))
		for j := range letters {
			letters[j] = "etaoinshrdlucmfwyp"[r.IntN(18)]
		}
		words[i] = string(letters)
	}
	phrase := func(n int) string {
		picked := make([]string, n+r.IntN(n+1))
		for i := range picked {
			picked[i] = words[r.IntN(len(words))]
		}
		return strings.Join(picked, " ")
	}
	var doc strings.Builder
	fmt.Fprintf(&doc, `{"liveblocksType":"LiveObject","data":{"revision":%d,"cards":{"liveblocksType":"LiveList","data":[`, 1_000_000+revision)
	for i := 0; doc.Len() < size*12/10; i++ { // LSON names the types of nodes too
		if i > 0 {
			doc.WriteByte(',')
		}
		fmt.Fprintf(&doc, `{"liveblocksType":"LiveObject","data":{"id":"card-%d","x":%d,"y":%d,"width":%d,"done":%t,"title":%q,"body":%q,"tags":[%q,%q]}}`,
			i, r.IntN(10000), r.IntN(10000), r.IntN(500), r.IntN(2) == 0, phrase(3), phrase(15), phrase(1), phrase(1))
	}
	doc.WriteString(`]}}}`)
	plain, _, err := lson.JSON(nil, []byte(doc.String()))
	if err != nil {
		b.Fatalf("JSON = %v", err)
	}
	return mirror.DocumentContent{FetchTime: testTime, Content: []byte(doc.String()), DeriveVersion: 1, Data: plain}
}

// BenchmarkBirth mirrors rooms that were never seen: an event of a document parks
// the document, and applying the room makes it due again.
func BenchmarkBirth(b *testing.B) {
	benchEach(b, func(b *testing.B, e *dbtest.Engine) {
		b.Helper()
		const workers = 8
		url := e.Database(b)
		s := open(b, engine.Config{URL: url})
		doc := benchDocument(b, 1<<10, 0, 0)
		var tokens atomic.Int64
		claim := func(r mirror.Resource) (mirror.Lease, error) {
			var token [16]byte
			binary.LittleEndian.PutUint64(token[:], uint64(tokens.Add(1)))
			return s.Claim(b.Context(), r, token, testTime, time.Minute)
		}
		m := newMeter(b, e, url)
		for i := range b.N {
			d := benchDelivery("first"+strconv.Itoa(i), i, testTime)
			room := mirror.Invalidation{Resource: benchStorage(i).RoomResource(), IfUnknown: true}
			d.Invalidations = append(d.Invalidations, room)
			if _, err := s.Accept(b.Context(), []mirror.Delivery{d}); err != nil {
				b.Fatalf("Accept = %v", err)
			}
		}
		next := make(chan int, b.N)
		for i := range b.N {
			next <- i
		}
		close(next)
		b.ResetTimer()
		m.start()
		var wg sync.WaitGroup
		for range workers {
			wg.Go(func() {
				for i := range next {
					r := benchStorage(i)
					l, err := claim(r)
					if err == nil {
						_, err = s.Park(b.Context(), l, testTime)
					}
					if err == nil {
						l, err = claim(r.RoomResource())
					}
					if err == nil {
						_, err = s.ApplyRoom(b.Context(), l, mirror.RoomContent{
							FetchTime: testTime, Source: []byte(`{"type":"room"}`), CreateTime: testTime,
						}, testTime, 0)
					}
					if err == nil {
						l, err = claim(r)
					}
					if err == nil {
						_, err = s.ApplyDocument(b.Context(), l, doc, testTime, time.Hour)
					}
					if err != nil {
						b.Errorf("room %d = %v", i, err)
					}
				}
			})
		}
		wg.Wait()
		b.StopTimer()
		m.stop()
		m.report(b, b.N, "room")
	})
}
