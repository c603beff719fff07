package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite testdata/wrong-settings.md and docs/CLI.md")

// hidden is part of every secret among the wrong values.
const hidden = "HIDDEN"

// wrong is a setting with a value that cannot be used. Without a command it is set
// for serve; a setting that is no variable is the arguments.
type wrong struct{ setting, value string }

var wrongSettings = []wrong{
	{"MIRROR_CONFIG", "/nowhere"},
	{"MIRROR_CONFIG", "misspelt"},
	{"MIRROR_CONFIG", "no-lines"},

	{"DATABASE_URL", "oracle://user:" + hidden + "@host/name"},
	{"DATABASE_URL", "user:" + hidden + "@host/name"},
	{"DATABASE_URL", "mysql://user:" + hidden + "%@host/name"},
	{"DATABASE_URL", "postgres://user:" + hidden + "@host/name?sslmode=on"},
	{"DATABASE_DIRECT_URL", "host=" + hidden},
	{"DATABASE_DIRECT_URL", "mysql://user:" + hidden + "@host/name"},
	{"MIRROR_DATABASE_SCHEMA", "pg_mirror"},
	{"MIRROR_DATABASE_SCHEMA", strings.Repeat("x", 64)},
	{"MIRROR_OWNER_ROLE", strings.Repeat("x", 64)},
	{"MIRROR_SERVICE_ROLE", strings.Repeat("x", 64)},
	{"MIRROR_READER_ROLE", strings.Repeat("x", 64)},
	{"MIRROR_DATABASE_POOLED", "maybe"},
	{"MIRROR_DATABASE_MAX_CONNS", "1"},
	{"MIRROR_DATABASE_MAX_CONNS", "many"},
	{"MIRROR_DATABASE_WAIT", "-1s"},
	{"MIRROR_DATABASE_WAIT", "soon"},
	{"MIRROR_READ_TIMEOUT", "-1s"},
	{"MIRROR_DATA_DIR", "/dev/null/data"},
	{"MIRROR_DATA_DIR", "/etc"},
	{"MIRROR_PG_BIN", "/nowhere"},
	{"MIRROR_MIGRATE", "later"},

	{"MIRROR_PROJECT_ID", "My Project"},
	{"MIRROR_PROJECT_ID", strings.Repeat("x", 65)},
	{"LIVEBLOCKS_SECRET_KEY", ""},
	{"LIVEBLOCKS_SECRET_KEY", "pk_" + hidden},
	{"LIVEBLOCKS_SECRET_KEY", `"sk_` + hidden + `"`},
	{"LIVEBLOCKS_SECRET_KEY", "sk_" + hidden + " "},
	{"LIVEBLOCKS_WEBHOOK_SECRET", ""},
	{"LIVEBLOCKS_WEBHOOK_SECRET", "sk_" + hidden},
	{"LIVEBLOCKS_WEBHOOK_SECRET", "whsec_!" + hidden},
	{"LIVEBLOCKS_WEBHOOK_SECRET", "whsec_YSBrZXkgZm9yIHRoZXNlIHRlc3RzIG9ubHk=,whsec_xx"},
	{"LIVEBLOCKS_BASE_URL", "api.liveblocks.io"},
	{"LIVEBLOCKS_BASE_URL", "https://user:" + hidden + "@host"},
	{"LIVEBLOCKS_BASE_URL", "https://host/?key=" + hidden},
	{"LIVEBLOCKS_BASE_URL", "https://ho st:" + hidden},
	{"MIRROR_LIVEBLOCKS_CALLS_PER_SECOND", "0"},
	{"MIRROR_LIVEBLOCKS_CALLS_PER_SECOND", "NaN"},
	{"MIRROR_LIVEBLOCKS_CALLS_PER_SECOND", "1e9"},
	{"MIRROR_LIVEBLOCKS_CALLS_PER_SECOND", "fast"},
	{"MIRROR_LIVEBLOCKS_CALL_TIMEOUT", "30"},
	{"MIRROR_LIVEBLOCKS_CALL_TIMEOUT", "-1s"},
	{"MIRROR_LIVEBLOCKS_IDLE_TIMEOUT", "0s"},
	{"MIRROR_LIVEBLOCKS_HEDGE_SHARE", "-0.1"},
	{"MIRROR_LIVEBLOCKS_HEDGE_SHARE", "NaN"},
	{"MIRROR_LIVEBLOCKS_MAX_ANSWER", "64MB"},
	{"MIRROR_LIVEBLOCKS_MAX_ANSWER", "0"},
	{"MIRROR_LIVEBLOCKS_PROBE_MIN", "0s"},
	{"MIRROR_PROJECTS_FILE", "/nowhere"},
	{"MIRROR_PROJECTS_FILE", "beside"},
	{"MIRROR_PROJECTS_FILE", "literal.yaml"},

	{"MIRROR_HTTP_IDLE_TIMEOUT", "-1s"},
	{"MIRROR_HTTP_ADDR", "8080"},
	{"MIRROR_HTTP_ADDR", "0.0.0.0:8080"},
	{"MIRROR_HTTP_ADDR", ":8080"},
	{"MIRROR_GRPC_ADDR", "[::]:9090"},
	{"MIRROR_GRPC_ADDR", "example.org:9090"},
	{"MIRROR_WEBHOOK_ADDR", "nowhere"},
	{"MIRROR_WEBHOOK_ADDR", "0.0.0.0:8081"},
	{"MIRROR_METRICS_ADDR", "0.0.0.0:8082"},
	{"MIRROR_API_TOKEN", hidden},
	{"MIRROR_API_TOKEN", "0123456789abcdef,," + hidden},
	{"MIRROR_API_TOKEN_FILE", "/nowhere"},
	{"MIRROR_API_TOKEN_FILE", "/dev/null"},
	{"MIRROR_INSECURE", "yes"},
	{"MIRROR_TLS_CERT", "/nowhere"},
	{"MIRROR_TLS_CERT", "no-lines"},
	{"MIRROR_TLS_KEY", ""},
	{"MIRROR_TLS_KEY", "-----BEGIN PRIVATE KEY-----" + hidden},
	{"MIRROR_TLS_CLIENT_CA", "ca"},
	{"MIRROR_READY_FILE", "/nowhere/ready"},
	{"MIRROR_KEYS_FILE", "/nowhere"},
	{"MIRROR_KEYS_FILE", "misspelt"},
	{"MIRROR_TRUSTED_PROXIES", "10.0.0.0/33"},
	{"MIRROR_WEBHOOK_ALLOW", "everybody"},

	{"MIRROR_REST", "writes"},
	{"MIRROR_REST_WARN_AFTER", "-1s"},
	{"MIRROR_REST_UPSTREAM", "maybe"},

	{"MIRROR_ACK", "never"},
	{"MIRROR_WORKERS", "0"},
	{"MIRROR_WORKERS", "eight"},
	{"MIRROR_FETCHES", "0"},
	{"MIRROR_SETTLE", "-1s"},
	{"MIRROR_LEASE_TTL", "10ms"},
	{"MIRROR_MAX_ATTEMPTS", "0"},
	{"MIRROR_BACKOFF_MIN", "0s"},
	{"MIRROR_BACKOFF_MAX", "1ms"},
	{"MIRROR_BUSY_POLL", "-3s"},
	{"MIRROR_SAFETY_POLL", "0s"},
	{"MIRROR_FEED_POLL", "-1s"},
	{"MIRROR_FEED_WATCHERS_PER_CALLER", "-1"},
	{"MIRROR_SWEEP_INTERVAL", "-1h"},
	{"MIRROR_SWEEP_INTERVAL", "hourly"},
	{"MIRROR_FULL_SWEEP_INTERVAL", "-1h"},
	{"MIRROR_MAX_DATA", "-1"},
	{"MIRROR_STOP_GRACE", "0s"},
	{"MIRROR_RETENTION_EVENTS", "47h"},
	{"MIRROR_RETENTION_SESSIONS", "-1h"},
	{"MIRROR_RETENTION_NOTIFICATIONS", "90d"},
	{"MIRROR_RETENTION_TOMBSTONES", "47h"},
	{"MIRROR_RETENTION_AUDIT", "24h"},
	{"MIRROR_RETENTION_CHANGES", "1h"},
	{"MIRROR_LOG_LEVEL", "loud"},
	{"MIRROR_LOG_FORMAT", "xml"},

	{"MIRROR_PUBLIC_URL", "mirror.example.com"},
	{"MIRROR_PUBLIC_URL", "https://user:" + hidden + "@host"},
	{"OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4317"},
	{"OTEL_EXPORTER_OTLP_ENDPOINT", "https://user:" + hidden + "@host"},
	{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "grpc://host"},
	{"OTEL_EXPORTER_OTLP_HEADERS", hidden},
	{"OTEL_EXPORTER_OTLP_ENDPOINT", "https://host?token=" + hidden},
	{"OTEL_EXPORTER_OTLP_TRACES_HEADERS", hidden},
	{"OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"},
	{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc"},
	{"OTEL_SERVICE_NAME", strings.Repeat("x", 256)},
	{"OTEL_SDK_DISABLED", "maybe"},
	{"OTEL_TRACES_EXPORTER", "console"},
	{"OTEL_TRACES_SAMPLER", "sometimes"},
	{"OTEL_TRACES_SAMPLER_ARG", "10"},
	{"MIRROR_TRACE_IDS", "maybe"},

	{"MIRROR_SERVER", "localhost"},
	{"MIRROR_SERVER_CA", "/nowhere"},
	{"MIRROR_SERVER_CA", "no-lines"},
	{"MIRROR_CLIENT_CERT", "/nowhere"},
	{"MIRROR_CLIENT_KEY", ""},
}

// wrongArguments are command lines that cannot be used.
var wrongArguments = []string{
	"server", "serve", "serve --http-port=1", "serve --workers=eight", "serve --ack=never", "serve --log-level=loud",
	"serve --settle=5", "demo --every=0s", "demo --edits=-1",
}

// TestWrongSettings runs the program once with each wrong value. What it prints is
// kept in testdata/wrong-settings.md, for reading; -update rewrites the file.
func TestWrongSettings(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	bin := filepath.Join(dir, "liveblocks-mirror")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build = %v: %s", err, out)
	}
	for name, text := range map[string]string{
		"misspelt": "MIRROR_WORKER=8\n", "no-lines": "{" + hidden + "\n",
		"literal.yaml": "projects:\n  - id: a\n    secret_key: sk_" + hidden + "\n    webhook_secrets: [{env: X}]\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(env map[string]string, args ...string) (text string, code int) {
		cmd := exec.CommandContext(t.Context(), bin, args...)
		cmd.Dir = dir
		cmd.Env = []string{"HOME=" + dir}
		for k, v := range env {
			cmd.Env = append(cmd.Env, k+"="+v)
		}
		out, _ := cmd.CombinedOutput() // the exit code says it
		text = strings.ReplaceAll(string(out), dir, "DIR")
		line, one := strings.CutPrefix(strings.TrimSuffix(text, "\n"), "liveblocks-mirror: ")
		if !one || strings.Contains(line, "\n") || strings.Contains(line, hidden) {
			t.Errorf("%v %v: it prints %q; want one line without a secret", env, args, text)
		}
		return line, cmd.ProcessState.ExitCode()
	}

	var table strings.Builder
	table.WriteString("# What the program prints when a setting is wrong\n\n" +
		"| setting | value | exit code | text |\n|---|---|---|---|\n")
	row := func(setting, value, text string, code int) {
		fmt.Fprintf(&table, "| `%s` | `%s` | %d | %s |\n", setting, value, code, strings.ReplaceAll(text, "|", `\|`))
	}
	tested := map[string]bool{}
	for _, w := range wrongSettings {
		setting := w.setting
		if setting != "MIRROR_READY_FILE" && setting != "MIRROR_KEYS_FILE" && setting != "MIRROR_PROJECTS_FILE" {
			setting = strings.TrimSuffix(setting, "_FILE")
		}
		tested[setting] = true
		env, command := map[string]string{
			"DATABASE_URL":          "postgres://host/name",
			"LIVEBLOCKS_SECRET_KEY": "sk_test", "LIVEBLOCKS_WEBHOOK_SECRET": "whsec_YSBrZXkgZm9yIHRoZXNlIHRlc3RzIG9ubHk=",
		}, "serve"
		switch setting {
		case "MIRROR_DATA_DIR", "MIRROR_PG_BIN": // of the embedded PostgreSQL
			env["DATABASE_URL"], env["MIRROR_DATA_DIR"] = "", filepath.Join(dir, "data")
		case "MIRROR_TLS_CERT", "MIRROR_TLS_KEY":
			env["MIRROR_TLS_CERT"], env["MIRROR_TLS_KEY"] = "no-lines", "no-lines"
		case "MIRROR_SERVER", "MIRROR_SERVER_CA":
			command, env["MIRROR_SERVER"] = "verify", "https://localhost:1"
		case "MIRROR_CLIENT_CERT", "MIRROR_CLIENT_KEY":
			command, env["MIRROR_SERVER"] = "verify", "https://localhost:1"
			env["MIRROR_CLIENT_CERT"], env["MIRROR_CLIENT_KEY"] = "no-lines", "no-lines"
		case "MIRROR_PUBLIC_URL":
			command = "doctor"
		case "MIRROR_PROJECTS_FILE":
			if w.value != "beside" {
				env["LIVEBLOCKS_SECRET_KEY"], env["LIVEBLOCKS_WEBHOOK_SECRET"] = "", ""
			}
		}
		if strings.HasPrefix(setting, "OTEL_") { // without a collector none of them is wrong
			env["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://localhost:4318"
		}
		env[w.setting] = w.value
		text, code := run(env, command)
		if code != exitUsage && code != exitFailure || !strings.Contains(text, setting) && setting != "MIRROR_CONFIG" {
			t.Errorf("%s=%s: exit code %d and %q; want a failure that names the setting", w.setting, w.value, code, text)
		}
		row(w.setting, w.value, text, code)
	}
	for _, f := range settings(t, &commands{}) {
		if !tested[f.Envs[0]] {
			t.Errorf("no wrong value of %s is tested", f.Envs[0])
		}
	}
	table.WriteString("\n| arguments | exit code | text |\n|---|---|---|\n")
	for _, args := range wrongArguments {
		text, code := run(nil, strings.Fields(args)...)
		if code != exitUsage {
			t.Errorf("%s: exit code %d; want %d", args, code, exitUsage)
		}
		fmt.Fprintf(&table, "| `%s` | %d | %s |\n", args, code, text)
	}

	golden := filepath.Join("testdata", "wrong-settings.md")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(golden, []byte(table.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), table.String()); diff != "" {
		t.Errorf("the texts differ from %s; read them and run the test with -update (-want +got):\n%s", golden, diff)
	}
}
