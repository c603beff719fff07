package blackbox_test

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/mysqltest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
)

// The largest body that is taken and the smallest that is not, with and without their
// length announced.
func TestBodyLimit(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		s, _ := startOn(t, e.Database(t), nil)
		const limit = 1 << 20
		event := func(size int) []byte {
			head := `{"type":"threadCreated","data":{"projectId":"` + harness.LiveblocksProject + `"},"padding":"`
			return []byte(head + strings.Repeat("x", size-len(head)-2) + `"}`)
		}
		for _, chunked := range []bool{false, true} {
			for _, size := range []int{limit, limit + 1, 4 * limit} {
				name := fmt.Sprintf("%d bytes, chunked %v", size, chunked)
				d := harness.Sign(t, event(size))
				var body io.Reader = bytes.NewReader(d.Body)
				if chunked {
					body = struct{ io.Reader }{body}
				}
				got := send(t, http.MethodPost, s.URL("/api/liveblocks-webhook"), d.Header, body)
				if size > limit {
					if got.status != http.StatusRequestEntityTooLarge || got.reason() != "PAYLOAD_TOO_LARGE" ||
						got.header.Get("Webhook-Delivery") != "abort-message" {
						t.Errorf("%s: %d %v %s; want 413 with webhook-delivery: abort-message", name, got.status, got.header, got.body)
					}
					if a := send(t, http.MethodGet, s.URL("/v1/events/"+d.ID), nil, nil); a.status != http.StatusNotFound {
						t.Errorf("%s: the event answers %d; want 404", name, a.status)
					}
					continue
				}
				if got.status != http.StatusOK {
					t.Fatalf("%s: %d %s; want 200", name, got.status, got.body)
				}
				resp, err := mirrorv1.NewEventServiceClient(s.Dial(t)).GetEvent(t.Context(),
					&mirrorv1.GetEventRequest{EventId: d.ID})
				if err != nil {
					t.Fatalf("%s: GetEvent: %v", name, err)
				}
				if !bytes.Equal(resp.GetEvent().GetPayload(), d.Body) {
					t.Errorf("%s: the payload was recorded as %d other bytes", name, len(resp.GetEvent().GetPayload()))
				}
			}
		}
	})
}

// A delivery whose id cannot be kept is refused for good, provided that it is signed: a
// sender with a wrong secret is to try again.
func TestImpossibleEventID(t *testing.T) {
	t.Parallel()
	s, _ := start(t, nil)
	body := fake.Payload(fake.Event{Type: fake.RoomCreated, RoomID: "room", Time: time.Now()}, harness.LiveblocksProject)
	for _, c := range []struct {
		name, id string
		forged   bool
		status   int
		reason   string
		abort    []string
	}{
		{"the longest", strings.Repeat("i", 128), false, http.StatusOK, "", nil},
		{"too long", strings.Repeat("i", 129), false, http.StatusBadRequest, "EVENT_ID_INVALID", []string{"abort-message"}},
		{"too long and not signed", strings.Repeat("i", 129), true, http.StatusUnauthorized, "SIGNATURE_INVALID", nil},
	} {
		d := harness.SignAs(t, c.id, time.Now(), body)
		if c.forged {
			d.Header.Set("Webhook-Signature", harness.SignAs(t, "another", time.Now(), body).Header.Get("Webhook-Signature"))
		}
		for _, path := range []string{
			"/api/liveblocks-webhook", "/v1/webhooks/liveblocks",
			"/v1/projects/default/webhooks/liveblocks",
		} {
			got := send(t, http.MethodPost, s.URL(path), d.Header, bytes.NewReader(body))
			if got.status != c.status || got.reason() != c.reason ||
				!slices.Equal(got.header.Values("Webhook-Delivery"), c.abort) {
				t.Errorf("%s to %s: %d %v %s; want %d %s, webhook-delivery %q", c.name, path, got.status, got.header, got.body,
					c.status, c.reason, c.abort)
			}
		}
	}
	resp, err := mirrorv1.NewEventServiceClient(s.Dial(t)).ListEvents(t.Context(), &mirrorv1.ListEventsRequest{})
	if err != nil || len(resp.GetEvents()) != 1 {
		t.Errorf("recorded are %v, %v; want the one whose id can be kept", resp.GetEvents(), err)
	}
}

// storage is a Storage document whose only member is given as JSON.
func storage(member string) []byte {
	return []byte(`{"liveblocksType":"LiveObject","data":{"v":` + member + `}}`)
}

