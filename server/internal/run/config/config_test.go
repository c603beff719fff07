package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite docs/CONFIGURATION.md")

// command is the serve command as main has it.
type command struct {
	Serve
	Log `group:"Log"`
}

func (c *command) Validate() error { return c.Serve.Validate() }

const (
	secretKey     = "sk_test_0123456789"
	webhookSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
)

// clean empties the environment of settings, and sets what has to be set.
func clean(t *testing.T) {
	t.Helper()
	for _, s := range Table() {
		for _, name := range []string{s.Env, s.Env + "_FILE"} {
			t.Setenv(name, "") // so that the end of the test brings back what was there
			if err := os.Unsetenv(name); err != nil {
				t.Fatalf("Unsetenv = %v", err)
			}
		}
	}
	t.Setenv("LIVEBLOCKS_SECRET_KEY", secretKey)
	t.Setenv("LIVEBLOCKS_WEBHOOK_SECRET", webhookSecret)
}

// unset takes a variable out of the environment that clean has set.
func unset(t *testing.T, name string) {
	t.Helper()
	if err := os.Unsetenv(name); err != nil {
		t.Fatalf("Unsetenv = %v", err)
	}
}

// parse reads the settings as main does. file is the text of a configuration
// file, none if empty.
func parse(t *testing.T, file string, args ...string) (*command, error) {
	t.Helper()
	path := ""
	if file != "" {
		path = write(t, file)
	}
	resolver, err := NewResolver(os.LookupEnv, path)
	if err != nil {
		return nil, err
	}
	var cli struct {
		Serve command `cmd:""`
	}
	parser, err := kong.New(&cli, kong.Resolvers(resolver), kong.Exit(func(int) { t.Error("the parser wants to exit") }))
	if err != nil {
		t.Fatalf("kong.New = %v", err)
	}
	if _, err = parser.Parse(append([]string{"serve"}, args...)); err != nil {
		return nil, err
	}
	return &cli.Serve, nil
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatalf("WriteFile = %v", err)
	}
	return path
}

// read returns the value of a setting as it would be written.
func read(t *testing.T, c *command, env string) string {
	t.Helper()
	found, value := false, ""
	walk(reflect.ValueOf(*c), "", func(s Setting, field reflect.Value) {
		if s.Env != env {
			return
		}
		found = true
		switch v := field.Interface().(type) {
		case []string:
			value = strings.Join(v, ",")
		case slog.Level:
			value = strings.ToLower(v.String())
		default:
			value = fmt.Sprint(v)
		}
	})
	if !found {
		t.Fatalf("there is no setting %s", env)
	}
	return value
}

// sample is a good value that is not the default.
func sample(t *testing.T, s Setting) string {
	t.Helper()
	values := map[string]string{
		"DATABASE_URL":                       "postgres://user:p%40ss@host:5432/name?sslmode=require",
		"DATABASE_DIRECT_URL":                "postgresql://user@direct/name",
		"MIRROR_HTTP_ADDR":                   "127.0.0.1:1234",
		"MIRROR_GRPC_ADDR":                   "[::1]:1234",
		"MIRROR_WEBHOOK_ADDR":                "0.0.0.0:1234",
		"MIRROR_API_TOKEN":                   "0123456789abcdef,fedcba9876543210",
		"MIRROR_PROJECT_ID":                  "another-1",
		"LIVEBLOCKS_SECRET_KEY":              "sk_prod_abc-DEF_1",
		"LIVEBLOCKS_WEBHOOK_SECRET":          "whsec_b25l,whsec_dHdv",
		"LIVEBLOCKS_BASE_URL":                "http://127.0.0.1:1153/base",
		"MIRROR_ACK":                         "synced",
		"MIRROR_LOG_LEVEL":                   "debug",
		"MIRROR_LOG_FORMAT":                  "json",
		"MIRROR_LIVEBLOCKS_CALL_TIMEOUT":     "17s",
		"MIRROR_LIVEBLOCKS_PROBE_MIN":        "17s",
		"MIRROR_LIVEBLOCKS_MAX_ANSWER":       "1234567",
		"MIRROR_DATABASE_POOLED":             "true",
		"MIRROR_MIGRATE":                     "true",
		"MIRROR_LIVEBLOCKS_CALLS_PER_SECOND": "12.5",
	}
	if v, ok := values[s.Env]; ok {
		return v
	}
	switch {
	case s.Default == "":
		return "/some/where else"
	case strings.ContainsAny(s.Default, "smh"):
		return "17s"
	default:
		return "23"
	}
}

