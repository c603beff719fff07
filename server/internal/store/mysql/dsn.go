package mysql

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	gomysql "github.com/go-sql-driver/mysql"
)

// sqlMode makes the server refuse values that do not fit, instead of truncating
// them. It is the default of MySQL 8 and PlanetScale, where another mode would
// reserve a connection for each client. It keeps backslash escapes, which the
// driver and Vitess require.
const sqlMode = "'ONLY_FULL_GROUP_BY,STRICT_TRANS_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE," +
	"ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'"

// parseURL parses a mysql:// URL or a DSN of the Go driver. Errors do not repeat
// it, because it contains the password.
func parseURL(s string) (*gomysql.Config, error) {
	cfg, err := parse(s)
	if err != nil {
		return nil, err
	}
	if cfg.DBName == "" {
		return nil, errors.New("the database URL names no database")
	}
	// The statements and conversions rely on these settings, whatever the URL says.
	cfg.ParseTime = true
	cfg.Loc = time.UTC
	cfg.ClientFoundRows = false // the count of an insert shows what was new
	cfg.MultiStatements = false
	cfg.ColumnsWithAlias = false
	cfg.AllowAllFiles = false
	// Values are escaped into the text of the statement, which saves a round trip
	// and avoids prepared statements in poolers. Long values are sent separately,
	// see session.
	cfg.InterpolateParams = true
	cfg.MaxAllowedPacket = 0 // ask the server
	if err := cfg.Apply(gomysql.Charset("utf8mb4", "utf8mb4_bin")); err != nil {
		return nil, fmt.Errorf("set character set: %w", err)
	}
	params := map[string]string{}
	for k, v := range cfg.Params {
		switch strings.ToLower(k) {
		case "sql_mode", "time_zone", "autocommit", "tx_isolation", "transaction_isolation",
			"character_set_client", "character_set_connection", "character_set_results", "collation_connection":
		default:
			params[k] = v
		}
	}
	params["sql_mode"], params["time_zone"] = sqlMode, "'+00:00'"
	cfg.Params = params
	if cfg.Timeout == 0 {
		cfg.Timeout = connectTimeout
	}
	if cfg.ConnectionAttributes == "" {
		cfg.ConnectionAttributes = "program_name:liveblocks-mirror"
	}
	cfg.Logger = &gomysql.NopLogger{} // errors are returned as well
	chooseTLS(cfg)
	return cfg, nil
}

