package mysql_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/mysqltest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/lson"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/mysql"
)

// meter tells the processor time this process and the server spend.
type meter struct {
	server        string // its file in /proc
	own, database time.Duration
}

func newMeter(b *testing.B, url string) *meter {
	b.Helper()
	pid, err := os.ReadFile(value[string](b, mysqltest.Connect(b, url), "select @@pid_file"))
	if err != nil {
		b.Fatalf("ReadFile = %v", err)
	}
	return &meter{server: "/proc/" + strings.TrimSpace(string(pid)) + "/stat"}
}

func (m *meter) start() {
	m.database -= processCPU(m.server)
	m.own -= ownCPU()
}

func (m *meter) stop() {
	m.own += ownCPU()
	m.database += processCPU(m.server)
}

func (m *meter) report(b *testing.B, n int, unit string) {
	b.Helper()
	b.ReportMetric(float64(m.own.Microseconds())/float64(n), "client-µs/"+unit)
	b.ReportMetric(float64(m.database.Microseconds())/float64(n), "server-µs/"+unit)
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), unit+"s/s")
}

func ownCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// processCPU is what a process has used, to a hundredth of a second; 0 of one that
// cannot be looked at.
func processCPU(stat string) time.Duration {
	b, _ := os.ReadFile(stat)
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:])) // the name before may hold blanks
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

var benchNow = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func benchStorage(room int) mirror.Resource {
	return mirror.Resource{Project: "default", Room: mirror.RoomID("bench:" + strconv.Itoa(room)),
		Kind: mirror.KindStorage}
}

var benchPayload = []byte(
	`{"type":"storageUpdated","data":{"projectId":"605a50b01a36d5ea7a2e9104","roomId":"bench:00000","updatedAt":"2026-03-01T12:00:00.000Z"}}`)

// raise accepts one event for each of n rooms, beginning with first.
func raise(b *testing.B, s *mysql.Store, first, n, rooms int, id string, now time.Time) {
	b.Helper()
	batch := make([]mirror.Delivery, n)
	for i := range batch {
		r := benchStorage((first + i) * 7919 % rooms)
		batch[i] = mirror.Delivery{
			Event: mirror.Event{
				Project: "default", ID: id + strconv.Itoa(first+i), Type: "storageUpdated", Room: r.Room,
				LiveblocksProject: "605a50b01a36d5ea7a2e9104",
				Payload:           benchPayload, SendTime: now, ReceiveTime: now, SourceTime: now, Outcome: mirror.OutcomeQueued,
			},
			Invalidations: []mirror.Invalidation{{Resource: r}},
		}
	}
	if _, err := s.Accept(b.Context(), batch); err != nil {
		b.Fatalf("Accept = %v", err)
	}
}

// BenchmarkAccept accepts edits of known rooms.
func BenchmarkAccept(b *testing.B) {
	for _, size := range []int{1, 8, 32, 128} {
		b.Run(strconv.Itoa(size), func(b *testing.B) {
			url := migratedDatabase(b)
			s := open(b, mysql.Config{URL: url})
			const rooms = 2000
			for first := 0; first < rooms; first += 500 {
				raise(b, s, first, 500, rooms, "first", benchNow)
			}
			m := newMeter(b, url)
			b.ReportAllocs()
			b.ResetTimer()
			m.start()
			for i := range b.N {
				raise(b, s, i*size, size, rooms, "msg_2gTQnJ5Bf", benchNow)
			}
			b.StopTimer()
			m.stop()
			m.report(b, b.N*size, "event")
		})
	}
}

// BenchmarkApply claims documents and applies them with eight workers, changed
// and as they were.
func BenchmarkApply(b *testing.B) {
	for _, size := range []int{10 << 10, 100 << 10} {
		for _, changed := range []bool{true, false} {
			b.Run(fmt.Sprintf("%dKiB/changed=%t", size>>10, changed), func(b *testing.B) { benchmarkApply(b, size, changed) })
		}
	}
}

func benchmarkApply(b *testing.B, size int, changed bool) {
	b.Helper()
	const rooms, workers, settle = 200, 8, time.Hour
	url := migratedDatabase(b)
	s := open(b, mysql.Config{URL: url})
	now := benchNow
	lease := func(r mirror.Resource, n int) (mirror.Lease, error) {
		return s.Claim(b.Context(), r, [16]byte{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24), byte(r.Kind)}, now,
			time.Minute)
	}
	versions := make([][2]mirror.DocumentContent, rooms)
	raise(b, s, 0, rooms, rooms, "first", now)
	for i := range rooms {
		room := benchStorage(i).RoomResource()
		_, err := s.Request(b.Context(), []mirror.Request{{Resource: room}}, now)
		var l mirror.Lease
		if err == nil {
			l, err = lease(room, i)
		}
		if err == nil {
			_, err = s.ApplyRoom(b.Context(), l, mirror.RoomContent{FetchTime: now, Source: []byte(`{"type":"room"}`),
				CreateTime: now}, now, 0)
		}
		if err != nil {
			b.Fatalf("mirror a room = %v", err)
		}
		for v := range versions[i] {
			versions[i][v] = benchDocument(b, size, i, v)
		}
	}
	m := newMeter(b, url)
	round := func(k, n int) error {
		next, failed := make(chan int, n), make(chan error, workers)
		for i := range n {
			next <- i * 7919 % rooms
		}
		close(next)
		var wg sync.WaitGroup
		for range workers {
			wg.Go(func() {
				for i := range next {
					l, err := lease(benchStorage(i), k*rooms+i+1<<20)
					var applied mirror.Applied
					if err == nil {
						doc := versions[i][0]
						if changed {
							doc = versions[i][k%2]
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
		raise(b, s, 0, n, rooms, "round"+strconv.Itoa(k)+"-", now)
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
	return mirror.DocumentContent{FetchTime: benchNow, Content: []byte(doc.String()), DeriveVersion: 1, Data: plain}
}