// Every setting has all its forms, and each of them is heeded.
func TestEverySettingInEveryForm(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range Table() {
		t.Run(s.Env, func(t *testing.T) {
			if s.Group == "" || s.Flag == "" || s.Env == "" || s.Help == "" || seen[s.Flag] || seen[s.Env] {
				t.Fatalf("setting = %+v; want it whole and once", s)
			}
			seen[s.Flag], seen[s.Env] = true, true
			want := sample(t, s)
			file := func(value string) string { return s.Env + "='" + value + "'\n" }
			for form, set := range map[string]func() (file string, args []string){
				"default": func() (string, []string) { return "", nil },
				"flag":    func() (string, []string) { return "", []string{"--" + s.Flag + "=" + want} },
				"env":     func() (string, []string) { t.Setenv(s.Env, want); return "", nil },
				"env _FILE": func() (string, []string) {
					t.Setenv(s.Env+"_FILE", write(t, want+"\n"))
					return "", nil
				},
				"file":       func() (string, []string) { return file(want), nil },
				"file _FILE": func() (string, []string) { return s.Env + "_FILE=" + write(t, want+"\r\n"), nil },
			} {
				clean(t)
				if s.Env == "DATABASE_DIRECT_URL" {
					t.Setenv("DATABASE_URL", "postgres://host/name")
				}
				value := want
				if form == "default" {
					value = read(t, &command{}, s.Env) // the zero value
					if s.Default != "" {
						value = s.Default
					}
					if strings.HasPrefix(s.Env, "LIVEBLOCKS_") && s.Default == "" {
						continue // has to be set
					}
				} else {
					unset(t, s.Env)
				}
				text, args := set()
				c, err := parse(t, text, args...)
				if err != nil {
					t.Fatalf("%s: %v", form, err)
				}
				if got := read(t, c, s.Env); got != value && !sameDuration(got, value) {
					t.Fatalf("%s: %s = %q; want %q", form, s.Env, got, value)
				}
			}
		})
	}
	if len(seen) < 2*30 {
		t.Fatalf("settings = %d; want all of them", len(seen)/2)
	}
}

func sameDuration(a, b string) bool {
	da, erra := time.ParseDuration(a)
	db, errb := time.ParseDuration(b)
	return erra == nil && errb == nil && da == db
}

func TestFlagsGoBeforeEnvironmentBeforeFile(t *testing.T) { //nolint:paralleltest // the environment is the process's
	clean(t)
	all := "MIRROR_WORKERS=5\n"
	steps := []struct {
		set  func()
		args []string
		want string
	}{
		{want: "5"},
		{set: func() { t.Setenv("MIRROR_WORKERS_FILE", write(t, "6")) }, want: "6"},
		{set: func() { t.Setenv("MIRROR_WORKERS", "7") }, want: "7"},
		{args: []string{"--workers=8"}, want: "8"},
	}
	for _, s := range steps {
		if s.set != nil {
			s.set()
		}
		c, err := parse(t, all, s.args...)
		if err != nil {
			t.Fatalf("parse = %v", err)
		}
		if got := read(t, c, "MIRROR_WORKERS"); got != s.want {
			t.Fatalf("workers = %s; want %s", got, s.want)
		}
	}
}

// A variable that is set to nothing counts as not set.
func TestEmptyVariableIsNotSet(t *testing.T) {
	clean(t)
	want, err := parse(t, "")
	if err != nil {
		t.Fatalf("parse = %v", err)
	}
	for _, s := range Table() {
		if os.Getenv(s.Env) == "" {
			t.Setenv(s.Env, "")
			t.Setenv(s.Env+"_FILE", "")
		}
	}
	got, err := parse(t, "")
	if err != nil {
		t.Fatalf("parse with empty variables = %v", err)
	}
	for _, s := range Table() {
		if g, w := read(t, got, s.Env), read(t, want, s.Env); g != w {
			t.Fatalf("%s = %q; want %q", s.Env, g, w)
		}
	}
	t.Setenv("MIRROR_WORKERS_FILE", write(t, "9"))
	t.Setenv("MIRROR_DATABASE_POOLED", "")
	got, err = parse(t, "MIRROR_DATABASE_POOLED=yes\n")
	if err != nil || !got.DatabasePooled || got.Workers != 9 {
		t.Fatalf("parse = %v, %v; want what the file says", got, err)
	}
}

