package blackbox_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/app"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/config"
)

// result is how a command ended.
type result struct {
	code   int
	stdout string
	// log is what of standard error is log lines, told the rest.
	log, told string
}

// command runs the program to its end.
func command(t *testing.T, env map[string]string, args ...string) result {
	t.Helper()
	harness.Binary(t) // on a cold machine building it takes longer than any command
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	cmd := harness.Command(ctx, t, env, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	r := result{code: exitCode(cmd.Run()), stdout: stdout.String()}
	for line := range strings.Lines(stderr.String()) {
		if strings.HasPrefix(line, "time=") {
			r.log += line
		} else {
			r.told += line
		}
	}
	return r
}

func TestVersionAndHelp(t *testing.T) {
	t.Parallel()
	if got := command(t, nil, "version"); got.code != 0 || got.told != "" ||
		!strings.HasPrefix(got.stdout, "liveblocks-mirror ") {
		t.Errorf("version = %+v", got)
	}
	for _, args := range [][]string{{"--version"}, {"-v"}, {"serve", "--version"}} {
		if got, want := command(t, nil, args...), command(t, nil, "version"); got != want {
			t.Errorf("%q = %+v; want what version prints, %+v", args, got, want)
		}
	}
	if got, want := command(t, nil, "help", "serve"), command(t, nil, "serve", "--help"); got != want {
		t.Errorf("help serve = %+v; want what serve --help prints, %+v", got, want)
	}
	for _, args := range [][]string{nil, {"--help"}, {"-h"}, {"help"}} {
		got := command(t, nil, args...)
		for _, want := range []string{"serve", "migrate", "backfill", "verify", "demo", "version", "--config"} {
			if got.code != 0 || !strings.Contains(got.stdout, want) {
				t.Errorf("help by %q = %d, %q; want exit code 0 and %s", args, got.code, got.stdout, want)
			}
		}
	}
	// Every setting stands in the help under the name of its variable.
	help := command(t, nil, "serve", "--help").stdout
	if n := strings.Count(help, "Required."); n != 2 {
		t.Errorf("serve --help marks %d settings as required; want the two secrets", n)
	}
	for _, field := range reflect.VisibleFields(reflect.TypeFor[config.Serve]()) {
		if env := field.Tag.Get("env"); env != "" && !strings.Contains(help, "$"+env) {
			t.Errorf("serve --help does not name %s", env)
		}
	}
}

func TestMigrateTwice(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		url := e.Empty(t)
		db := e.Connect(t, url)
		for range 2 {
			if got := command(t, map[string]string{"DATABASE_URL": url}, "migrate"); got.code != 0 || got.told != "" {
				t.Fatalf("migrate = %+v; want exit code 0", got)
			}
			tables := []string{"mirror_event", "mirror_change"}
			if db.HasViews(t) {
				tables = append(tables, "liveblocks_documents")
			}
			for _, table := range tables {
				if n := count(t, db, "select count(*) from information_schema.tables where table_schema = "+e.Schema+
					" and table_name = ?", table); n != 1 {
					t.Errorf("the schema has %s %d times; want once", table, n)
				}
			}
			if n := count(t, db, "select count(*) from mirror_feed_head"); e == dbtest.Postgres && n != 256 {
				t.Errorf("the schema has %d feed heads; want 256", n)
			}
		}
	})
}

