package mysql

import (
	"crypto/tls"
	"encoding/pem"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	gomysql "github.com/go-sql-driver/mysql"
	"github.com/google/go-cmp/cmp"
)

func TestURLLeadsThere(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		url  string
		want []string // user, password, net, address, database
	}{
		{"mysql://u:p@db.example:3307/app", []string{"u", "p", "tcp", "db.example:3307", "app"}},
		{"mysql://u:p@db.example/app", []string{"u", "p", "tcp", "db.example:3306", "app"}},
		{"mariadb://u@db.example/app", []string{"u", "", "tcp", "db.example:3306", "app"}},
		{"mysql://u:p%40ss%2Fw%3A%3F%23%25@[::1]:1/a%20b", []string{"u", "p@ss/w:?#%", "tcp", "[::1]:1", "a b"}},
		{"mysql://a%3Ab%40c:p@h/app", []string{"a:b@c", "p", "tcp", "h:3306", "app"}},
		{"mysql:///app", []string{"", "", "tcp", "127.0.0.1:3306", "app"}},
		{"mysql://u:p@ignored/app?socket=%2Frun%2Fmysqld.sock", []string{"u", "p", "unix", "/run/mysqld.sock", "app"}},
		{
			"mysql://xyz:pscale_pw_abc@aws.connect.psdb.cloud/my-db",
			[]string{"xyz", "pscale_pw_abc", "tcp", "aws.connect.psdb.cloud:3306", "my-db"},
		},
		{
			"mysql://u:p@h/app?connection_limit=3&charset=latin1&collation=latin1_bin&tls=0",
			[]string{"u", "p", "tcp", "h:3306", "app"},
		},
		{
			"mysql://u:p@h/app?connectionLimit=5&timezone=Z&useUnicode=true&serverTimezone=UTC&waitForConnections=true" +
				"&pool_recycle=3600&encoding=utf8mb4&allowPublicKeyRetrieval=true",
			[]string{"u", "p", "tcp", "h:3306", "app"},
		},
		{"mysql://u:p@h/app?unix_socket=/run/mysqld.sock", []string{"u", "p", "unix", "/run/mysqld.sock", "app"}},
		{"u:p@tcp(db.example:3307)/app", []string{"u", "p", "tcp", "db.example:3307", "app"}},
		{"u:p@s:s@tcp(db.example)/app", []string{"u", "p@s:s", "tcp", "db.example:3306", "app"}},
		{"u:p://@tcp(db.example)/app", []string{"u", "p://", "tcp", "db.example:3306", "app"}},
		{"u:p@unix(/run/mysqld.sock)/app", []string{"u", "p", "unix", "/run/mysqld.sock", "app"}},
		{"/app", []string{"", "", "tcp", "127.0.0.1:3306", "app"}},
	} {
		cfg, err := parseURL(c.url)
		if err != nil {
			t.Errorf("parseURL(%s) = %v", c.url, err)
			continue
		}
		if d := cmp.Diff(c.want, []string{cfg.User, cfg.Passwd, cfg.Net, cfg.Addr, cfg.DBName}); d != "" {
			t.Errorf("parseURL(%s) leads elsewhere (-want +got):\n%s", c.url, d)
		}
	}
}

