package blackbox_test

import (
	"bytes"
	"net/http"
	"strings"
	"testing"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
)

// The official dev server has no threads and no groups. It is told once for each kind;
// backfill ends, and verify compares the rest and says what it has left out.
func TestServerThatLacksKinds(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		dev := startDevServer(t)
		for _, room := range []string{"a", "b", "c"} {
			body := []byte(`{"id":"` + room + `","defaultAccesses":["room:write"]}`)
			header := http.Header{"Authorization": {"Bearer " + devKey}, "Content-Type": {"application/json"}}
			if got := send(t, http.MethodPost, dev.url+"/v2/rooms", header, bytes.NewReader(body)); got.status != http.StatusOK {
				t.Fatalf("create room = %d %s", got.status, got.body)
			}
		}
		s := harness.Start(t, harness.Options{DatabaseURL: e.Database(t), UpstreamURL: dev.url, Env: map[string]string{
			"LIVEBLOCKS_SECRET_KEY": devKey, "MIRROR_MIGRATE": "", "MIRROR_SWEEP_INTERVAL": "1h",
			"MIRROR_FULL_SWEEP_INTERVAL": "24h",
		}})
		server := map[string]string{"MIRROR_SERVER": s.GRPCAddr}

		got := command(t, server, "backfill", "--watch")
		if got.code != 0 || got.told != "" || !strings.Contains(got.stdout, "done: 3 rooms listed") ||
			!strings.Contains(got.stdout, "not fetched: this Liveblocks server does not support ") ||
			!strings.Contains(got.stdout, "(HTTP status 501)") {
			t.Errorf("backfill --watch = %+v; want it done, and told what the server does not have", got)
		}
		got = command(t, server, "verify")
		for _, kind := range []string{"thread", "group"} {
			want := "not compared: " + kind + ": this Liveblocks server does not support resources of kind " + kind +
				" (HTTP status 501)\n"
			if strings.Count(got.stdout, want) != 1 {
				t.Errorf("verify printed %q; want %q once", got.stdout, want)
			}
			line := `msg="this Liveblocks server does not have resources of this kind; they are not mirrored" project=default kind=` + kind
			if n := strings.Count(s.Log(), line); n != 1 {
				t.Errorf("the log tells of %s %d times; want once:\n%s", kind, n, s.Log())
			}
		}
		if got.code != 0 || strings.Contains(got.told, "liveblocks-mirror:") {
			t.Errorf("verify = %+v; want exit code 0, because all that there is was compared", got)
		}
		if strings.Contains(s.Log(), "task failed") {
			t.Errorf("tasks failed:\n%s", s.Log())
		}
		status, err := s.Admin(t).GetStatus(t.Context(), &mirrorv1.GetStatusRequest{})
		if err != nil {
			t.Fatal(err)
		}
		p := status.GetProjects()[0]
		if p.GetFailedTasks() != 0 || p.GetBackgroundTasks() != 0 || len(p.GetUnsupportedKinds()) != 2 {
			t.Errorf("status = %v; want nothing failed or waiting to be fetched, and two kinds that are not supported", p)
		}
		tasks, err := s.Admin(t).ListTasks(t.Context(), &mirrorv1.ListTasksRequest{
			State: mirrorv1.TaskState_TASK_STATE_WAITING,
		})
		if err != nil || len(tasks.GetTasks()) != 4 {
			t.Fatalf("waiting tasks = %v, %v; want the threads of three rooms and the groups", tasks, err)
		}
		for _, task := range tasks.GetTasks() {
			if !strings.HasPrefix(task.GetLastError(), "UPSTREAM_UNSUPPORTED: ") || task.GetAttempts() != 0 {
				t.Errorf("task = %v; want it to say that the server does not support it, without attempts", task)
			}
		}
	})
}
