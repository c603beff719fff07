package gatewaytest

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
)

var streamCases = []testCase{
	{"StreamIsLines", streamIsLines},
	{"StreamComesAsItIsSent", streamComesAtOnce},
	{"StreamFails", streamFails},
	{"StreamEndsWithItsReader", streamEndsWithReader},
}

const verify = "/v1/admin/mirror:verify"

type verifyStream = grpc.ServerStreamingServer[mirrorv1.VerifyMirrorResponse]

func progress(rooms int64) *mirrorv1.VerifyMirrorResponse {
	progress := &mirrorv1.VerifyProgress{RoomsChecked: rooms}
	return &mirrorv1.VerifyMirrorResponse{Report: &mirrorv1.VerifyMirrorResponse_Progress{Progress: progress}}
}

func streamIsLines(t *testing.T, dial Dial) {
	r := newRig(t, dial, nil)
	r.onVerify(func(_ *mirrorv1.VerifyMirrorRequest, stream verifyStream) error {
		for _, report := range []*mirrorv1.VerifyMirrorResponse{
			{Report: &mirrorv1.VerifyMirrorResponse_Drift{Drift: &mirrorv1.Drift{
				ResourceKind: mirrorv1.ResourceKind_RESOURCE_KIND_THREAD, RoomId: "a\nb", ResourceId: "th_1",
				Kind: mirrorv1.DriftKind_DRIFT_KIND_DERIVED,
			}}},
			progress(1 << 53),
			{Report: &mirrorv1.VerifyMirrorResponse_Summary{Summary: &mirrorv1.VerifySummary{Drifts: 1}}},
		} {
			if err := stream.Send(report); err != nil {
				return err
			}
		}
		return nil
	})
	a := r.post(t, verify, `{"roomIdPrefix":"a/","repair":true}`)
	if a.code != http.StatusOK || a.err != nil {
		t.Fatalf("verify = %d, %v", a.code, a.err)
	}
	want := &mirrorv1.VerifyMirrorRequest{RoomIdPrefix: "a/", Repair: true}
	if diff := cmp.Diff(want, r.onlyCall(t).req, protocmp.Transform()); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
	var got []any
	lines := bufio.NewScanner(strings.NewReader(string(a.body)))
	for lines.Scan() {
		var v map[string]any
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			t.Fatalf("line %q: %v", lines.Text(), err)
		}
		got = append(got, v["result"])
	}
	if diff := cmp.Diff([]any{
		map[string]any{"drift": map[string]any{
			"resourceKind": "thread", "roomId": "a\nb", "resourceId": "th_1", "kind": "derived",
			"detail": "", "repairRequested": false,
		}},
		map[string]any{"progress": map[string]any{
			"roomsChecked": "9007199254740992", "roomsListed": "0",
			"resourcesChecked": "0", "drifts": "0", "waiting": "",
		}},
		map[string]any{"summary": map[string]any{
			"roomsChecked": "0", "resourcesChecked": "0", "drifts": "1", "repairsRequested": "0", "resourcesSkipped": "0",
			"resourcesPending": "0", "skipReason": "", "unsupportedKinds": []any{},
		}},
	}, got); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
	if got := a.header.Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type = %q; want application/json", got)
	}
	for _, body := range []string{"{", `{"prefix":"a"}`, "[]"} {
		r.post(t, verify, body).refused(t, http.StatusBadRequest, "REQUEST_INVALID")
	}
	r.post(t, verify+"?repair=true", "").refused(t, http.StatusBadRequest, "REQUEST_INVALID")
	r.noCall(t)
}

// open begins a verification and returns what is read of it.
func (r *rig) open(ctx context.Context, t *testing.T) *bufio.Reader {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url+verify, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		t.Fatalf("verify: %v", err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	return bufio.NewReader(resp.Body)
}

func streamComesAtOnce(t *testing.T, dial Dial) {
	r := newRig(t, dial, nil)
	seen := make(chan struct{})
	r.onVerify(func(_ *mirrorv1.VerifyMirrorRequest, stream verifyStream) error {
		for i := range int64(3) {
			if err := stream.Send(progress(i)); err != nil {
				return err
			}
			select { // nothing more before this has arrived
			case <-seen:
			case <-stream.Context().Done():
				return stream.Context().Err()
			}
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	lines := r.open(ctx, t)
	for range 3 {
		if _, err := lines.ReadBytes('\n'); err != nil {
			t.Fatalf("a line that was sent: %v", err)
		}
		seen <- struct{}{}
	}
}

func streamFails(t *testing.T, dial Dial) {
	r := newRig(t, dial, nil)
	for _, c := range []struct {
		err    error
		code   int
		reason string
	}{
		{fail(codes.InvalidArgument, "PROJECT_UNKNOWN", 0), 400, "PROJECT_UNKNOWN"},
		{fail(codes.Unavailable, "STORE_UNAVAILABLE", time.Second), 503, "STORE_UNAVAILABLE"},
		{status.Error(codes.Internal, "secret"), 500, "INTERNAL"},
		{status.Error(codes.Unavailable, "dial tcp 10.0.0.1: secret"), 503, ""},
	} {
		for _, sent := range []int64{0, 2} {
			r.onVerify(func(_ *mirrorv1.VerifyMirrorRequest, stream verifyStream) error {
				for i := range sent {
					if err := stream.Send(progress(i)); err != nil {
						return err
					}
				}
				return c.err
			})
			a := r.post(t, verify, "")
			lines := strings.Split(strings.TrimSuffix(string(a.body), "\n"), "\n")
			want := c.code
			if sent > 0 { // which is too late for another
				want = http.StatusOK
			}
			if a.code != want || int64(len(lines)) != sent+1 {
				t.Fatalf("%v after %d messages = %d, %q; want %d", c.err, sent, a.code, lines, want)
			}
			var last struct{ Error failure }
			if err := json.Unmarshal([]byte(lines[sent]), &last); err != nil || last.Error.Code == 0 ||
				last.Error.Message == "" {
				t.Errorf("the last line is %q; want the failure", lines[sent])
			}
			reason := ""
			if len(last.Error.Details) > 0 {
				reason = last.Error.Details[0].Reason
			}
			if reason != c.reason || strings.Contains(string(a.body), "secret") {
				t.Errorf("%v reached the caller as %q; want reason %q", c.err, lines[sent], c.reason)
			}
		}
	}
}

func streamEndsWithReader(t *testing.T, dial Dial) {
	r := newRig(t, dial, nil)
	ended := make(chan struct{})
	r.onVerify(func(_ *mirrorv1.VerifyMirrorRequest, stream verifyStream) error {
		if err := stream.Send(progress(1)); err != nil {
			return err
		}
		<-stream.Context().Done()
		close(ended)
		return stream.Context().Err()
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	lines := r.open(ctx, t)
	if _, err := lines.ReadBytes('\n'); err != nil {
		t.Fatal(err)
	}
	cancel()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Error("the verification goes on without its reader")
	}
}
