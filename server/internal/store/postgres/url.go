package postgres

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// target is where a database URL leads.
type target struct {
	// url is the URL with only the parameters that the driver and the server know.
	url string
	// pooled means that the URL asks for what a pooler in transaction mode needs.
	pooled bool
	// schema is where the tables are; empty if they are in the first schema of the search
	// path. searchPath is the search path that the URL asks for; empty if it does not.
	schema, searchPath string
}

// path is the search path with the schema, or else that of the URL.
func (t target) path() string {
	if t.schema != "" {
		return pgx.Identifier{t.schema}.Sanitize()
	}
	return t.searchPath
}

// parameters are those of libpq and of the clients whose URLs consoles show: Prisma,
// node-postgres, postgres.js, SQLAlchemy with its drivers, Rails, JDBC and pgx. Others
// are passed to the server, which knows its own and refuses the rest by name.
var (
	// foreign are meant for another client or its pool, or chosen by the service.
	foreign = []string{
		// Pools. MIRROR_DATABASE_MAX_CONNS is the service's own.
		"connection_limit", "pool_timeout", "pool_size", "pool", "pool_mode", "max_overflow", "pool_recycle", "pool_pre_ping",
		"max", "min", "idle_timeout", "max_lifetime", "single_use_connections", "max_connection_lifetime",
		"max_idle_connection_lifetime", "pool_max_conns", "pool_min_conns", "pool_min_idle_conns", "pool_max_conn_lifetime",
		"pool_max_conn_idle_time", "pool_health_check_period", "pool_max_conn_lifetime_jitter", "pool_ping_timeout",
		// Statements and their time limits in the client.
		"statement_cache_capacity", "description_cache_capacity", "socket_timeout", "sockettimeout", "command_timeout",
		"query_timeout", "timeout", "reaping_frequency", "checkout_timeout",
		// The network, which the operating system's defaults serve.
		"keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout", "tcpkeepalive",
		"load_balance_hosts", "sslcompression", "uselibpqcompat", "supa", "workaround",
		// Chosen by the service.
		"client_encoding", "encoding", "charset", "fallback_application_name", "timezone", "async_fallback",
	}
	// unsupported cannot be honoured, and leaving them out would not be safe.
	unsupported = []string{
		"sslcrl", "sslcrldir", "sslidentity", "requirepeer", "hostaddr", "replication", "requiressl", "socketfactory",
	}
)

