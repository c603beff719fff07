package blackbox_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
)

// The audit has who did what and whose calls were refused, over gRPC and HTTP, across a
// restart. While it cannot be written, nothing is done for operators, and deliveries and
// reads go on.
func TestAudit(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		f := newKeyFile(t)
		ops, reader := f.add(t, "--scope", "admin.read,admin.write,read"), f.add(t, "--scope", "read")
		id := func(key string) string { return strings.Split(strings.TrimPrefix(key, "sk_mirror_"), "_")[0] }
		url := e.Database(t)
		options := harness.Options{
			DatabaseURL: url, UpstreamURL: harness.NewFake(t).URL, Env: map[string]string{"MIRROR_KEYS_FILE": string(f)},
		}
		s := harness.Start(t, options)
		as := func(key string) context.Context {
			return metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+key, "x-request-id", "from-the-test")
		}
		post := func(key, path string) int {
			t.Helper()
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL(path), strings.NewReader("{}"))
			must(t, err)
			req.Header.Set("Authorization", "Bearer "+key)
			resp, err := client.Do(req)
			must(t, err)
			must(t, resp.Body.Close())
			return resp.StatusCode
		}
		_, err := s.Admin(t).PauseProject(as(ops), &mirrorv1.PauseProjectRequest{Reason: "because of alice"})
		must(t, err)
		for range 3 {
			if code := post(reader, "/v1/admin/project:resume"); code != http.StatusForbidden {
				t.Errorf("POST with another scope = %d", code)
			}
		}
		for range 2 {
			_, err := s.Admin(t).GetStatus(as("wrong"), &mirrorv1.GetStatusRequest{})
			if status.Code(err) != codes.Unauthenticated {
				t.Errorf("GetStatus with a wrong key = %v", err)
			}
		}
		check := func(when string) {
			t.Helper()
			list, err := s.Admin(t).ListAuditEntries(as(ops), &mirrorv1.ListAuditEntriesRequest{})
			must(t, err)
			calls, refused := make(map[string]*mirrorv1.AuditEntry), make(map[string]int64)
			for _, e := range list.GetAuditEntries() {
				switch {
				case e.GetDenied():
					refused[e.GetReason()+" "+e.GetCaller()+" "+e.GetAddress()] += e.GetCalls()
				default:
					calls[e.GetMethod()] = e
				}
			}
			want := map[string]int64{"SCOPE_MISSING " + id(reader) + " 127.0.0.1": 3, "CREDENTIAL_INVALID  127.0.0.1": 2}
			if fmt.Sprint(refused) != fmt.Sprint(want) {
				t.Errorf("refused calls %s = %v; want %v", when, refused, want)
			}
			p := calls["PauseProject"]
			if p.GetCaller() != id(ops) || p.GetAddress() != "127.0.0.1" || p.GetCode() != "OK" || p.GetCalls() != 1 ||
				p.GetRequestId() != "from-the-test" || p.GetProjectId() != "default" ||
				p.GetEndTime().AsTime().Before(p.GetStartTime().AsTime()) {
				t.Errorf("entry of the pause %s = %v", when, p)
			}
			if strings.Contains(list.String(), "alice") {
				t.Errorf("the audit %s holds a text: %v", when, list)
			}
		}
		check("at once")
		if _, err := s.Stop(t); err != nil {
			t.Fatal(err)
		}
		s = harness.Start(t, options)
		check("after a restart")

		db := e.Connect(t, url)
		exec := func(text string) {
			t.Helper()
			_, err := db.ExecContext(t.Context(), text)
			must(t, err)
		}
		exec("alter table mirror_audit rename to mirror_audit_away")
		_, err = s.Admin(t).ResumeProject(as(ops), &mirrorv1.ResumeProjectRequest{})
		if status.Code(err) != codes.Unavailable || !strings.Contains(status.Convert(err).Message(), "audit") {
			t.Errorf("ResumeProject without an audit = %v; want that it is not made", err)
		}
		if code := post(ops, "/v1/admin/project:resume"); code != http.StatusServiceUnavailable {
			t.Errorf("POST without an audit = %d; want 503", code)
		}
		d := harness.SignEvent(t, fake.Event{Type: fake.StorageUpdated, RoomID: "plan", Time: time.Now()})
		if code := s.Post(t, d); code != http.StatusOK {
			t.Errorf("webhook without an audit = %d", code)
		}
		_, err = s.Mirror(t).ListRooms(as(ops), &mirrorv1.ListRoomsRequest{})
		must(t, err)
		exec("alter table mirror_audit_away rename to mirror_audit")
		st, err := s.Admin(t).GetStatus(as(ops), &mirrorv1.GetStatusRequest{})
		must(t, err)
		if reason := st.GetProjects()[0].GetPauseReason(); !strings.Contains(reason, "alice") {
			t.Errorf("the project goes on, although that could not be recorded: %q", reason)
		}
		_, err = s.Admin(t).ResumeProject(as(ops), &mirrorv1.ResumeProjectRequest{})
		must(t, err)
	})
}

// A verification is made although the database takes no writes, and what changes something
// is not. Both are in the audit once it takes them.
func TestAuditOfADatabaseWithoutWrites(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		database, upstream := e.Guarded(t), harness.NewFake(t)
		s := harness.Start(t, harness.Options{
			DatabaseURL: database.URL, UpstreamURL: upstream.URL, Env: map[string]string{"MIRROR_MIGRATE": ""},
		})
		follow(t, s, upstream)
		must(t, upstream.CreateRoom("plan", fake.RoomOptions{Storage: storage("1")}))
		awaitIdle(t, s)
		database.Refuse(true)
		harness.Eventually(t, patience, func() error {
			stream, err := s.Admin(t).VerifyMirror(t.Context(), &mirrorv1.VerifyMirrorRequest{})
			var summary *mirrorv1.VerifySummary
			for err == nil {
				var r *mirrorv1.VerifyMirrorResponse
				if r, err = stream.Recv(); err == nil && r.GetSummary() != nil {
					summary = r.GetSummary()
				}
			}
			if summary == nil { // a session that was terminated, perhaps
				return fmt.Errorf("VerifyMirror without writes = %w; want its result", err)
			}
			return nil
		})
		_, err := s.Admin(t).PauseProject(t.Context(), &mirrorv1.PauseProjectRequest{Reason: "x"})
		if status.Code(err) != codes.Unavailable {
			t.Errorf("PauseProject without writes = %v; want UNAVAILABLE", err)
		}
		database.Refuse(false)
		harness.Eventually(t, patience, func() error {
			list, err := s.Admin(t).ListAuditEntries(t.Context(), &mirrorv1.ListAuditEntriesRequest{})
			got := make(map[string]bool)
			for _, e := range list.GetAuditEntries() {
				got[e.GetMethod()+" "+e.GetCode()] = true
			}
			if err != nil || !got["VerifyMirror OK"] || !got["PauseProject UNAVAILABLE"] {
				return fmt.Errorf("audit = %v, %w; want both calls", got, err)
			}
			return nil
		})
	})
}