// notes is a Storage document of exactly so many bytes, 64 of them not in its JSON form.
func notes(size int) []byte {
	head := `{"liveblocksType":"LiveObject","data":{"v":{"liveblocksType":"LiveList","data":[`
	tail := `]}}}`
	var b strings.Builder
	b.Grow(size)
	b.WriteString(head)
	for i := 0; b.Len() < size-len(tail)-200; i++ {
		fmt.Fprintf(&b, `{"id":%d,"text":"note %d %x"},`, i, i, i*2654435761)
	}
	b.WriteByte('"')
	b.WriteString(strings.Repeat("z", size-len(tail)-b.Len()-1))
	b.WriteByte('"')
	b.WriteString(tail)
	return []byte(b.String())
}

// oddDocument is a Storage document that is valid and odd.
type oddDocument struct {
	room string
	lson []byte
	json string // its JSON form, if that is looked at
	// problem is part of data_problem on PostgreSQL, mariaDB and mysql on these.
	problem, mariaDB, mysql string
	// column is the member v in data, text the same on MariaDB if it differs.
	column, text string
	large        bool // too large for one message
}

func oddDocuments() []oddDocument {
	const (
		mib     = 1 << 20
		nul     = `\u0000`
		tooMuch = "kept as data are at most 16777216"
		tooDeep = "error 4025" // MariaDB's JSON has 32 levels, MySQL's 100
	)
	nested := func(levels int) string { return strings.Repeat("[", levels) + strings.Repeat("]", levels) }
	return []oddDocument{
		{room: "nul", lson: storage(`"a\u0000b"`), json: `{"v":"a\u0000b"}`, problem: nul, mariaDB: nul, mysql: nul},
		{room: "whole pair", lson: storage(`"x\ud83d\udc4by"`), json: `{"v":"x\ud83d\udc4by"}`, column: "x👋y"},
		{
			room: "1e400", lson: storage(`1e400`), json: `{"v":1e400}`, column: "1" + strings.Repeat("0", 400), text: "1e400",
			mysql: "error 3140", // its numbers are doubles
		},
		{room: "60 levels", lson: storage(nested(60)), column: nested(60), mariaDB: tooDeep},
		{room: "150 levels", lson: storage(nested(150)), column: nested(150), mariaDB: tooDeep, mysql: "error 3157"},
		{
			room: "the same key twice", lson: []byte(`{"liveblocksType":"LiveObject","data":{"v":1,"v":2}}`), column: "2",
			text: "1",
		},
		{
			room: "spaces", lson: []byte(" {\n\t\"liveblocksType\" : \"LiveObject\" , \"data\" : { \"v\" : 1 } }\r\n"),
			column: "1",
		},
		{room: "quotes", lson: storage(`"it's \\ \" \n ?"`), column: "it's \\ \" \n ?"},
		{room: "5 MiB", lson: notes(5 * mib), large: true},
		{
			room: "over 16 MiB", lson: notes(16*mib + 64 + 4096), problem: tooMuch, mariaDB: tooMuch, mysql: tooMuch,
			large: true,
		},
	}
}