// The demo shows what it does, every command that it prints works while it runs, and an
// interrupt ends it in order with the totals.
func TestDemo(t *testing.T) {
	t.Parallel()
	needServers(t)
	bin := harness.Binary(t)
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	tmp, service := harness.Dir(t, nil), filepath.Join(t.TempDir(), "service")
	ctx, cancel := context.WithTimeout(t.Context(), grpcurlBuild)
	defer cancel()
	cmd := harness.Command(ctx, t, map[string]string{
		"TMPDIR": tmp, "MIRROR_DATA_DIR": service, "DATABASE_URL": "postgres://127.0.0.1:1/of-the-service",
	}, "demo", "--every=100ms", "--http-addr=127.0.0.1:0", "--grpc-addr=127.0.0.1:0")
	cmd.Path, cmd.Dir = bin, root // where the tools of the repository are
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var printed []string
	lines := bufio.NewScanner(stdout)
	for rows := 0; rows < 8 && lines.Scan(); {
		if printed = append(printed, lines.Text()); strings.Contains(lines.Text(), " 200 ") {
			rows++
		}
	}
	rest := make(chan string, 1) // the demo must not wait for its reader
	go func() {
		var left strings.Builder
		for lines.Scan() {
			left.WriteString(lines.Text() + "\n")
		}
		rest <- left.String()
	}()
	if t.Failed() || len(printed) == 0 {
		t.Fatalf("the demo printed nothing: %s", &stderr)
	}
	runPrinted(ctx, t, printed)
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	all := strings.Join(printed, "\n") + "\n" + <-rest
	if err := cmd.Wait(); err != nil || stderr.Len() > 0 {
		t.Errorf("after an interrupt the demo ended with %v and said %q; want exit code 0 and nothing", err, &stderr)
	}
	for _, want := range []string{
		"roomCreated", "userEntered", "threadCreated", "notification", " 1 comment\n", " events; from webhook to mirror ",
		" in the median, ", " at worst\n", "other resources compared: 0 differences\n",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("the demo does not print %q:\n%s", want, all)
		}
	}
	for _, bad := range []string{"not seen", "cause=", "\x1b", " 1 comments"} {
		if strings.Contains(all, bad) {
			t.Errorf("the demo prints %q:\n%s", bad, all)
		}
	}
	if _, err := os.Stat(service); !os.IsNotExist(err) {
		t.Errorf("the demo touched the data directory of the service: %v", err)
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("the demo left %v (%v)", left, err)
	}
}

// runPrinted runs the commands that the demo has printed.
func runPrinted(ctx context.Context, t *testing.T, printed []string) {
	t.Helper()
	var tools, psql string
	kinds := map[string]int{}
	for i, line := range printed {
		command, isCommand := strings.CutPrefix(line, "  ")
		if !isCommand || strings.HasPrefix(command, "  ") {
			continue // text, or the rest of the line before
		}
		if first, more := strings.CutSuffix(command, "\\"); more {
			command = first + printed[i+1]
		}
		word, _, _ := strings.Cut(command, " ")
		kinds[strings.TrimSuffix(word, "()")]++
		switch word {
		case "grpcurl()":
			tools = command + "\n"
			continue
		case "psql":
			psql = command
			command = "echo 'select 1' | " + psql
		case "select":
			command = psql + " --csv -v ON_ERROR_STOP=1 <<'E'\n" + command + "\nE"
		case "curl":
			command += " -f"
		}
		out, err := exec.CommandContext(ctx, "bash", "-c", tools+command).CombinedOutput()
		if err != nil || len(bytes.TrimSpace(out)) == 0 || word == "select" && bytes.Count(out, []byte("\n")) < 2 {
			t.Errorf("%s: %v, %q; want something", command, err, out)
		}
	}
	if kinds["curl"] < 7 || kinds["grpcurl"] < 2 || kinds["psql"] != 1 || kinds["select"] < 2 {
		t.Errorf("the demo printed %v; want commands of each kind:\n%s", kinds, strings.Join(printed, "\n"))
	}
}

// The demo ends by itself after its edits, and shows them on a database of the user.
func TestDemoOnADatabase(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		url := e.Empty(t)
		for range 2 { // what an earlier demo left does no harm
			got := command(t, nil, "demo", "--edits=4", "--every=10ms", "--database-url="+url, "--http-addr=127.0.0.1:0",
				"--grpc-addr=127.0.0.1:0")
			if got.code != 0 || got.told != "" || !strings.Contains(got.stdout, "compared: 0 differences\n") ||
				!strings.Contains(got.stdout, "in your database, in SQL:") {
				t.Errorf("demo = %+v; want exit code 0 and no difference", got)
			}
		}
	})
}

// The demo never writes into data that it has not made.
func TestDemoRefusesOtherData(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "lock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	got := command(t, nil, "demo", "--data-dir="+dir, "--http-addr=127.0.0.1:0", "--grpc-addr=127.0.0.1:0")
	want := "start the embedded PostgreSQL in " + dir + ": " + dir + " was not made by the demo, which never " +
		"touches real data; set --data-dir to a new or an empty directory\n"
	if got.code != 1 || got.told != "liveblocks-mirror: "+want {
		t.Errorf("demo = %+v; want exit code 1 and %q", got, want)
	}
	for url, code := range map[string]int{"postgres://u:" + secretMark + "@127.0.0.1:1/x": 1, "oracle:" + secretMark: 2} {
		got := command(t, nil, "demo", "--database-url="+url, "--http-addr=127.0.0.1:0", "--grpc-addr=127.0.0.1:0")
		if got.code != code || !strings.Contains(got.told, "--database-url") || strings.Contains(got.told, "DATABASE_URL") ||
			strings.Contains(got.told, secretMark) {
			t.Errorf("demo = %+v; want exit code %d and a line that names the flag", got, code)
		}
	}
}

