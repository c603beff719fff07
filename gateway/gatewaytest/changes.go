package gatewaytest

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
)

var changeCases = []testCase{
	{"ChangesAreEvents", changesAreEvents},
	{"ChangesAreLines", changesAreLines},
	{"SnapshotsAreEvents", snapshotsAreEvents},
	{"ResourcesFitALine", resourcesFitALine},
	{"ChangesFail", changesFail},
	{"ChangesStartWhereARequestSays", changesStart},
	{"ChangesEndWithTheirReader", changesEndWithReader},
}

const watchPath = "/v1/changes:watch"

// twoMessages sends progress and a change, and then ends with err.
func twoMessages(err error) watchFunc {
	return func(_ *mirrorv1.WatchChangesRequest, stream watchStream) error {
		for _, m := range []*mirrorv1.WatchChangesResponse{
			{Token: "t1", Event: &mirrorv1.WatchChangesResponse_Progress{Progress: &mirrorv1.ChangeProgress{CaughtUp: true}}},
			{Token: "t2", Event: &mirrorv1.WatchChangesResponse_Changes{Changes: &mirrorv1.ChangeBatch{
				Changes: []*mirrorv1.Change{{RoomId: "a\nb", Kind: mirrorv1.ResourceKind_RESOURCE_KIND_THREAD, Revision: 7}},
			}}},
		} {
			if err := stream.Send(m); err != nil {
				return err
			}
		}
		return err
	}
}

const theChange = `{"projectId":"","roomId":"a\nb","kind":"thread","resourceId":"","changeKind":"unspecified",` +
	`"revision":"7","roomEpoch":"0"}`

func changesAreEvents(t *testing.T, dial Dial) {
	r := newRig(t, dial, nil)
	r.onWatch(twoMessages(nil))
	a := r.get(t, watchPath, "Accept", "text/event-stream")
	want := "retry: 3000\n\n" +
		"id: t1\nevent: progress\ndata: {\"token\":\"t1\",\"progress\":{\"caughtUp\":true}}\n\n" +
		"id: t2\nevent: changes\ndata: {\"token\":\"t2\",\"changes\":{\"changes\":[" + theChange + "]}}\n\n"
	if diff := cmp.Diff(want, string(a.body)); a.code != http.StatusOK || diff != "" {
		t.Errorf("%d (-want +got):\n%s", a.code, diff)
	}
	for name, want := range map[string]string{
		"Content-Type": "text/event-stream", "Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no",
	} {
		if got := a.header.Get(name); got != want {
			t.Errorf("%s = %q; want %q", name, got, want)
		}
	}
}

// A resource that comes with a change is JSON in its line, however it is spelled.
func resourcesFitALine(t *testing.T, dial Dial) {
	r := newRig(t, dial, nil)
	r.onWatch(func(req *mirrorv1.WatchChangesRequest, stream watchStream) error {
		if req.GetInclude() != mirrorv1.ChangeInclude_CHANGE_INCLUDE_FULL {
			t.Errorf("include = %v; want all", req.GetInclude())
		}
		return stream.Send(&mirrorv1.WatchChangesResponse{Token: "t1", Event: &mirrorv1.WatchChangesResponse_Changes{
			Changes: &mirrorv1.ChangeBatch{Changes: []*mirrorv1.Change{{
				Resource: &mirrorv1.Change_Document{Document: &mirrorv1.Document{
					Content: []byte("{\n \"a\":\r\n \"x\\ny\"}"), ContentType: "application/json",
				}},
			}}},
		}})
	})
	for _, header := range [][]string{nil, {"Accept", "text/event-stream"}} {
		a := r.get(t, watchPath+"?include=full", header...)
		found := false
		for line := range strings.Lines(string(a.body)) {
			found = found || strings.Contains(line, `{  "a":   "x\ny"}`) && strings.Contains(line, `"contentType"`)
		}
		if !found {
			t.Errorf("%q; want the document within a line", a.body)
		}
	}
}

// Each part of a snapshot is an event of its own kind.
func snapshotsAreEvents(t *testing.T, dial Dial) {
	r := newRig(t, dial, nil)
	r.onWatch(func(req *mirrorv1.WatchChangesRequest, stream watchStream) error {
		if req.GetPosition() != mirrorv1.ChangeStart_CHANGE_START_SNAPSHOT {
			t.Errorf("position = %v; want a snapshot", req.GetPosition())
		}
		for _, m := range []*mirrorv1.WatchChangesResponse{
			{Token: "s1", Event: &mirrorv1.WatchChangesResponse_SnapshotBegin{SnapshotBegin: &mirrorv1.SnapshotBegin{}}},
			{Token: "s2", Event: &mirrorv1.WatchChangesResponse_SnapshotItems{SnapshotItems: &mirrorv1.SnapshotItems{
				Items: []*mirrorv1.Change{{RoomId: "a\nb", Kind: mirrorv1.ResourceKind_RESOURCE_KIND_THREAD, Revision: 7}},
			}}},
			{Token: "s3", Event: &mirrorv1.WatchChangesResponse_SnapshotEnd{SnapshotEnd: &mirrorv1.SnapshotEnd{}}},
		} {
			if err := stream.Send(m); err != nil {
				return err
			}
		}
		return nil
	})
	a := r.get(t, watchPath+"?position=snapshot", "Accept", "text/event-stream")
	want := "retry: 3000\n\n" +
		"id: s1\nevent: snapshot_begin\ndata: {\"token\":\"s1\",\"snapshotBegin\":{}}\n\n" +
		"id: s2\nevent: snapshot_items\ndata: {\"token\":\"s2\",\"snapshotItems\":{\"items\":[" + theChange + "]}}\n\n" +
		"id: s3\nevent: snapshot_end\ndata: {\"token\":\"s3\",\"snapshotEnd\":{}}\n\n"
	if diff := cmp.Diff(want, string(a.body)); a.code != http.StatusOK || diff != "" {
		t.Errorf("%d (-want +got):\n%s", a.code, diff)
	}
}

