package postgres

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// URLs as consoles and clients write them. What the driver and the server do not know
// is understood, left out or refused by name.
func TestURL(t *testing.T) {
	t.Parallel()
	const base = "postgres://u:p@h/db"
	for _, c := range []struct {
		query string
		want  target // without base
	}{
		{"", target{}},
		{"sslmode=require&channel_binding=require", target{url: "?channel_binding=require&sslmode=require"}}, // Neon
		{"options=endpoint%3Dep-x&sslmode=require", target{url: "?options=endpoint%3Dep-x&sslmode=require"}},
		{"pgbouncer=true&connection_limit=1&pool_timeout=0", target{pooled: true}}, // Prisma, Supabase
		{"pgbouncer=false", target{}},
		{"supa=base-pooler.x&sslmode=require", target{url: "?sslmode=require"}}, // Vercel with Supabase
		{"schema=public", target{schema: "public"}},
		{"schema=My%20Schema", target{schema: "My Schema"}},
		{"currentSchema=mirror", target{schema: "mirror"}},
		{"search_path=a,b", target{searchPath: "a,b"}},
		{"statement_cache_size=0", target{pooled: true}}, // asyncpg
		{"prepared_statement_cache_size=0", target{pooled: true}},
		{"statement_cache_size=100", target{}},
		{"prepareThreshold=0", target{pooled: true}}, // JDBC
		{"prepare=false", target{pooled: true}},      // postgres.js
		{"prepared_statements=false&pool=5", target{pooled: true}},
		{"default_query_exec_mode=simple_protocol", target{pooled: true}},
		{"default_query_exec_mode=cache_statement", target{}},
		{"pool_max_conns=3&pool_min_conns=1", target{}}, // pgx
		{"keepalives=1&keepalives_idle=30&keepalives_interval=10&keepalives_count=5&tcp_user_timeout=1", target{}},
		{"uselibpqcompat=true&sslmode=no-verify", target{url: "?sslmode=require"}}, // node-postgres
		{"sslmode=verify-full&sslrootcert=system", target{url: "?sslmode=verify-full&sslrootcert=system"}},
		{"ssl=true", target{url: "?sslmode=require"}},
		{"ssl=no-verify", target{url: "?sslmode=require"}},
		{"ssl=require", target{url: "?sslmode=require"}},
		{"ssl=verify-full", target{url: "?sslmode=verify-full"}},
		{"ssl=0", target{url: "?sslmode=disable"}},
		{"ssl=true&sslmode=verify-full", target{url: "?sslmode=verify-full"}},
		{"sslaccept=strict", target{url: "?sslmode=verify-full"}},
		{"sslaccept=strict&sslmode=require", target{url: "?sslmode=verify-full"}},
		{"sslaccept=accept_invalid_certs", target{url: "?sslmode=require"}},
		{"sslaccept=accept_invalid_certs&sslmode=verify-full", target{url: "?sslmode=verify-full"}},
		{"sslcert=a%2Fca.pem", target{url: "?sslrootcert=a%2Fca.pem"}},
		{"sslcert=c.pem&sslkey=k.pem", target{url: "?sslcert=c.pem&sslkey=k.pem"}},
		{"gssencmode=disable", target{}},
		{"target_session_attrs=read-write", target{url: "?target_session_attrs=read-write"}},
		{"statement_timeout=5s&application_name=x", target{url: "?statement_timeout=5s&application_name=x"}},
		{"user=u&password=a+b", target{url: "?user=u&password=a+b"}}, // JDBC; a plus is a plus
		{"sslmode=require#fragment", target{url: "?sslmode=require"}},
	} {
		got, err := parseURL(base + "?" + c.query)
		if err != nil {
			t.Errorf("parseURL(%s) = %v", c.query, err)
			continue
		}
		c.want.url = base + c.want.url
		if d := cmp.Diff(c.want, got, cmp.AllowUnexported(target{})); d != "" {
			t.Errorf("parseURL(%s) (-want +got):\n%s", c.query, d)
		}
		if strings.Contains(c.query, ".pem") {
			continue // the driver reads the files
		}
		cc, err := configOf(base + "?" + c.query)
		if err != nil {
			t.Errorf("configOf(%s) = %v", c.query, err)
			continue
		}
		known := map[string]bool{"options": true, "statement_timeout": true, "application_name": true}
		for name := range cc.conn.RuntimeParams {
			if !known[name] {
				t.Errorf("configOf(%s) sends the server the parameter %s", c.query, name)
			}
		}
	}
}

// Several servers, of which the one that takes writes is wanted.
func TestURLOfSeveralServers(t *testing.T) {
	t.Parallel()
	cc, err := configOf("postgres://u:p@h1:5432,h2:5433/db?target_session_attrs=read-write&pgbouncer=true")
	if err != nil {
		t.Fatal(err)
	}
	if cc.conn.Host != "h1" || cc.conn.ValidateConnect == nil ||
		!containsHost(cc.conn, "h2") || !cc.pooled {
		t.Fatalf("configOf = %+v; want both servers", cc)
	}
}

func containsHost(c *pgx.ConnConfig, host string) bool {
	for _, f := range c.Fallbacks {
		if f.Host == host {
			return true
		}
	}
	return false
}

func TestURLThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"postgres://u:hunter2@h/db?sslmode=hunter2":                  "sslmode",
		"postgres://u:hunter2@h/db?ssl=hunter2":                      "of ssl",
		"postgres://u:hunter2@h/db?sslaccept=hunter2":                "sslaccept",
		"postgres://u:hunter2@h/db?sslidentity=hunter2":              "sslidentity",
		"postgres://u:hunter2@h/db?gssencmode=require":               "gssencmode",
		"postgres://u:hunter2@h/db?replication=hunter2":              "replication",
		"postgres://u:hunter2@h/db?connect_timeout=hunter2":          "connect_timeout",
		"postgres://u:hunter2@h/db?sslrootcert=%2Fhunter2":           "sslrootcert",
		"postgres://u:hunter2@h/db?target_session_attrs=hunter2":     "target_session_attrs",
		"postgres://u:hunter2@h/db?channel_binding=hunter2":          "channel_binding",
		"postgres://u:hunter2@h/db?sslmode=%zzhunter2":               "sslmode",
		"postgres://u:1?hunter2@h/db":                                "%3F",
		"postgres://u:hunter2@h:port/db":                             "cannot be read",
		"postgres://u:hunter2@[::1/db":                               "cannot be read",
		"postgres://u:hunter2@h/db?sslmode=disable&ssl%zzhunter2=%z": "cannot be read",
	} {
		err := CheckURL(url)
		if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), want) {
			t.Errorf("CheckURL(%s) = %v; want %q named and no password", url, err, want)
		}
	}
}

// The names of unknown parameters are the server's to refuse, and its refusal is told
// with what to do.
func TestParameterTheServerRefuses(t *testing.T) {
	t.Parallel()
	for code, message := range map[string]string{
		"42704": `unrecognized configuration parameter "supa2"`,
		"08P01": "unsupported startup parameter: supa2",
	} {
		err := connectHint(&pgconn.PgError{Severity: "FATAL", Code: code, Message: message})
		if !strings.Contains(err.Error(), "supa2") || !strings.Contains(err.Error(), "remove it from the database URL") {
			t.Errorf("connectHint of %s = %v", message, err)
		}
	}
	other := &pgconn.PgError{Severity: "FATAL", Code: "28P01", Message: "password authentication failed"}
	if err := connectHint(other); err.Error() != other.Error() {
		t.Errorf("connectHint of another error = %v; want it as it was", err)
	}
}