// parameterName is what the names of parameters look like. Anything else may be a part
// of a password with a question mark in it.
var parameterName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*$`)

// parseURL reads a postgres:// URL as the consoles and clients of Postgres write it.
// Errors name the parameter and never repeat the URL, which holds the password.
func parseURL(raw string) (target, error) {
	base, query, _ := strings.Cut(raw, "?")
	query, _, _ = strings.Cut(query, "#")
	var t target
	var rest []string // parameters to pass
	ssl := map[string]string{}
	for part := range strings.SplitSeq(query, "&") {
		if part == "" {
			continue
		}
		rawName, rawValue, _ := strings.Cut(part, "=")
		name, err := url.PathUnescape(rawName) // a plus is a plus
		if err != nil || !parameterName.MatchString(name) {
			return target{}, errors.New("the parameters of the database URL cannot be read; in the user name and the " +
				"password, write %3F for ? and %23 for #")
		}
		value, err := url.PathUnescape(rawValue)
		if err != nil {
			return target{}, fmt.Errorf("the parameter %s of the database URL cannot be read", name)
		}
		lower := strings.ToLower(name)
		switch {
		case lower == "sslmode", lower == "ssl", lower == "sslaccept", lower == "sslcert", lower == "sslkey",
			lower == "sslrootcert":
			ssl[lower] = value
		case lower == "pgbouncer", lower == "default_query_exec_mode":
			t.pooled = t.pooled || value == "true" || value == "1" || lower != "pgbouncer" && value != "cache_statement"
		case lower == "prepare", lower == "prepared_statements": // of postgres.js and Rails
			t.pooled = t.pooled || value == "false" || value == "0"
		case lower == "statement_cache_size", lower == "prepared_statement_cache_size", lower == "preparethreshold":
			t.pooled = t.pooled || value == "0" // of asyncpg, SQLAlchemy and JDBC
		case lower == "schema", lower == "currentschema": // of Prisma and JDBC
			if t.schema != "" && t.schema != value {
				return target{}, fmt.Errorf("the database is asked for two schemas, %s and %s; remove schema= from the "+
					"database URL, or leave MIRROR_DATABASE_SCHEMA empty", t.schema, value)
			}
			t.schema = value
		case lower == "search_path":
			t.searchPath = value
		case lower == "gssencmode" && value != "disable" && value != "prefer", slices.Contains(unsupported, lower):
			return target{}, fmt.Errorf("the database URL has the parameter %s, which is not supported; remove it", name)
		case lower == "gssencmode", slices.Contains(foreign, lower):
		default:
			rest = append(rest, part)
		}
	}
	tls, err := sslParameters(ssl)
	if err != nil {
		return target{}, err
	}
	rest = append(rest, tls...)
	if len(rest) > 0 {
		base += "?" + strings.Join(rest, "&")
	}
	t.url = base
	return t, nil
}

// sslParameters are the driver's parameters for the encryption that a URL requests.
func sslParameters(ssl map[string]string) (list []string, err error) {
	mode := ssl["sslmode"]
	var set string
	switch mode {
	case "", "disable", "allow", "prefer", "require", "verify-ca", "verify-full":
		set = mode
	case "no-verify": // of node-postgres: encrypted, whoever the server is
		set = "require"
	default:
		return nil, errors.New("the database URL has an unknown value of sslmode; use disable, require, verify-ca or " +
			"verify-full")
	}
	if of, ok := ssl["ssl"]; ok && mode == "" { // of node-postgres, postgres.js, JDBC and SQLAlchemy's drivers
		switch strings.ToLower(of) {
		case "true", "1", "", "require", "no-verify":
			set = "require"
		case "false", "0", "disable":
			set = "disable"
		case "allow", "prefer", "verify-ca", "verify-full":
			set = strings.ToLower(of)
		default:
			return nil, errors.New("the database URL has an unknown value of ssl; write sslmode=require or " +
				"sslmode=verify-full instead")
		}
	}
	switch of := ssl["sslaccept"]; of { // of Prisma
	case "":
	case "strict":
		if set != "disable" {
			set = "verify-full"
		}
	case "accept_invalid_certs":
		if set == "" {
			set = "require"
		}
	default:
		return nil, errors.New("the database URL has an unknown value of sslaccept; use strict or accept_invalid_certs")
	}
	root, cert := ssl["sslrootcert"], ssl["sslcert"]
	if cert != "" && ssl["sslkey"] == "" { // Prisma calls the authority so
		if root == "" {
			root = cert
		}
		cert = ""
	}
	for _, p := range [][2]string{
		{"sslmode", set}, {"sslrootcert", root}, {"sslcert", cert}, {"sslkey", ssl["sslkey"]},
	} {
		if p[1] != "" {
			list = append(list, p[0]+"="+url.PathEscape(p[1]))
		}
	}
	return list, nil
}

// WithSchema returns a URL whose tables are in a schema.
func WithSchema(raw, schema string) string {
	base, _, _ := strings.Cut(raw, "#")
	separator := "?"
	if strings.Contains(base, "?") {
		separator = "&"
	}
	return base + separator + "schema=" + url.PathEscape(schema)
}

// CheckURL reports what is wrong with a URL, as far as that can be seen from it.
func CheckURL(raw string) error {
	_, err := configOf(raw)
	return err
}

// configOf reads a URL.
func configOf(raw string) (config, error) {
	t, err := parseURL(raw)
	if err != nil {
		return config{}, err
	}
	cc, err := pgx.ParseConfig(t.url)
	if err != nil {
		return config{}, urlError(t.url)
	}
	return config{target: t, conn: cc}, nil
}

// config is what a URL says.
type config struct {
	target

	conn *pgx.ConnConfig
}

// urlError says what the driver cannot read in a URL. The driver's own error repeats
// the URL with its password, so the parameters are tried one by one.
func urlError(to string) error {
	base, query, _ := strings.Cut(to, "?")
	if _, err := pgx.ParseConfig(base); err != nil {
		return errors.New("the database URL cannot be read")
	}
	for part := range strings.SplitSeq(query, "&") {
		if _, err := pgx.ParseConfig(base + "?" + part); err != nil {
			name, _, _ := strings.Cut(part, "=")
			return fmt.Errorf("the database URL has a value of %s that cannot be used; files that it names must exist", name)
		}
	}
	return errors.New("the parameters of the database URL cannot be used together")
}

// connectHint adds advice to a refusal of a parameter by the server or by a pooler.
func connectHint(err error) error {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if ok && (pg.Code == "42704" && strings.Contains(pg.Message, "configuration parameter") ||
		pg.Code == "08P01" && strings.Contains(pg.Message, "startup parameter")) {
		return fmt.Errorf("the server does not know a parameter; remove it from the database URL: %w", err)
	}
	return eachOnce(err)
}

// attemptsError is a failure to connect that tells each reason once.
type attemptsError struct {
	text string
	err  error
}

func (a *attemptsError) Error() string { return a.text }
func (a *attemptsError) Unwrap() error { return a.err }

// eachOnce leaves out repeated reasons of a failure to connect: the driver tries every
// address, with and without TLS, and tells each attempt in a line.
func eachOnce(err error) error {
	if _, ok := errors.AsType[*pgconn.ConnectError](err); !ok {
		return err
	}
	var reasons []string
	head, rest, _ := strings.Cut(err.Error(), "\n")
	for line := range strings.Lines(rest) {
		line = strings.TrimSpace(line)
		if !slices.ContainsFunc(reasons, func(known string) bool { return strings.HasSuffix(known, line) }) {
			reasons = append(reasons, line)
		}
	}
	if len(reasons) == 0 {
		return err
	}
	return &attemptsError{strings.TrimSpace(head) + " " + strings.Join(reasons, "; "), err}
}