func changesAreLines(t *testing.T, dial Dial) {
	r := newRig(t, dial, nil)
	r.onWatch(twoMessages(nil))
	a := r.get(t, watchPath)
	want := "{\"result\":{\"token\":\"t1\",\"progress\":{\"caughtUp\":true}}}\n" +
		"{\"result\":{\"token\":\"t2\",\"changes\":{\"changes\":[" + theChange + "]}}}\n"
	if diff := cmp.Diff(want, string(a.body)); a.code != http.StatusOK || diff != "" {
		t.Errorf("%d (-want +got):\n%s", a.code, diff)
	}
}

// A failure before anything was sent is a status, and one after that an event.
func changesFail(t *testing.T, dial Dial) {
	r := newRig(t, dial, nil)
	expired := fail(codes.OutOfRange, "CHANGE_TOKEN_EXPIRED", 0)
	events := []string{"Accept", "text/html, text/event-stream;q=0.9"}
	for _, header := range [][]string{nil, events} {
		r.onWatch(func(*mirrorv1.WatchChangesRequest, watchStream) error { return expired })
		r.get(t, watchPath, header...).refused(t, http.StatusGone, "CHANGE_TOKEN_EXPIRED")
		r.onWatch(twoMessages(expired))
		a := r.get(t, watchPath, header...)
		parts := strings.Split(strings.TrimSpace(string(a.body)), "\n")
		last := parts[len(parts)-1]
		if header != nil {
			if parts[len(parts)-2] != "event: error" || !strings.HasPrefix(last, "data: {") {
				t.Errorf("end of the events = %q", parts[len(parts)-2:])
			}
		} else if !strings.HasPrefix(last, `{"error":{`) {
			t.Errorf("last line = %q; want an error", last)
		}
		if a.code != http.StatusOK || !strings.Contains(last, "CHANGE_TOKEN_EXPIRED") {
			t.Errorf("%d, last line %q; want the reason", a.code, last)
		}
	}
}

func changesStart(t *testing.T, dial Dial) {
	r := newRig(t, dial, nil)
	events := []string{"Accept", "text/event-stream", "Last-Event-ID", "t9"}
	token := func(token string) *mirrorv1.WatchChangesRequest {
		return &mirrorv1.WatchChangesRequest{Start: &mirrorv1.WatchChangesRequest_Token{Token: token}}
	}
	threads := token("t9")
	threads.Kinds, threads.RoomIdPrefix = []mirrorv1.ResourceKind{mirrorv1.ResourceKind_RESOURCE_KIND_THREAD}, "a/"
	for _, c := range []struct {
		path   string
		header []string
		want   *mirrorv1.WatchChangesRequest
	}{
		{watchPath + "?token=t1", nil, token("t1")},
		{watchPath + "?token=t1", events, token("t9")}, // what a browser has seen last
		{watchPath + "?kinds=thread&roomIdPrefix=a/", events, threads},
		{watchPath + "?position=earliest", nil, &mirrorv1.WatchChangesRequest{
			Start: &mirrorv1.WatchChangesRequest_Position{Position: mirrorv1.ChangeStart_CHANGE_START_EARLIEST},
		}},
	} {
		r.get(t, c.path, c.header...)
		if diff := cmp.Diff(c.want, r.onlyCall(t).req, protocmp.Transform()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.path, diff)
		}
	}
	r.post(t, watchPath, `{"token":"t1"}`)
	if diff := cmp.Diff(token("t1"), r.onlyCall(t).req, protocmp.Transform()); diff != "" {
		t.Errorf("POST (-want +got):\n%s", diff)
	}
	r.get(t, watchPath+"?tokn=t1").refused(t, http.StatusBadRequest, "REQUEST_INVALID")
	r.noCall(t)
}

func changesEndWithReader(t *testing.T, dial Dial) {
	r := newRig(t, dial, nil)
	gone := make(chan struct{})
	r.onWatch(func(_ *mirrorv1.WatchChangesRequest, stream watchStream) error {
		defer close(gone)
		if err := stream.Send(&mirrorv1.WatchChangesResponse{Token: "t1"}); err != nil {
			return err
		}
		<-stream.Context().Done()
		return stream.Context().Err()
	})
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url+watchPath, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	cancel()
	<-gone
}