// secretMark is part of every secret in the settings below.
const secretMark = "sEcReTmArK"

// When a server or an address cannot be used, one line says what to change, without a
// secret. Settings that are wrong by themselves are in TestWrongSettings.
func TestServeSaysWhatFailed(t *testing.T) {
	t.Parallel()
	needServers(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })
	behind, current, port := dbtest.Postgres.Empty(t), database(t), taken.Addr().String()
	const closed = "postgres://u:" + secretMark + "@127.0.0.1:1/x"
	for name, c := range map[string]struct {
		setting, value string
		migrate        string
		want           []string // parts of the line
	}{
		"HTTP port in use":           {"MIRROR_HTTP_ADDR", port, "", []string{port, "--http-addr"}},
		"gRPC port in use":           {"MIRROR_GRPC_ADDR", port, "", []string{port, "--grpc-addr"}},
		"webhook port in use":        {"MIRROR_WEBHOOK_ADDR", port, "", []string{port, "--webhook-addr"}},
		"no server there":            {"DATABASE_URL", closed, "", []string{"127.0.0.1:1", "DATABASE_URL", "refused"}},
		"no server there to migrate": {"DATABASE_URL", closed, "true", []string{"127.0.0.1:1", "DATABASE_URL", "refused"}},
		"no such database": {
			"DATABASE_URL", elsewhere(t, current, "nowhere"), "",
			[]string{"DATABASE_URL", "nowhere"},
		},
		"schema behind": {"DATABASE_URL", behind, "", []string{"liveblocks-mirror migrate", "--migrate"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := with(map[string]string{
				"DATABASE_URL": current, "LIVEBLOCKS_BASE_URL": "http://127.0.0.1:1",
				"LIVEBLOCKS_SECRET_KEY": "sk_" + secretMark, "LIVEBLOCKS_WEBHOOK_SECRET": harness.WebhookSecret,
				"MIRROR_HTTP_ADDR": "127.0.0.1:0", "MIRROR_GRPC_ADDR": "127.0.0.1:0", "MIRROR_STOP_GRACE": "5s",
			}, "MIRROR_MIGRATE", c.migrate)
			env[c.setting] = c.value
			got := command(t, env, "serve")
			if got.code != 1 || strings.Count(got.told, "\n") != 1 || !strings.HasPrefix(got.told, "liveblocks-mirror: ") {
				t.Errorf("exit code %d and %q; want 1 and one line", got.code, got.told)
			}
			for _, want := range c.want {
				if !strings.Contains(got.told, want) {
					t.Errorf("it says %q; want %s in it", got.told, want)
				}
			}
			if c.setting == "DATABASE_URL" && strings.Count(got.told, "refused") > 1 {
				t.Errorf("it says %q; want each reason once", got.told)
			}
			for _, secret := range []string{secretMark, harness.WebhookSecret[6:]} {
				if all := got.stdout + got.told + got.log; strings.Contains(all, secret) {
					t.Errorf("a secret was printed: %q", all)
				}
			}
		})
	}
}

// A service that is started together with its database waits for it, on both engines,
// and then gives up as without the setting.
func TestServeWaitsForItsDatabase(t *testing.T) {
	t.Parallel()
	needServers(t)
	for _, scheme := range []string{"postgres", "mysql"} {
		for _, migrate := range []string{"", "true"} {
			got := command(t, map[string]string{
				"DATABASE_URL": scheme + "://u:p@127.0.0.1:1/x", "MIRROR_DATABASE_WAIT": "300ms", "MIRROR_MIGRATE": migrate,
				"LIVEBLOCKS_SECRET_KEY": harness.SecretKey, "LIVEBLOCKS_WEBHOOK_SECRET": harness.WebhookSecret,
				"MIRROR_HTTP_ADDR": "127.0.0.1:0", "MIRROR_GRPC_ADDR": "127.0.0.1:0",
			}, "serve")
			if got.code != 1 || strings.Count(got.log, "waiting for the database") != 1 ||
				!strings.Contains(got.log, "at_most=300ms") || !strings.Contains(got.told, "refused") {
				t.Errorf("serve on %s, migrating: %q = %+v; want it to wait, to say so once, and to end", scheme, migrate, got)
			}
		}
	}
}