func TestListsAreSplitAtCommasWithOrWithoutBlanks(t *testing.T) {
	clean(t)
	t.Setenv("LIVEBLOCKS_WEBHOOK_SECRET", "whsec_b25l , whsec_dHdv")
	c, err := parse(t, "")
	if err != nil {
		t.Fatalf("parse = %v", err)
	}
	if d := cmp.Diff([]string{"whsec_b25l", "whsec_dHdv"}, c.WebhookSecret); d != "" {
		t.Fatalf("secrets (-want +got):\n%s", d)
	}
}

// A bad value is told in one line that names the setting and says what to do.
func TestBadValues(t *testing.T) {
	const hidden = "HIDDENMARK"
	cases := []struct{ env, value, want string }{
		{"DATABASE_URL", "oracle://" + hidden, "must begin with postgres://"},
		{"DATABASE_URL", "user:" + hidden + "@host/name", "must begin with postgres://"},
		{"DATABASE_URL", "mysql://user:" + hidden + "%@host/name", "%25 for %"},
		{"DATABASE_DIRECT_URL", "host=" + hidden, "must begin with postgres://"},
		{"DATABASE_DIRECT_URL", "postgres://" + hidden, "set both"},
		{"MIRROR_DATABASE_POOLED", "maybe", "true or false"},
		{"MIRROR_DATABASE_MAX_CONNS", "1", "at least 2"},
		{"MIRROR_DATABASE_MAX_CONNS", "many", "a whole number"},
		{"MIRROR_LOG_LEVEL", "loud", "debug, info, warn or error"},
		{"MIRROR_LOG_FORMAT", "xml", "text or json"},
		{"MIRROR_HTTP_ADDR", "8080", "host:port"},
		{"MIRROR_HTTP_ADDR", "0.0.0.0:8080", "MIRROR_API_TOKEN"},
		{"MIRROR_HTTP_ADDR", ":8080", "MIRROR_API_TOKEN"},
		{"MIRROR_GRPC_ADDR", "[::]:9090", "MIRROR_API_TOKEN"},
		{"MIRROR_GRPC_ADDR", "example.org:9090", "MIRROR_API_TOKEN"},
		{"MIRROR_WEBHOOK_ADDR", "nowhere", "host:port"},
		{"MIRROR_API_TOKEN", hidden, "openssl rand"},
		{"MIRROR_API_TOKEN", "0123456789abcdef,," + hidden, "openssl rand"},
		{"MIRROR_PROJECT_ID", "My Project", "lower-case"},
		{"MIRROR_PROJECT_ID", strings.Repeat("x", 65), "1 to 64"},
		{"LIVEBLOCKS_SECRET_KEY", "", "dashboard"},
		{"LIVEBLOCKS_SECRET_KEY", "pk_" + hidden, "public key"},
		{"LIVEBLOCKS_SECRET_KEY", "sk_" + hidden + " ", "blanks"},
		{"LIVEBLOCKS_SECRET_KEY", `"sk_` + hidden + `"`, "must begin with sk_"},
		{"LIVEBLOCKS_WEBHOOK_SECRET", "", "dashboard"},
		{"LIVEBLOCKS_BASE_URL", "api.liveblocks.io", "https://"},
		{"LIVEBLOCKS_BASE_URL", "https://user:" + hidden + "@host", "@"},
		{"LIVEBLOCKS_BASE_URL", "https://host/?key=" + hidden, "?"},
		{"LIVEBLOCKS_BASE_URL", "https://ho st:" + hidden, "https://"},
		{"MIRROR_LIVEBLOCKS_CALLS_PER_SECOND", "0", "above 0"},
		{"MIRROR_LIVEBLOCKS_CALLS_PER_SECOND", "NaN", "above 0"},
		{"MIRROR_LIVEBLOCKS_CALLS_PER_SECOND", "1e9", "at most 100000"},
		{"MIRROR_LIVEBLOCKS_CALLS_PER_SECOND", "fast", "a number"},
		{"MIRROR_LIVEBLOCKS_CALL_TIMEOUT", "30", "a duration such as"},
		{"MIRROR_LIVEBLOCKS_CALL_TIMEOUT", "-1s", "above 0"},
		{"MIRROR_LIVEBLOCKS_MAX_ANSWER", "64MB", "a whole number"},
		{"MIRROR_LIVEBLOCKS_MAX_ANSWER", "0", "above 0"},
		{"MIRROR_LIVEBLOCKS_PROBE_MIN", "0s", "above 0"},
		{"MIRROR_ACK", "never", "durable or synced"},
		{"MIRROR_WORKERS", "0", "above 0"},
		{"MIRROR_WORKERS", "eight", "a whole number"},
		{"MIRROR_SETTLE", "-1s", "negative"},
		{"MIRROR_LEASE_TTL", "10ms", "at least 1s"},
		{"MIRROR_MAX_ATTEMPTS", "0", "above 0"},
		{"MIRROR_BACKOFF_MIN", "0s", "above 0"},
		{"MIRROR_BACKOFF_MAX", "1ms", "below MIRROR_BACKOFF_MIN"},
		{"MIRROR_BUSY_POLL", "-3s", "above 0"},
		{"MIRROR_SAFETY_POLL", "0s", "above 0"},
		{"MIRROR_SWEEP_INTERVAL", "-1h", "negative"},
		{"MIRROR_SWEEP_INTERVAL", "hourly", "a duration such as"},
		{"MIRROR_FULL_SWEEP_INTERVAL", "-1h", "negative"},
		{"MIRROR_MAX_DATA", "-1", "above 0"},
		{"MIRROR_STOP_GRACE", "0s", "above 0"},
		{"MIRROR_MIGRATE", "later", "true or false"},
	}
	tested := map[string]bool{}
	for _, c := range cases {
		tested[c.env] = true
		for _, form := range []string{"env", "file", "flag"} {
			t.Run(c.env+"="+c.value+"/"+form, func(t *testing.T) {
				clean(t)
				unset(t, c.env)
				var file string
				var args []string
				switch {
				case c.value == "":
				case form == "env":
					t.Setenv(c.env, c.value)
				case form == "file":
					file = c.env + "='" + c.value + "'\n"
				default:
					for _, s := range Table() {
						if s.Env == c.env {
							args = []string{"--" + s.Flag + "=" + c.value}
						}
					}
				}
				_, err := parse(t, file, args...)
				if err == nil {
					t.Fatal("parse = nil; want an error")
				}
				text := err.Error()
				// The parser's own words about a flag name the flag.
				named := strings.Contains(text, c.env) || form == "flag" &&
					strings.Contains(text, args[0][:strings.Index(args[0], "=")])
				if !named || strings.Contains(text, "\n") || strings.Contains(text, hidden) {
					t.Fatalf("error = %s; want one line that names %s and quotes no secret", text, c.env)
				}
				if form != "flag" && !strings.Contains(text, c.want) {
					t.Fatalf("error = %s; want it to say %q", text, c.want)
				}
			})
		}
	}
	// What is any text cannot be wrong here; everything else has a case.
	anything := map[string]bool{"MIRROR_DATA_DIR": true, "MIRROR_PG_BIN": true, "MIRROR_READY_FILE": true}
	for _, s := range Table() {
		if !tested[s.Env] && !anything[s.Env] {
			t.Errorf("no bad value of %s is tested", s.Env)
		}
	}
}

