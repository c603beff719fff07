package config

import (
	"encoding"
	"fmt"
	"log/slog"
	"maps"
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

// command is the serve command as main has it.
type command struct {
	Serve
	Log `group:"Log"`
}

const (
	secretKey     = "sk_test_0123456789"
	webhookSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
)

// clean empties the environment of settings, and sets what has to be set.
func clean(t *testing.T) {
	t.Helper()
	for _, s := range Settings() {
		for _, name := range []string{s.Envs[0], s.Envs[0] + "_FILE"} {
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
	v := reflect.ValueOf(*c)
	for _, field := range reflect.VisibleFields(v.Type()) {
		if field.Tag.Get("env") != env {
			continue
		}
		switch v := v.FieldByIndex(field.Index).Interface().(type) {
		case Secret:
			return v.Reveal()
		case []Secret:
			return strings.Join(Reveal(v), ",")
		case encoding.TextMarshaler: // a log level
			text, _ := v.MarshalText()
			return strings.ToLower(string(text))
		default:
			return fmt.Sprint(v)
		}
	}
	t.Fatalf("there is no setting %s", env)
	return ""
}

// sample is a good value that is not the default.
func sample(t *testing.T, s *kong.Flag) string {
	t.Helper()
	values := map[string]string{
		"DATABASE_URL":                       "postgres://user:p%40ss@host:5432/name?sslmode=require",
		"DATABASE_DIRECT_URL":                "postgresql://user@direct/name",
		"MIRROR_HTTP_ADDR":                   "127.0.0.1:1234",
		"MIRROR_GRPC_ADDR":                   "[::1]:1234",
		"MIRROR_WEBHOOK_ADDR":                "127.0.0.2:1234",
		"MIRROR_METRICS_ADDR":                "127.0.0.2:1235",
		"MIRROR_INSECURE":                    "behind-proxy",
		"MIRROR_API_TOKEN":                   "0123456789abcdef,fedcba9876543210",
		"MIRROR_PROJECT_ID":                  "another-1",
		"LIVEBLOCKS_SECRET_KEY":              "sk_prod_abc-DEF_1",
		"LIVEBLOCKS_WEBHOOK_SECRET":          "whsec_b25l,whsec_dHdv",
		"LIVEBLOCKS_BASE_URL":                "http://127.0.0.1:1153/base",
		"MIRROR_ACK":                         "synced",
		"MIRROR_REST":                        "read",
		"MIRROR_REST_UPSTREAM":               "off",
		"MIRROR_LOG_LEVEL":                   "debug",
		"MIRROR_LOG_FORMAT":                  "json",
		"MIRROR_LIVEBLOCKS_CALL_TIMEOUT":     "17s",
		"MIRROR_LIVEBLOCKS_IDLE_TIMEOUT":     "7s",
		"MIRROR_LIVEBLOCKS_HEDGE_SHARE":      "0.25",
		"MIRROR_LIVEBLOCKS_PROBE_MIN":        "17s",
		"MIRROR_LIVEBLOCKS_MAX_ANSWER":       "1234567",
		"MIRROR_DATABASE_POOLED":             "true",
		"MIRROR_MIGRATE":                     "true",
		"MIRROR_LIVEBLOCKS_CALLS_PER_SECOND": "12.5",
		"MIRROR_TRUSTED_PROXIES":             "10.0.0.0/8,2001:db8::/32",
		"MIRROR_WEBHOOK_ALLOW":               "44.228.126.217/32,50.112.21.217/32",
		"OTEL_EXPORTER_OTLP_ENDPOINT":        "http://localhost:4318",
		"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://collector.test/traces",
		"OTEL_EXPORTER_OTLP_HEADERS":         "authorization=Bearer%20token",
		"OTEL_EXPORTER_OTLP_TRACES_HEADERS":  "authorization=Bearer%20other",
		"OTEL_EXPORTER_OTLP_PROTOCOL":        "grpc", // nothing is traced
		"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
		"OTEL_SDK_DISABLED":                  "true",
		"OTEL_TRACES_EXPORTER":               "none",
		"OTEL_SERVICE_NAME":                  "another",
		"OTEL_TRACES_SAMPLER":                "parentbased_traceidratio",
		"OTEL_TRACES_SAMPLER_ARG":            "0.25",
		"MIRROR_TRACE_IDS":                   "true",
		"MIRROR_READY_FILE":                  filepath.Join(t.TempDir(), "the file"),
	}
	if v, ok := values[s.Envs[0]]; ok {
		return v
	}
	if s.Envs[0] == "MIRROR_PROJECTS_FILE" {
		return write(t, "projects: [{id: a, secret_key: {file: "+write(t, secretKey)+"}, webhook_secrets: [{file: "+
			write(t, webhookSecret)+"}]}]\n")
	}
	switch {
	case s.Default == "":
		return "/some/where else"
	case strings.HasPrefix(s.Name, "retention-"):
		return "50h0m0s"
	case strings.ContainsAny(s.Default, "smh"):
		return "17s"
	default:
		return "23"
	}
}

// Every setting has all its forms, and each of them is heeded.
func TestEverySettingInEveryForm(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range Settings() {
		env := s.Envs[0]
		t.Run(env, func(t *testing.T) {
			if s.Group == nil || len(s.Envs) != 1 || s.Help == "" || seen[s.Name] || seen[env] {
				t.Fatalf("setting = %+v; want it whole and once", s)
			}
			seen[s.Name], seen[env] = true, true
			want := sample(t, s)
			file := func(value string) string { return env + "='" + value + "'\n" }
			for form, set := range map[string]func() (file string, args []string){
				"default": func() (string, []string) { return "", nil },
				"flag":    func() (string, []string) { return "", []string{"--" + s.Name + "=" + want} },
				"env":     func() (string, []string) { t.Setenv(env, want); return "", nil },
				"env _FILE": func() (string, []string) {
					t.Setenv(env+"_FILE", write(t, want+"\n"))
					return "", nil
				},
				"file":       func() (string, []string) { return file(want), nil },
				"file _FILE": func() (string, []string) { return env + "_FILE=" + write(t, want+"\r\n"), nil },
			} {
				clean(t)
				if env == "DATABASE_DIRECT_URL" {
					t.Setenv("DATABASE_URL", "postgres://host/name")
				}
				value := want
				if form == "default" {
					value = read(t, &command{}, env) // the zero value
					if s.Default != "" {
						value = s.Default
					}
					if strings.HasPrefix(env, "LIVEBLOCKS_") && s.Default == "" {
						continue // has to be set
					}
				} else {
					if strings.HasPrefix(env, "MIRROR_TLS_") { // none of them is accepted alone
						t.Setenv("MIRROR_TLS_CERT", "cert")
						t.Setenv("MIRROR_TLS_KEY", "key")
						t.Setenv("MIRROR_KEYS_FILE", "keys")
					}
					unset(t, env)
				}
				if env == "MIRROR_PROJECTS_FILE" && form != "default" { // in place of these
					unset(t, "LIVEBLOCKS_SECRET_KEY")
					unset(t, "LIVEBLOCKS_WEBHOOK_SECRET")
				}
				text, args := set()
				c, err := parse(t, text, args...)
				if err != nil {
					t.Fatalf("%s: %v", form, err)
				}
				if got := read(t, c, env); got != value && !sameDuration(got, value) {
					t.Fatalf("%s: %s = %q; want %q", form, env, got, value)
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
	for _, s := range Settings() {
		if env := s.Envs[0]; os.Getenv(env) == "" {
			t.Setenv(env, "")
			t.Setenv(env+"_FILE", "")
		}
	}
	got, err := parse(t, "")
	if err != nil {
		t.Fatalf("parse with empty variables = %v", err)
	}
	for _, s := range Settings() {
		if g, w := read(t, got, s.Envs[0]), read(t, want, s.Envs[0]); g != w {
			t.Fatalf("%s = %q; want %q", s.Envs[0], g, w)
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
	if d := cmp.Diff([]string{"whsec_b25l", "whsec_dHdv"}, Reveal(c.WebhookSecret)); d != "" {
		t.Fatalf("secrets (-want +got):\n%s", d)
	}
}

func TestLoopbackNeedsNoToken(t *testing.T) { //nolint:paralleltest // the environment is the process's
	clean(t)
	for _, addr := range []string{"127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1", "127.0.0.1:0"} {
		if _, err := parse(t, "", "--http-addr="+addr, "--grpc-addr="+addr); err != nil {
			t.Fatalf("parse with %s = %v; want it fine", addr, err)
		}
	}
	if _, err := parse(t, "", "--http-addr=:1", "--grpc-addr=:2", "--api-token=0123456789abcdef",
		"--insecure=behind-proxy"); err != nil {
		t.Fatalf("parse with a token = %v; want it fine", err)
	}
	if _, err := parse(t, "", "--api-token=0123456789abcdef ,fedcba9876543210"); err == nil ||
		!strings.Contains(err.Error(), "spaces") {
		t.Fatalf("parse with a space in the tokens = %v; want an error", err)
	}
}

// Beyond loopback it takes TLS, or the word that a proxy has it.
func TestPlaintextStaysOnThisMachine(t *testing.T) { //nolint:paralleltest // the environment is the process's
	clean(t)
	token := "--api-token=0123456789abcdef"
	for _, flag := range []string{"--http-addr", "--grpc-addr", "--webhook-addr"} {
		for _, addr := range []string{":1", "0.0.0.0:1", "[::]:1", "192.0.2.1:1", "example.org:1"} {
			at := flag + "=" + addr
			setting := "MIRROR_" + strings.ToUpper(strings.ReplaceAll(strings.Trim(flag, "-"), "-", "_"))
			_, err := parse(t, "", token, at)
			if err == nil {
				t.Fatalf("parse with %s and no TLS is fine; want an error", at)
			}
			for _, want := range []string{setting, "MIRROR_TLS_CERT", "127.0.0.1", "MIRROR_INSECURE=behind-proxy"} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("parse with %s and no TLS = %v; want %s in it", at, err, want)
				}
			}
			for _, fine := range [][]string{{"--insecure=behind-proxy"}, {"--tls-cert=cert", "--tls-key=key"}} {
				if _, err := parse(t, "", append(fine, token, at)...); err != nil {
					t.Errorf("parse with %s and %s = %v; want it fine", at, fine, err)
				}
				// Neither is a credential.
				if _, err := parse(t, "", append(fine, at)...); err == nil && flag != "--webhook-addr" {
					t.Errorf("parse with %s and %s and no token is fine; want an error", at, fine)
				}
			}
		}
	}
}

func TestTLSSettingsBelongTogether(t *testing.T) { //nolint:paralleltest // the environment is the process's
	clean(t)
	for args, want := range map[string]string{
		"--tls-cert=a --tls-key=a --tls-client-ca=a": "MIRROR_TLS_CLIENT_CA is set, but MIRROR_KEYS_FILE is not",

		"--tls-cert=a":      "MIRROR_TLS_CERT and MIRROR_TLS_KEY must both be set",
		"--tls-key=a":       "MIRROR_TLS_CERT and MIRROR_TLS_KEY must both be set",
		"--tls-client-ca=a": "MIRROR_TLS_CLIENT_CA is set, but MIRROR_TLS_CERT is not",
		"--insecure=yes":    "MIRROR_INSECURE is \"yes\"; it must be behind-proxy",
	} {
		if _, err := parse(t, "", strings.Fields(args)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("parse %s = %v; want %q", args, err, want)
		}
	}
	for _, c := range []struct {
		client Client
		want   string
	}{
		{Client{Server: "https://host:1", ServerCA: "a", ClientCert: "b", ClientKey: "c"}, ""},
		{Client{Server: "https://host:1", ClientCert: "b"}, "must both be set"},
		{Client{Server: "https://host:1", ClientKey: "b"}, "must both be set"},
		{Client{Server: "host:1", ServerCA: "a"}, "begin with https://"},
		{Client{Server: "host:1", ClientCert: "b", ClientKey: "c"}, "begin with https://"},
	} {
		err := c.client.Validate()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("Validate(%+v) = %v; want %q", c.client, err, c.want)
		}
	}
}

func TestPooledAndDirectURL(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		d      Database
		pooled bool
		direct string
	}{
		{Database{DatabaseURL: NewSecret("a")}, false, "a"},
		{Database{DatabaseURL: NewSecret("a"), DatabasePooled: true}, true, "a"},
		{Database{DatabaseURL: NewSecret("a"), DatabaseDirectURL: NewSecret("b")}, true, "b"},
	} {
		if got := c.d.Pooled(); got != c.pooled {
			t.Fatalf("Pooled of %v = %v; want %v", c.d, got, c.pooled)
		}
		if got := c.d.DirectURL(); got != c.direct {
			t.Fatalf("DirectURL of %v = %q; want %q", c.d, got, c.direct)
		}
	}
}

// A duration says its unit in every format.
func TestLoggedDurations(t *testing.T) {
	t.Parallel()
	for format, want := range map[string]string{"text": "took=1.5s", "json": `"took":"1.5s"`} {
		var out strings.Builder
		Log{LogFormat: format}.Logger(&out).Info("done", slog.Duration("took", 1500*time.Millisecond))
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s log = %s; want %s in it", format, &out, want)
		}
	}
}

// What the README says of settings is so.
func TestREADME(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../../../README.md")
	if err != nil {
		t.Fatalf("ReadFile = %v", err)
	}
	table := map[string]*kong.Flag{}
	for _, s := range Settings() {
		table[s.Envs[0]] = s
	}
	name := regexp.MustCompile("(?:MIRROR|LIVEBLOCKS|DATABASE)_[A-Z_]*[A-Z]")
	for _, env := range name.FindAllString(string(text), -1) {
		if table[env] == nil && table[strings.TrimSuffix(env, "_FILE")] == nil && env != "MIRROR_CONFIG" {
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

// A schema belongs to PostgreSQL. Every URL of the database leads into it.
func TestDatabaseSchema(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ schema, url, direct, want string }{
		{"liveblocks", "", "", ""},
		{"liveblocks", "postgres://user@host/name", "postgres://user@direct/name?sslmode=require", ""},
		{"My \"Schema\"", "postgresql://user@host/name", "", ""},
		{"liveblocks", "postgres://user@host/name?schema=liveblocks", "", ""},
		{"liveblocks", "postgres://user@host/name", "postgres://user@host?schema=mine", "two schemas, mine and liveblocks"},
		{"liveblocks", "mysql://user@host/name", "", "leads to MySQL, where the database is the schema"},
		{"liveblocks", "user@tcp(host:3306)/name", "", "leads to MySQL"},
		{"pg_catalog", "postgres://user@host/name", "", "PostgreSQL's own"},
		{"information_schema", "", "", "PostgreSQL's own"},
		{"a\nb", "", "", "control characters"},
		{strings.Repeat("é", 32), "", "", "at most 63 bytes"},
	} {
		d := Database{
			DatabaseURL: NewSecret(c.url), DatabaseDirectURL: NewSecret(c.direct), DatabaseSchema: c.schema, DatabaseMaxConns: 2,
		}
		err := d.Validate()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) ||
			!strings.Contains(err.Error(), "MIRROR_DATABASE_SCHEMA")) {
			t.Errorf("Validate(%q, %q, %q) = %v; want %q", c.schema, c.url, c.direct, err, c.want)
		}
	}
	d := Database{
		DatabaseURL:       NewSecret("postgres://user@host/name#x"),
		DatabaseDirectURL: NewSecret("postgres://user@direct/name?a=b"),
		DatabaseSchema:    "my schema",
	}
	if got, want := d.URL(), "postgres://user@host/name?schema=my%20schema"; got != want {
		t.Errorf("URL = %s; want %s", got, want)
	}
	if got, want := d.DirectURL(), "postgres://user@direct/name?a=b&schema=my%20schema"; got != want {
		t.Errorf("DirectURL = %s; want %s", got, want)
	}
	if d := (Database{DatabaseSchema: "liveblocks"}); d.URL() != "" || d.DirectURL() != "" {
		t.Errorf("URLs of no database = %q, %q; want none", d.URL(), d.DirectURL())
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
		{"", "postgres://user@host/name", "set both"},
		{planetscale, "postgres://user@host/name", "the same database"},
		{"postgres://user@host/name", planetscale, "the same database"},
	} {
		err := Database{DatabaseURL: NewSecret(c.url), DatabaseDirectURL: NewSecret(c.direct), DatabaseMaxConns: 2}.Validate()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("Validate(%q, %q) = %v; want %q", c.url, c.direct, err, c.want)
		}
	}
}

// Platforms set the standard variables for every program. While nothing is traced, no value
// of them stops the service; with an endpoint each wrong one does.
func TestStandardVariablesOfTraces(t *testing.T) {
	t.Parallel()
	const on = "OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318\n"
	for env, off := range map[string]bool{
		"OTEL_TRACES_SAMPLER=jaeger_remote\n":                      false,
		"OTEL_TRACES_SAMPLER_ARG='endpoint=http://jaeger:14250'\n": false,
		"OTEL_TRACES_SAMPLER_ARG=NaN\n":                            false,
		"OTEL_EXPORTER_OTLP_PROTOCOL=grpc\n":                       false,
		"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=grpc\n":                false,
		"OTEL_SDK_DISABLED=maybe\n":                                false,
		"OTEL_TRACES_EXPORTER=zipkin\n":                            false,
		"OTEL_SDK_DISABLED=TRUE\nOTEL_TRACES_SAMPLER=no\n":         true,
		"OTEL_TRACES_EXPORTER=none\nOTEL_TRACES_SAMPLER=no\n":      true,
	} {
		var cfg struct{ Traces }
		settings := func(text string) error {
			cfg = struct{ Traces }{}
			r, err := NewResolver(func(string) (string, bool) { return "", false }, write(t, text))
			if err != nil {
				return err
			}
			p, err := kong.New(&cfg, kong.Resolvers(r))
			if err != nil {
				return err
			}
			_, err = p.Parse(nil)
			return err
		}
		if err := settings(env); err != nil || cfg.Endpoint() != "" {
			t.Errorf("without an endpoint, %q: %v", env, err)
		}
		if err := settings(on + env); (err == nil) != off || (cfg.Endpoint() == "") != off {
			t.Errorf("%q: %v, and traces go to %q; want it off: %t", env, err, cfg.Endpoint(), off)
		} else if name, _, _ := strings.Cut(env, "="); err != nil && !strings.Contains(err.Error(), name+" is ") {
			t.Errorf("%q: %v; want the name of the variable", env, err)
		}
	}
}

// Headers for traces alone come first, and are checked like the others. What the exporter
// would drop from an endpoint is refused.
func TestHeadersAndEndpointsOfTraces(t *testing.T) {
	t.Parallel()
	on := Defaults().Traces
	on.OTLPEndpoint, on.OTLPHeaders = "http://localhost:4318", NewSecret("a=generic,b=generic")
	on.OTLPTracesHeaders = NewSecret("a=for%20traces")
	if got, err := on.Headers(); err != nil || !maps.Equal(got, map[string]string{"a": "for traces"}) {
		t.Errorf("headers = %v, %v; want those for traces alone", got, err)
	}
	on.OTLPTracesHeaders = NewSecret("HIDDEN")
	if err := on.Validate(); err == nil || !strings.HasPrefix(err.Error(), "OTEL_EXPORTER_OTLP_TRACES_HEADERS ") ||
		strings.Contains(err.Error(), "HIDDEN") {
		t.Errorf("wrong headers: %v", err)
	}
	for _, url := range []string{
		"http://host?token=HIDDEN", "http://host/v1/traces?", "http://host#HIDDEN", "http://host/#",
	} {
		for _, c := range []Traces{{OTLPEndpoint: url}, {OTLPTracesEndpoint: url}} {
			cfg := Defaults().Traces
			cfg.OTLPEndpoint, cfg.OTLPTracesEndpoint = c.OTLPEndpoint, c.OTLPTracesEndpoint
			if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "OTEL_EXPORTER_OTLP_HEADERS") ||
				strings.Contains(err.Error(), "HIDDEN") {
				t.Errorf("the endpoint %q: %v; want a hint at the headers", url, err)
			}
		}
	}
}