// elsewhere leads to another database on the same server.
func elsewhere(t *testing.T, raw, database string) string {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + database
	return u.String()
}

// Secrets from files, settings from a configuration file, and which goes before which.
func TestSettingsFromFiles(t *testing.T) {
	t.Parallel()
	needServers(t)
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	upstream := harness.NewFake(t)
	db := database(t)
	settings := "MIRROR_PROJECT_ID=from-config\nMIRROR_MAX_ATTEMPTS=3\n" +
		"LIVEBLOCKS_WEBHOOK_SECRET_FILE=" + write("whsec", harness.WebhookSecret+"\r\n") + "\n"
	base := map[string]string{
		"MIRROR_MIGRATE": "", "DATABASE_URL": "", "LIVEBLOCKS_SECRET_KEY": "", "LIVEBLOCKS_WEBHOOK_SECRET": "",
		"DATABASE_URL_FILE":          write("url", db+"\n"),
		"LIVEBLOCKS_SECRET_KEY_FILE": write("key", harness.SecretKey+"\n"),
		"MIRROR_API_TOKEN_FILE":      write("token", token+"\n"),
	}
	config := write("mirror.env", "# of the tests\n\n"+settings)
	for _, c := range []struct {
		name    string
		env     map[string]string
		args    []string
		project string
	}{
		{"config file by variable", with(base, "MIRROR_CONFIG", config), nil, "from-config"},
		{"config file by flag", base, []string{"--config=" + config}, "from-config"},
		{"config file by flag and a word", base, []string{"--config", config}, "from-config"},
		{
			"environment before config file", with(with(base, "MIRROR_CONFIG", config), "MIRROR_PROJECT_ID", "from-env"), nil,
			"from-env",
		},
		{"file of the environment before config file", with(with(base, "MIRROR_CONFIG", config), "MIRROR_PROJECT_ID_FILE",
			write("project", "from-env-file\n")), nil, "from-env-file"},
		{
			"flag before everything", with(with(base, "MIRROR_CONFIG", config), "MIRROR_PROJECT_ID", "from-env"),
			[]string{"--project-id=from-flag"},
			"from-flag",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := harness.Start(t, harness.Options{UpstreamURL: upstream.URL, Env: c.env, Args: c.args})
			got := send(t, http.MethodGet, s.URL("/v1/admin/status"), bearer(token), nil)
			var status struct {
				Projects []struct {
					ProjectID string `json:"projectId"`
				} `json:"projects"`
			}
			if err := json.Unmarshal(got.body, &status); err != nil || len(status.Projects) != 1 ||
				status.Projects[0].ProjectID != c.project {
				t.Errorf("status = %d %s (%v); want project %s", got.status, got.body, err, c.project)
			}
			tell(t, s, fake.StorageUpdated, "signed with the secret from the file")
			if strings.Contains(s.Log(), token) || strings.Contains(s.Log(), harness.WebhookSecret) ||
				strings.Contains(s.Log(), harness.SecretKey) {
				t.Error("the log holds a secret")
			}
		})
	}
}