// Each client's way to say it. "true" has the server prove itself, "skip-verify"
// only encrypts, "preferred" encrypts if the server can.
func TestURLSaysTLS(t *testing.T) {
	t.Parallel()
	const (
		far    = "mysql://u:p@db.example/db"
		psdb   = "mysql://u:p@aws.connect.psdb.cloud/db"
		farDSN = "u:p@tcp(db.example:3306)/db"
	)
	for _, c := range []struct{ url, want string }{
		{far, "preferred"},
		{far + "?tls=true", "true"},
		{far + "?tls=1", "true"},
		{far + "?tls=skip-verify", "skip-verify"},
		{far + "?tls=preferred", "preferred"},
		{far + "?tls=false", "false"},
		{far + "?sslaccept=strict", "true"},
		{far + "?sslaccept=accept_invalid_certs", "skip-verify"},
		{far + `?ssl={"rejectUnauthorized":true}`, "true"},
		{far + "?ssl=%7B%22rejectUnauthorized%22%3Atrue%7D", "true"},
		{far + `?ssl={"rejectUnauthorized":false}`, "skip-verify"},
		{far + "?ssl={}", "true"},
		{far + "?ssl=true", "true"},
		{far + "?ssl=false", "false"},
		{far + "?useSSL=true", "true"},
		{far + "?ssl-mode=DISABLED", "false"},
		{far + "?ssl-mode=PREFERRED", "preferred"},
		{far + "?ssl_mode=REQUIRED", "skip-verify"},
		{far + "?sslMode=VERIFY_CA", "true"},
		{far + "?sslmode=VERIFY_IDENTITY", "true"},
		{far + "?sslmode=disable", "false"},
		{far + "?sslmode=require", "skip-verify"},
		{far + "?sslmode=verify-full", "true"},
		{far + "?sslmode=disable&tls=true", "true"},
		{psdb, "true"},
		{psdb + "?sslaccept=strict", "true"},
		{psdb + "?ssl=false", "true"},
		{psdb + "?tls=preferred", "true"},
		{psdb + "?sslmode=disable", "true"},
		{psdb + "?tls=skip-verify", "skip-verify"},
		{"mysql://u:p@psdb.example/db?sslmode=disable", "false"},
		{"mysql://u:p@localhost/db", ""},
		{"mysql://u:p@127.0.0.1:3306/db", ""},
		{"mysql://u:p@[::1]/db", ""},
		{"mysql://u:p@127.0.0.1/db?tls=true", "true"},
		{"mysql://u:p@10.0.0.1/db", "preferred"},
		{"mysql:///db?socket=/run/mysqld.sock", ""},
		{farDSN, "preferred"},
		{farDSN + "?tls=false", "false"},
		{farDSN + "?tls=true", "true"},
		{"u:p@tcp(localhost)/db", ""},
		{"u:p@unix(/run/mysqld.sock)/db", ""},
		{"u:p@tcp(aws.connect.psdb.cloud)/db", "true"},
		{"u:p@tcp(aws.connect.psdb.cloud)/db?tls=false", "true"},
		{"u:p@tcp(aws.connect.psdb.cloud)/db?tls=preferred", "true"},
	} {
		cfg, err := parseURL(c.url)
		if err != nil {
			t.Errorf("parseURL(%s) = %v", c.url, err)
			continue
		}
		if cfg.TLSConfig != c.want {
			t.Errorf("parseURL(%s) has tls=%s; want %q", c.url, cfg.TLSConfig, c.want)
		}
		if c.want == "true" && (cfg.AllowFallbackToPlaintext || cfg.TLS != nil && cfg.TLS.InsecureSkipVerify) {
			t.Errorf("parseURL(%s) lets the server go unproven", c.url)
		}
		if _, err := gomysql.NewConnector(cfg); err != nil {
			t.Errorf("NewConnector for %s = %v", c.url, err)
		}
	}
}

func TestURLNamesAuthority(t *testing.T) {
	t.Parallel()
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	file := filepath.Join(t.TempDir(), "ca.pem")
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(file, cert, 0o600); err != nil {
		t.Fatalf("WriteFile = %v", err)
	}
	for _, param := range []string{"ssl-ca", "sslca", "sslrootcert"} {
		cfg, err := parseURL("mysql://u:p@db.example/db?sslmode=preferred&" + param + "=" + file)
		if err != nil {
			t.Fatalf("parseURL with %s = %v", param, err)
		}
		if cfg.TLS == nil || cfg.TLS.RootCAs == nil || cfg.TLS.InsecureSkipVerify || cfg.TLS.MinVersion < tls.VersionTLS12 ||
			cfg.AllowFallbackToPlaintext {
			t.Errorf("parseURL with %s = %+v; want the authority asked", param, cfg.TLS)
		}
	}
	for _, bad := range []string{"nowhere.pem", "dsn.go"} {
		if _, err := parseURL("mysql://u:p@db.example/db?ssl-ca=" + bad); err == nil {
			t.Errorf("parseURL with the authority %s = nil; want an error", bad)
		}
	}
}