func TestBadFiles(t *testing.T) { //nolint:paralleltest // the environment is the process's
	for name, c := range map[string]struct { //nolint:paralleltest // the environment is the process's
		set  func(t *testing.T) (file string)
		want []string
	}{
		"_FILE missing": {func(t *testing.T) string {
			t.Helper()
			t.Setenv("MIRROR_API_TOKEN_FILE", "/nowhere/token")
			return ""
		}, []string{"MIRROR_API_TOKEN_FILE", "/nowhere/token", "cannot be read"}},
		"_FILE empty": {func(t *testing.T) string {
			t.Helper()
			t.Setenv("MIRROR_API_TOKEN_FILE", write(t, "\n"))
			return ""
		}, []string{"MIRROR_API_TOKEN_FILE", "empty"}},
		"misspelt": {func(*testing.T) string { return "MIRROR_WORKER=5\n" }, []string{"MIRROR_WORKER,", "no setting"}},
		"not lines": {func(*testing.T) string { return "{\"HIDDENMARK\": 1}\n" },
			[]string{"configuration file", "MIRROR_WORKERS=8"}},
	} {
		t.Run(name, func(t *testing.T) {
			clean(t)
			_, err := parse(t, c.set(t))
			if err == nil {
				t.Fatal("parse = nil; want an error")
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Fatalf("error = %v; want it to say %q", err, w)
				}
			}
			if strings.ContainsAny(err.Error(), "\n") || strings.Contains(err.Error(), "HIDDENMARK") {
				t.Fatalf("error = %q; want one line that quotes nothing", err)
			}
		})
	}
	if _, err := NewResolver(os.LookupEnv, "/nowhere/config"); err == nil ||
		!strings.Contains(err.Error(), "/nowhere/config") {
		t.Fatalf("NewResolver = %v; want the missing file named", err)
	}
}