// The ready file tells the taken addresses once they answer, and goes when they do.
// systemd is told both.
func TestReadyFile(t *testing.T) {
	t.Parallel()
	needServers(t)
	upstream := harness.NewFake(t)
	path := filepath.Join(t.TempDir(), "ready.json")
	systemd, err := net.ListenPacket("unixgram", filepath.Join(t.TempDir(), "notify"))
	if err != nil {
		t.Fatal(err)
	}
	defer systemd.Close()
	env := map[string]string{
		"DATABASE_URL": database(t), "LIVEBLOCKS_BASE_URL": upstream.URL, "LIVEBLOCKS_SECRET_KEY": harness.SecretKey,
		"LIVEBLOCKS_WEBHOOK_SECRET": harness.WebhookSecret, "MIRROR_HTTP_ADDR": "127.0.0.1:0",
		"MIRROR_GRPC_ADDR":    "127.0.0.1:0",
		"MIRROR_WEBHOOK_ADDR": "127.0.0.1:0", "NOTIFY_SOCKET": systemd.LocalAddr().String(),
	}
	told := func(want string) {
		t.Helper()
		if err := systemd.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 100)
		n, _, err := systemd.ReadFrom(b)
		if got := string(b[:n]); err != nil || got != want {
			t.Errorf("systemd is told %q, %v; want %q", got, err, want)
		}
	}
	cmd := harness.Command(t.Context(), t, env, "serve", "--ready-file", path)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var ready map[string]any
	harness.Eventually(t, patience, func() error {
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return json.Unmarshal(b, &ready) // it is whole or not there
	})
	told("READY=1")
	check := func() (string, error) {
		client := map[string]string{"MIRROR_SERVER": fmt.Sprint(ready["grpc_addr"])}
		out, err := harness.Command(t.Context(), t, client, "healthcheck").CombinedOutput()
		return string(out), err
	}
	if out, err := check(); err != nil || out != "The service works.\n" {
		t.Errorf("healthcheck of a ready service = %q, %v; want exit code 0", out, err)
	}
	for _, key := range []string{"http_addr", "webhook_addr"} {
		if got := send(t, http.MethodGet, fmt.Sprintf("http://%v/healthz", ready[key]), nil,
			nil); got.status != http.StatusOK {
			t.Errorf("/healthz on %s = %d; want 200", key, got.status)
		}
	}
	if got := send(t, http.MethodGet, fmt.Sprintf("http://%v/readyz", ready["http_addr"]), nil,
		nil); got.status != http.StatusOK {
		t.Errorf("/readyz = %d %s; want 200 as soon as the file is there", got.status, got.body)
	}
	want := map[string]any{
		"pid": float64(cmd.Process.Pid), "http_addr": ready["http_addr"],
		"grpc_addr": ready["grpc_addr"], "webhook_addr": ready["webhook_addr"],
	}
	if diff := cmp.Diff(want, ready); diff != "" {
		t.Errorf("ready file (-want +got):\n%s", diff)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after an interrupt the service ended with %v; want exit code 0", err)
	}
	told("STOPPING=1")
	if out, err := check(); err == nil || !strings.Contains(out, "no service answers at") {
		t.Errorf("healthcheck of a stopped service = %q, %v; want a failure that says why", out, err)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) > 0 {
		t.Errorf("the folder of the ready file holds %v (%v); want nothing", left, err)
	}
}

// The embedded PostgreSQL belongs to one service at a time, keeps its data over a
// restart and ends with the service.
func TestEmbedded(t *testing.T) {
	t.Parallel()
	needServers(t)
	upstream := harness.NewFake(t)
	env := map[string]string{"MIRROR_MIGRATE": "", "MIRROR_DATA_DIR": filepath.Join(harness.Dir(t, nil), "data")}
	o := harness.Options{UpstreamURL: upstream.URL, Env: env}
	s := harness.Start(t, o)
	create(t, s, upstream, "kept", fake.RoomOptions{Storage: storage(`"kept"`)})
	awaitStorage(t, s, "kept", storage(`"kept"`))

	second := map[string]string{
		"LIVEBLOCKS_SECRET_KEY": harness.SecretKey, "LIVEBLOCKS_WEBHOOK_SECRET": harness.WebhookSecret,
		"MIRROR_HTTP_ADDR": "127.0.0.1:0", "MIRROR_GRPC_ADDR": "127.0.0.1:0", "MIRROR_DATA_DIR": env["MIRROR_DATA_DIR"],
	}
	if got := command(t, second, "serve"); got.code != 1 || strings.Count(got.told, "\n") != 1 ||
		!strings.Contains(got.told, "in use by another process") {
		t.Errorf("a second service on the same folder = %+v; want exit code 1 and one line", got)
	}

	if took, err := s.Stop(t); err != nil || took > 20*time.Second {
		t.Errorf("stopped after %s with %v", took, err)
	}
	if _, err := os.Stat(filepath.Join(env["MIRROR_DATA_DIR"], "pgdata", "postmaster.pid")); !os.IsNotExist(err) {
		t.Errorf("the embedded PostgreSQL was not shut down: %v", err)
	}
	again := harness.Start(t, o)
	if status, _, body := again.Get(t, roomPath("kept", "/storage:read?format=plain-lson")); status != http.StatusOK ||
		!bytes.Equal(body, storage(`"kept"`)) {
		t.Errorf("after a restart the document is %d %s; want it as it was", status, body)
	}
	if again.Ready == (app.Ready{}) {
		t.Error("no ready file after the restart")
	}
}