func parse(s string) (*gomysql.Config, error) {
	scheme, _, ok := strings.Cut(s, "://")
	if !ok || strings.ContainsAny(scheme, ":@/") {
		cfg, err := gomysql.ParseDSN(s)
		if err != nil {
			return nil, errors.New("the database URL cannot be read") // the cause may repeat parts of it
		}
		return cfg, nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Opaque != "" {
		return nil, errors.New("the database URL cannot be read") // the cause repeats it
	}
	if u.Scheme != "mysql" && u.Scheme != "mariadb" {
		return nil, errors.New("the database URL does not begin with mysql://")
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, errors.New("the parameters of the database URL cannot be read")
	}
	if ca := take(query, "sslcert"); ca != "" && query.Get("ssl-ca") == "" { // Prisma calls the authority so
		query.Set("ssl-ca", ca)
	}
	way, err := takeTLS(query)
	if err != nil {
		return nil, err
	}
	socket := cmp.Or(take(query, "socket"), take(query, "unix_socket"))
	for _, name := range foreign {
		take(query, name)
	}
	cfg, err := gomysql.ParseDSN("/?" + query.Encode())
	if err != nil {
		return nil, parameterError(query)
	}
	cfg.User = u.User.Username()
	cfg.Passwd, _ = u.User.Password()
	cfg.DBName = strings.TrimPrefix(u.Path, "/")
	cfg.Net, cfg.Addr = "tcp", net.JoinHostPort(cmp.Or(u.Hostname(), "127.0.0.1"), cmp.Or(u.Port(), "3306"))
	if socket != "" {
		cfg.Net, cfg.Addr = "unix", socket
	}
	cfg.TLSConfig, cfg.TLS = way.name, way.config
	return cfg, nil
}

// foreign are parameters that are chosen here, or meant for another client or its
// pool: Prisma, mysql2 of Node, SQLAlchemy, Rails and JDBC.
var foreign = []string{
	"charset", "collation", "encoding", "useUnicode", "characterEncoding", "connectionCollation", "timezone",
	"serverTimezone", "connectionTimeZone", "schema", "multipleStatements", "dateStrings", "supportBigNumbers",
	"bigNumberStrings", "decimalNumbers",
	"connection_limit", "pool", "pool_size", "pool_timeout", "pool_recycle", "pool_pre_ping", "max_overflow",
	"connect_timeout", "connectTimeout", "socket_timeout", "socketTimeout", "waitForConnections", "queueLimit",
	"maxIdle", "idleTimeout", "enableKeepAlive", "keepAliveInitialDelay", "tcpKeepAlive", "reconnect",
	"autoReconnect", "allowPublicKeyRetrieval", "statement_cache_size", "useServerPrepStmts", "cachePrepStmts",
	"rewriteBatchedStatements", "reaping_frequency", "checkout_timeout",
}

// parameterError names the parameter that the driver cannot read. The driver's own
// error may repeat its value.
func parameterError(query url.Values) error {
	for _, name := range slices.Sorted(maps.Keys(query)) {
		if _, err := gomysql.ParseDSN("/?" + url.Values{name: query[name]}.Encode()); err != nil {
			return fmt.Errorf("the database URL has a value of %s that cannot be used", name)
		}
	}
	return errors.New("the parameters of the database URL cannot be used together")
}

// CheckURL reports what is wrong with a URL, as far as that can be seen from it.
func CheckURL(s string) error {
	_, err := parseURL(s)
	return err
}

// take removes a parameter from query and returns its last value. It ignores case,
// dashes and underscores in names, because clients spell them differently.
func take(query url.Values, name string) string {
	plain := func(s string) string { return strings.NewReplacer("-", "", "_", "").Replace(strings.ToLower(s)) }
	var value string
	for k, v := range query {
		if plain(k) == plain(name) {
			value = v[len(v)-1]
			delete(query, k)
		}
	}
	return value
}

// tlsWay is the encryption that a URL requests: a name known to the driver, or a
// configuration. Neither means that the URL does not say.
type tlsWay struct {
	name   string
	config *tls.Config
}

// takeTLS removes the TLS parameters of common clients from query and returns the
// driver's equivalent. The driver's own parameter takes precedence.
func takeTLS(query url.Values) (tlsWay, error) {
	const verify, encrypt, prefer, plain = "true", "skip-verify", "preferred", "false"
	ways := []struct {
		param string
		names map[string]string
	}{
		// The driver's.
		{"tls", map[string]string{
			"true": verify, "1": verify, "skip-verify": encrypt, "preferred": prefer, "false": plain, "0": plain,
		}},
		// Those of MySQL's clients and of Postgres'. Verifying only the authority
		// is not supported and becomes full verification.
		{"ssl-mode", map[string]string{
			"verify_identity": verify, "verify-full": verify, "verify_ca": verify, "verify-ca": verify,
			"required": encrypt, "require": encrypt, "preferred": prefer, "prefer": prefer, "disabled": plain, "disable": plain,
		}},
		// Prisma's, as shown by PlanetScale.
		{"sslaccept", map[string]string{"strict": verify, "accept_invalid_certs": encrypt}},
		// Node's, also shown by PlanetScale; its other form is JSON.
		{"ssl", map[string]string{"true": verify, "1": verify, "false": plain, "0": plain}},
		{"useSSL", map[string]string{"true": verify, "false": plain}},
	}
	var way tlsWay
	for _, w := range ways {
		value := take(query, w.param)
		if value == "" {
			continue
		}
		name, ok := w.names[strings.ToLower(value)]
		if w.param == "ssl" && !ok {
			options := struct{ RejectUnauthorized *bool }{}
			if ok = json.Unmarshal([]byte(value), &options) == nil; ok {
				name = verify
				if options.RejectUnauthorized != nil && !*options.RejectUnauthorized {
					name = encrypt
				}
			}
		}
		if !ok {
			return tlsWay{}, fmt.Errorf("the database URL has an unknown value of %s", w.param)
		}
		way.name = cmp.Or(way.name, name)
	}
	file := cmp.Or(take(query, "ssl-ca"), take(query, "sslrootcert"))
	if file == "" || way.name == plain {
		return way, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return tlsWay{}, fmt.Errorf("read the authorities the database URL names: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return tlsWay{}, errors.New("the file of authorities the database URL names holds none")
	}
	// Naming an authority means to verify it.
	return tlsWay{name: verify, config: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}, nil
}

// chooseTLS decides if the URL does not. Local connections are not encrypted.
// Others are encrypted if the server supports it, as with MySQL's own clients, and
// verified only on request. PlanetScale is always verified, because its names and
// certificates are public.
func chooseTLS(cfg *gomysql.Config) {
	host, _, err := net.SplitHostPort(cfg.Addr)
	if cfg.Net != "tcp" || err != nil {
		return
	}
	ip, _ := netip.ParseAddr(host)
	switch {
	case strings.Contains(host+".", ".psdb."):
		if cfg.TLSConfig != "true" && cfg.TLSConfig != "skip-verify" {
			cfg.TLSConfig, cfg.TLS, cfg.AllowFallbackToPlaintext = "true", nil, false
		}
	case cfg.TLSConfig == "" && cfg.TLS == nil && host != "localhost" && !ip.IsLoopback():
		cfg.TLSConfig = "preferred"
	}
}