func TestLoopbackNeedsNoToken(t *testing.T) { //nolint:paralleltest // the environment is the process's
	clean(t)
	for _, addr := range []string{"127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1", "127.0.0.1:0"} {
		if _, err := parse(t, "", "--http-addr="+addr, "--grpc-addr="+addr); err != nil {
			t.Fatalf("parse with %s = %v; want it fine", addr, err)
		}
	}
	if _, err := parse(t, "", "--http-addr=:1", "--grpc-addr=:2", "--api-token=0123456789abcdef"); err != nil {
		t.Fatalf("parse with a token = %v; want it fine", err)
	}
}

// Invariant 14: no way of printing shows a secret.
func TestSecretsAreNeverPrinted(t *testing.T) {
	t.Parallel()
	const mark = "HIDDENMARK"
	full := Serve{
		Database: Database{DatabaseURL: "postgres://u:" + mark + "@h/d", DatabaseDirectURL: "postgres://u:" + mark +
			"@h/d", DatabaseMaxConns: 7},
		Liveblocks: Liveblocks{SecretKey: "sk_" + mark, WebhookSecret: []string{"whsec_" + mark, mark},
			BaseURL: "https://shown"},
		Addresses: Addresses{APIToken: []string{mark, mark}, HTTPAddr: "shown:1"},
		Work:      Work{Workers: 7},
	}
	secrets := 0
	walk(reflect.ValueOf(full), "", func(s Setting, field reflect.Value) {
		if strings.Contains(fmt.Sprint(field.Interface()), mark) {
			secrets++
		}
		if strings.Contains(fmt.Sprint(field.Interface()), mark) != s.Secret {
			t.Errorf("%s: holds a secret here and is tagged so = %v", s.Env, s.Secret)
		}
	})
	if secrets != 5 {
		t.Fatalf("secrets filled in = %d; want 5", secrets)
	}
	c := &command{Serve: full}
	var outputs []string
	for _, v := range []any{
		full, &full, full.Database, &full.Database, full.Liveblocks, &full.Liveblocks, full.Addresses, &full.Addresses, c, *c,
		[]Serve{full},
		map[string]Liveblocks{"x": full.Liveblocks},
		struct{ Cfg Serve }{full},
		errors.Join(fmt.Errorf("bad: %+v", full)),
	} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			outputs = append(outputs, fmt.Sprintf(verb, v))
		}
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatalf("Marshal = %v", err)
		}
		var log bytes.Buffer
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", slog.Any("v", v))
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", slog.Any("v", v))
		outputs = append(outputs, string(b), log.String())
	}
	hexMark := fmt.Sprintf("%x", mark)
	for _, o := range outputs {
		if strings.Contains(o, mark) || strings.Contains(o, hexMark) {
			t.Fatalf("a secret is in %s", o)
		}
	}
	if got, want := fmt.Sprint(full.Liveblocks),
		"liveblocks_secret_key=set liveblocks_webhook_secret=set liveblocks_base_url=https://shown"; !strings.Contains(got,
		want) {
		t.Fatalf("print = %s; want it to hold %s", got, want)
	}
	if got := fmt.Sprint(Liveblocks{}); !strings.Contains(got, "liveblocks_secret_key=not set") {
		t.Fatalf("print = %s; want to see that the key is not set", got)
	}
}

func TestPooledAndDirectURL(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		d      Database
		pooled bool
		direct string
	}{
		{Database{DatabaseURL: "a"}, false, "a"},
		{Database{DatabaseURL: "a", DatabasePooled: true}, true, "a"},
		{Database{DatabaseURL: "a", DatabaseDirectURL: "b"}, true, "b"},
	} {
		if got := c.d.Pooled(); got != c.pooled {
			t.Fatalf("Pooled of %v = %v; want %v", c.d, got, c.pooled)
		}
		if got := c.d.DirectURL(); got != c.direct {
			t.Fatalf("DirectURL of %v = %q; want %q", c.d, got, c.direct)
		}
	}
}