// Documents that are valid and odd are read back byte for byte in every way there is,
// whether or not the database can hold them as JSON too.
func TestOddDocuments(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		url := e.Database(t)
		s, upstream := startOn(t, url, nil)
		mirror := s.Mirror(t)
		db := e.Connect(t, url)
		mariaDB := e == dbtest.MySQL && db.IsMariaDB(t)

		for _, c := range oddDocuments() {
			create(t, s, upstream, c.room, fake.RoomOptions{Storage: c.lson})
			awaitStorage(t, s, c.room, c.lson) // over HTTP

			read, err := readDocument(t, mirror,
				&mirrorv1.ReadDocumentRequest{RoomId: c.room, Format: mirrorv1.DocumentFormat_DOCUMENT_FORMAT_PLAIN_LSON})
			if err != nil || !bytes.Equal(read, c.lson) {
				t.Errorf("%s: ReadDocument returned %d bytes (%v); want the %d of Liveblocks", c.room, len(read), err, len(c.lson))
			}
			if c.json != "" {
				if _, _, got := s.Get(t, roomPath(c.room, "/storage:read?format=json")); string(got) != c.json {
					t.Errorf("%s: as JSON %s; want %s", c.room, got, c.json)
				}
			}

			doc, err := mirror.GetStorageDocument(t.Context(), &mirrorv1.GetStorageDocumentRequest{
				RoomId: c.room, Format: mirrorv1.DocumentFormat_DOCUMENT_FORMAT_PLAIN_LSON,
			})
			switch {
			case c.large:
				if status.Code(err) != codes.FailedPrecondition || reasonOf(err) != "DOCUMENT_TOO_LARGE" {
					t.Errorf("%s: GetStorageDocument = %v; want FAILED_PRECONDITION DOCUMENT_TOO_LARGE", c.room, err)
				}
				doc, err = mirror.GetStorageDocument(t.Context(), &mirrorv1.GetStorageDocumentRequest{
					RoomId: c.room, View: mirrorv1.DocumentView_DOCUMENT_VIEW_BASIC,
				})
				if err != nil {
					t.Fatalf("%s: GetStorageDocument in the basic view: %v", c.room, err)
				}
			case err != nil:
				t.Fatalf("%s: GetStorageDocument: %v", c.room, err)
			case !bytes.Equal(doc.GetDocument().GetContent(), c.lson):
				t.Errorf("%s: GetStorageDocument returned %q; want %q", c.room, doc.GetDocument().GetContent(), c.lson)
			}
			if size := doc.GetDocument().GetSourceSize(); size != int64(len(c.lson)) {
				t.Errorf("%s: source_size = %d; want %d", c.room, size, len(c.lson))
			}

			// The JSON column, its absence, and the view over it.
			want, column := c.problem, c.column
			switch {
			case mariaDB:
				want, column = c.mariaDB, cmp.Or(c.text, c.column)
			case e == dbtest.MySQL:
				want = c.mysql
			}
			var problem string
			var null, same bool
			err = db.Each(t.Context(), "select data_problem, data is null, coalesce("+e.JSON("data", "v")+
				", '') = ? from mirror_document where kind = 2 and room_id = ?",
				func(scan func(dest ...any) error) error { return scan(&problem, &null, &same) }, column, c.room)
			if err != nil {
				t.Fatal(err)
			}
			if null != (want != "") || !strings.Contains(problem, want) || problem != doc.GetDocument().GetDataProblem() {
				t.Errorf("%s: data is null: %v, data_problem %q, over gRPC %q; want %q", c.room, null, problem,
					doc.GetDocument().GetDataProblem(), want)
			}
			if column != "" && !null && !same {
				t.Errorf("%s: v in data is not %s", c.room, column)
			}
			if !db.HasViews(t) {
				continue
			}
			inView := count(t, db,
				"select count(*) from liveblocks_documents where room_id = ? and data is not null and updated_at is not null",
				c.room)
			if want := map[bool]int{true: 0, false: 1}[null]; inView != want {
				t.Errorf("%s: liveblocks_documents has %d rows; want %d", c.room, inView, want)
			}
		}

		// Nothing of this has got in the way of what came after it.
		awaitIdle(t, s)
		create(t, s, upstream, "afterwards", fake.RoomOptions{Storage: storage("1")})
		awaitStorage(t, s, "afterwards", storage("1"))
	})
}