// Statements and their conversions rely on these, whatever the URL says.
func TestURLCannotAlterWhatStatementsMean(t *testing.T) {
	t.Parallel()
	const asked = "?parseTime=false&loc=Asia%2FTokyo&clientFoundRows=true&multiStatements=true&interpolateParams=false" +
		"&columnsWithAlias=true" +
		"&charset=gbk&collation=gbk_bin&maxAllowedPacket=1024" +
		"&sql_mode=%27NO_BACKSLASH_ESCAPES%27&SQL_MODE=%27%27&time_zone=%27%2B09%3A00%27" +
		"&autocommit=0&tx_isolation=%27SERIALIZABLE%27&transaction_isolation=%27SERIALIZABLE%27" +
		"&character_set_client=latin1&innodb_lock_wait_timeout=7&timeout=3s"
	for _, url := range []string{
		"mysql://u:p@localhost/db" + asked, "u:p@tcp(localhost)/db" + asked,
		"mysql://u:p@localhost/db",
	} {
		cfg, err := parseURL(url)
		if err != nil {
			t.Fatalf("parseURL = %v", err)
		}
		if !cfg.ParseTime || cfg.Loc != time.UTC || cfg.ClientFoundRows || cfg.MultiStatements || !cfg.InterpolateParams ||
			cfg.ColumnsWithAlias || cfg.MaxAllowedPacket != 0 || cfg.Collation != "utf8mb4_bin" {
			t.Errorf("parseURL(%s) = %+v; want what the statements need", url, cfg)
		}
		if dsn := cfg.FormatDSN(); !strings.Contains(dsn, "charset=utf8mb4&") && !strings.HasSuffix(dsn, "charset=utf8mb4") {
			t.Errorf("parseURL(%s) has another character set", url)
		}
		want := map[string]string{"sql_mode": sqlMode, "time_zone": "'+00:00'"}
		timeout := connectTimeout
		if strings.Contains(url, asked) {
			want["innodb_lock_wait_timeout"], timeout = "7", 3*time.Second
		}
		if d := cmp.Diff(want, cfg.Params); d != "" {
			t.Errorf("parameters of %s (-want +got):\n%s", url, d)
		}
		if cfg.Timeout != timeout {
			t.Errorf("timeout of %s = %v; want %v", url, cfg.Timeout, timeout)
		}
	}
}

// What cannot be used is named.
func TestParameterIsNamed(t *testing.T) {
	t.Parallel()
	for query, want := range map[string]string{
		"a=b&timeout=hunter2": "timeout", "tls=hunter2": "tls", "readTimeout=hunter2": "readTimeout",
		"allowCleartextPasswords=hunter2": "allowCleartextPasswords", "ssl=hunter2": "of ssl",
	} {
		err := CheckURL("mysql://u:hunter2@h/db?" + query)
		if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), want) {
			t.Errorf("CheckURL with %s = %v; want %s named", query, err, want)
		}
	}
	if cfg, err := parseURL("mysql://u:p@h/db?pool=5&foo=1"); err != nil || len(cfg.Params) != 3 {
		t.Errorf("parameters = %v, %v; want those of the session and foo", cfg, err)
	}
}

func TestURLThatCannotBeRead(t *testing.T) {
	t.Parallel()
	for _, url := range []string{
		"", "hunter2", "://hunter2", "mysql:hunter2", "mysql://u:hunter2@host:port/db", "mysql://u:hunter2@[::1/db",
		"mysql://u:hunter2@host/db?a=%zz",
		"mysql://u:hunter2@host", "mysql://u:hunter2@host/", "u:hunter2@tcp(host)/", "u:hunter2@tcp(host",
		"u:hunter2@tcp(host)/db?timeout=hunter2",
		"postgres://u:hunter2@host/db", "mysql://u:hunter2@host/db?tls=hunter2", "mysql://u:hunter2@host/db?sslmode=hunter2",
		"mysql://u:hunter2@host/db?ssl={hunter2", "mysql://u:hunter2@host/db?timeout=hunter2",
		"mysql://u:hunter2@host/db?ssl-ca=/nowhere",
	} {
		_, err := newConnector(url)
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("newConnector(%s) = %v; want an error without the password", url, err)
		}
	}
}