// document is docs/CONFIGURATION.md.
func document() string {
	var out strings.Builder
	out.WriteString(`# Configuration

This list is made from the table of settings in the code; a test holds the two equal (` + "`go test ./server/internal/run/config -update`" + ` writes it anew).

Every setting can be given in five ways. The first of them that says something counts; an empty variable counts as not set:

1. a flag, ` + "`--workers=4`" + `,
2. an environment variable, ` + "`MIRROR_WORKERS=4`" + `,
3. the name of a file that holds the value, in the variable with ` + "`_FILE`" + ` added: ` + "`MIRROR_WORKERS_FILE=/run/secrets/workers`" + `,
4. a line ` + "`MIRROR_WORKERS=4`" + ` in the configuration file, which ` + "`--config`" + ` or ` + "`MIRROR_CONFIG`" + ` names,
5. a line ` + "`MIRROR_WORKERS_FILE=...`" + ` there.

In the configuration file put values that hold ` + "`$`, `#`" + `, quotes or blanks between single quotes. A name that is no setting is refused. Durations
are written like ` + "`500ms`, `30s`, `5m`, `1h`" + `. Settings marked *secret* are never printed or logged.
`)
	group := ""
	for _, s := range Table() {
		if s.Group != group {
			group = s.Group
			out.WriteString("\n## " + group + "\n\n| variable | flag | default | meaning |\n|---|---|---|---|\n")
		}
		value, help := "", strings.ReplaceAll(s.Help, "|", `\|`)
		if s.Default != "" {
			value = "`" + s.Default + "`"
		}
		if s.Secret {
			help += " *Secret.*"
		}
		fmt.Fprintf(&out, "| `%s` | `--%s` | %s | %s |\n", s.Env, s.Flag, value, help)
	}
	return out.String()
}

func TestDocument(t *testing.T) {
	t.Parallel()
	const path = "../../../../docs/CONFIGURATION.md"
	if *update {
		if err := os.WriteFile(path, []byte(document()), 0o644); err != nil {
			t.Fatalf("WriteFile = %v", err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("ReadFile = %v", err)
	}
	if d := cmp.Diff(document(), string(got)); d != "" {
		t.Fatalf("docs/CONFIGURATION.md is not what the table says; run the test with -update (-want +got):\n%s", d)
	}
}

// What the README says of settings is so.
func TestREADME(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../../../README.md")
	if err != nil {
		t.Fatalf("ReadFile = %v", err)
	}
	table := map[string]Setting{}
	for _, s := range Table() {
		table[s.Env] = s
	}
	name := regexp.MustCompile("(?:MIRROR|LIVEBLOCKS|DATABASE)_[A-Z_]*[A-Z]")
	for _, env := range name.FindAllString(string(text), -1) {
		if _, ok := table[strings.TrimSuffix(env, "_FILE")]; !ok && env != "MIRROR_CONFIG" {
			t.Errorf("README names %s, which is no setting", env)
		}
	}
	quoted := regexp.MustCompile("`([^`]+)`")
	rows := 0
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, "|")
		if len(cells) != 5 || !name.MatchString(cells[1]) {
			continue
		}
		names, defaults := name.FindAllString(cells[1], -1), quoted.FindAllStringSubmatch(cells[2], -1)
		for i, env := range names {
			rows++
			want := table[env].Default
			// A default in words stands for one that the code works out.
			if want != "" && (len(defaults) != len(names) || defaults[i][1] != want) {
				t.Errorf("README's default of %s is %s; the table's is %q", env, strings.TrimSpace(cells[2]), want)
			}
		}
	}
	if rows < 10 {
		t.Fatalf("settings found in README's table = %d; want more, or this test reads it wrongly", rows)
	}
}

func TestDatabaseForms(t *testing.T) {
	t.Parallel()
	const (
		planetscale = "mysql://user:pscale_pw_x@aws.connect.psdb.cloud/name?sslaccept=strict"
		driver      = "user:p@ss:w/ord@tcp(host:3306)/name?tls=true"
	)
	for _, c := range []struct{ url, direct, want string }{
		{"", "", ""},
		{"postgres://user@host/name", "", ""},
		{"postgresql://user@host-pooler/name", "postgres://user@host/name", ""},
		{planetscale, "", ""},
		{planetscale, planetscale, ""},
		{"user:password@tcp(host:3306)/name?tls=true", "", ""},
		{"user@unix(/run/mysqld/mysqld.sock)/name", "", ""},
		{driver, "", "must begin with"}, // a slash before the address: nobody could tell where it begins
		{planetscale, "postgres://user@host/name", "the same database"},
		{"postgres://user@host/name", planetscale, "the same database"},
	} {
		err := Database{DatabaseURL: c.url, DatabaseDirectURL: c.direct, DatabaseMaxConns: 2}.Validate()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("Validate(%q, %q) = %v; want %q", c.url, c.direct, err, c.want)
		}
	}
}