// A server that takes small packets takes what fits into them. What does not fit fails
// with the reason, and only that; data that does not fit is left out.
func TestSmallPackets(t *testing.T) {
	t.Parallel()
	dbtest.MySQL.Need(t)
	server := mysqltest.Start(t, mysqltest.Options{Settings: map[string]string{"max_allowed_packet": "1M"}})
	upstream := harness.NewFake(t)
	s := harness.Start(t, harness.Options{
		DatabaseURL: server.Database(t, "mirror"), UpstreamURL: upstream.URL,
		Env: map[string]string{"MIRROR_MAX_ATTEMPTS": "2"},
	})
	const mib = 1 << 20

	// Content is packed, data is not.
	repetitive := storage(`"` + strings.Repeat("x", 3*mib) + `"`)
	create(t, s, upstream, "repetitive", fake.RoomOptions{Storage: repetitive})
	awaitStorage(t, s, "repetitive", repetitive)
	doc, err := s.Mirror(t).GetStorageDocument(t.Context(), &mirrorv1.GetStorageDocumentRequest{
		RoomId: "repetitive", View: mirrorv1.DocumentView_DOCUMENT_VIEW_BASIC,
	})
	if problem := doc.GetDocument().GetDataProblem(); err != nil || !strings.Contains(problem, "max_allowed_packet") {
		t.Errorf("data that is too large for a packet is left out because of %q, %v; want max_allowed_packet named", problem,
			err)
	}

	noise := make([]byte, 2*mib)
	rand.Read(noise)
	create(t, s, upstream, "noise",
		fake.RoomOptions{Storage: storage(`"` + base64.StdEncoding.EncodeToString(noise) + `"`)})
	var failed *mirrorv1.Task
	harness.Eventually(t, patience, func() error {
		resp, err := s.Admin(t).ListTasks(t.Context(),
			&mirrorv1.ListTasksRequest{RoomId: "noise", State: mirrorv1.TaskState_TASK_STATE_FAILED})
		if err != nil {
			return err
		}
		if len(resp.GetTasks()) != 1 {
			return fmt.Errorf("failed tasks of a document that is too large: %v; want one", resp.GetTasks())
		}
		failed = resp.GetTasks()[0]
		return nil
	})
	if why := failed.GetLastError(); !strings.HasPrefix(why, "DOCUMENT_TOO_LARGE") ||
		!strings.Contains(why, "max_allowed_packet") {
		t.Errorf("a document that is too large for a packet failed because of %q; want it to name max_allowed_packet", why)
	}

	// A large delivery beside many small ones, all at once.
	var deliveries []harness.Delivery
	for i := range 20 {
		body := fmt.Appendf(nil, `{"type":"threadCreated","data":{"projectId":"%s"},"n":%d,"padding":"%s"}`,
			harness.LiveblocksProject, i, strings.Repeat(`'`, map[bool]int{true: 900 << 10, false: 30 << 10}[i == 7]))
		deliveries = append(deliveries, harness.Sign(t, body))
	}
	var senders sync.WaitGroup
	for _, d := range deliveries {
		senders.Go(func() {
			if code, body, err := d.Do(t.Context(), s.URL("/api/liveblocks-webhook")); err != nil || code != http.StatusOK {
				t.Errorf("a delivery of %d bytes: %d %s, %v; want 200", len(d.Body), code, body, err)
			}
		})
	}
	senders.Wait()
	events := mirrorv1.NewEventServiceClient(s.Dial(t))
	for _, d := range deliveries {
		resp, err := events.GetEvent(t.Context(), &mirrorv1.GetEventRequest{EventId: d.ID})
		if err != nil || !bytes.Equal(resp.GetEvent().GetPayload(), d.Body) {
			t.Errorf("a delivery of %d bytes was recorded as %d, %v", len(d.Body), len(resp.GetEvent().GetPayload()), err)
		}
	}

	// What failed is tried again when it fits.
	if err := upstream.SetStorage("noise", storage("1")); err != nil {
		t.Fatal(err)
	}
	tell(t, s, fake.StorageUpdated, "noise")
	awaitStorage(t, s, "noise", storage("1"))
	awaitIdle(t, s)
}

// An answer that is no document fails its task with the reason, and only its own.
func TestBadAnswerFailsAlone(t *testing.T) {
	t.Parallel()
	s, upstream := start(t, map[string]string{"MIRROR_MAX_ATTEMPTS": "2", "MIRROR_LIVEBLOCKS_MAX_ANSWER": "1000000"})
	for room, lson := range map[string][]byte{
		"garbage": []byte("<!doctype html>"), "half": []byte(`{"liveblocksType":"LiveObject","data":{`),
		"too large": notes(1000001),
	} {
		create(t, s, upstream, room, fake.RoomOptions{Storage: lson})
		harness.Eventually(t, patience, func() error {
			resp, err := s.Admin(t).ListTasks(t.Context(),
				&mirrorv1.ListTasksRequest{RoomId: room, State: mirrorv1.TaskState_TASK_STATE_FAILED})
			if err != nil {
				return err
			}
			if len(resp.GetTasks()) != 1 || resp.GetTasks()[0].GetLastError() == "" {
				return fmt.Errorf("failed tasks of %q: %v; want one with its error", room, resp.GetTasks())
			}
			return nil
		})
		if status, _, body := s.Get(t, roomPath(room, "/storage:read")); status != http.StatusNotFound {
			t.Errorf("%s: the document that never was answers %d %.100s; want 404", room, status, body)
		}
	}
	create(t, s, upstream, "fine", fake.RoomOptions{Storage: storage("1")})
	awaitStorage(t, s, "fine", storage("1"))
	if err := upstream.SetStorage("garbage", storage(`"mended"`)); err != nil {
		t.Fatal(err)
	}
	tell(t, s, fake.StorageUpdated, "garbage")
	awaitStorage(t, s, "garbage", storage(`"mended"`))
}

// readDocument reads a stream to its end.
func readDocument(t *testing.T, c mirrorv1.MirrorServiceClient, req *mirrorv1.ReadDocumentRequest) ([]byte, error) {
	t.Helper()
	stream, err := c.ReadDocument(t.Context(), req)
	if err != nil {
		return nil, err
	}
	var doc []byte
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return doc, nil
		}
		if err != nil {
			return doc, err
		}
		doc = append(doc, chunk.GetData()...)
	}
}