// A reset ends the tokens from before, and needs to be confirmed.
func TestFeedReset(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		url := e.Database(t)
		env := map[string]string{"DATABASE_URL": url}
		s, _ := startOn(t, url, nil)
		list := func(token string) error {
			page, err := mirrorv1.NewChangeServiceClient(s.Dial(t)).ListChanges(t.Context(), &mirrorv1.ListChangesRequest{
				Start: &mirrorv1.ListChangesRequest_Token{Token: token},
			})
			if err == nil && page.GetNextToken() == "" {
				return errors.New("no token")
			}
			return err
		}
		page, err := mirrorv1.NewChangeServiceClient(s.Dial(t)).ListChanges(t.Context(), &mirrorv1.ListChangesRequest{})
		must(t, err)
		token := page.GetNextToken()
		for _, test := range []struct {
			args []string
			says string
			then string
		}{
			{[]string{"feed", "reset"}, "nothing was changed", ""},
			{[]string{"feed", "reset", "--yes"}, "the tokens of 1 feeds are no longer accepted", "CHANGE_TOKEN_MISMATCH"},
		} {
			got := command(t, env, test.args...)
			if got.code != 0 || !strings.Contains(got.stdout, test.says) {
				t.Fatalf("%q = %+v; want %q", test.args, got, test.says)
			}
			s.Kill()
			s, _ = startOn(t, url, nil)
			if err := list(token); reasonOf(err) != test.then {
				t.Errorf("ListChanges after %q = %v; want reason %q", test.args, err, test.then)
			}
		}
	})
}

// Each command on the database prints one result as JSON: what it has done, also before an
// error, and whether that is all.
func TestDatabaseCommandsPrintJSON(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		env := map[string]string{"DATABASE_URL": e.Empty(t), "MIRROR_PROJECT_ID": "default", "MIRROR_LOG_LEVEL": "error"}
		db := e.Connect(t, env["DATABASE_URL"])
		check := func(code int, args string, want map[string]any) {
			t.Helper()
			got := command(t, env, append(strings.Fields(args), "--json")...)
			var printed map[string]any
			if err := json.Unmarshal([]byte(got.stdout), &printed); err != nil || got.code != code {
				t.Errorf("%s = %+v, %v; want JSON and exit code %d", args, got, err, code)
			}
			if diff := cmp.Diff(want, printed); diff != "" {
				t.Errorf("%s (-want +got):\n%s", args, diff)
			}
		}
		purged := func(rows float64, purged, complete bool) map[string]any {
			return map[string]any{"project": "gone", "rows": rows, "purged": purged, "complete": complete}
		}
		rooms := map[string]any{"project": "default", "rooms": 0.0, "rows": 0.0, "purged": false, "complete": true}

		check(0, "migrate", map[string]any{"migrated": true})
		check(0, "feed reset", map[string]any{"feeds": 0.0, "reset": false})
		check(0, "feed reset --yes", map[string]any{"feeds": 0.0, "reset": true})
		check(0, "purge rooms --deleted-before 0s", rooms)
		rooms["purged"] = true
		check(0, "purge rooms --deleted-before 0s --yes", rooms)
		group := func() {
			_, err := db.Exec(t.Context(), "insert into mirror_group (bucket, project_id, group_id, organization_id, "+
				"source_json, content_sha256) values (3, 'gone', 'a', '', ?, ?)", []byte("{}"), []byte{})
			must(t, err)
		}
		_, err := db.Exec(t.Context(), "insert into mirror_project (project_id, liveblocks_project_id, pause_reason) "+
			"values ('gone', '', '')")
		must(t, err)
		group()
		check(0, "projects list", map[string]any{"projects": []any{
			map[string]any{"project": "default", "configured": true, "stored": false},
			map[string]any{"project": "gone", "configured": false, "stored": true},
		}})
		check(0, "projects purge gone", purged(1, false, true))
		check(0, "projects purge gone --yes", purged(1, true, true))
		group()
		_, err = db.Exec(t.Context(), "drop table mirror_unannounced") // the last step of a purge needs it
		must(t, err)
		check(1, "projects purge gone --yes", purged(1, true, false))
		check(1, "projects purge gone --yes", purged(0, true, false))
	})
}
