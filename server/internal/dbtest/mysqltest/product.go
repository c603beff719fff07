package mysqltest

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/need"
)

// Product is what the servers of the tests are.
type Product string

// The products that tests tell apart.
const (
	MariaDB Product = "MariaDB"
	MySQL   Product = "MySQL"
	Vitess  Product = "Vitess"
)

// productOf asks a server what it is.
func productOf(ctx context.Context, db *sql.DB) (Product, error) {
	var version string
	if err := db.QueryRowContext(ctx, "select version()").Scan(&version); err != nil {
		return "", fmt.Errorf("ask for the version: %w", err)
	}
	for _, p := range []Product{MariaDB, Vitess} {
		if strings.Contains(version, string(p)) {
			return p, nil
		}
	}
	return MySQL, nil
}

var external = sync.OnceValues(func() (Product, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	db, err := open(os.Getenv("TEST_MYSQL_URL"))
	if err != nil {
		return "", err
	}
	defer func() { _ = db.Close() }() // there is nothing to flush
	return productOf(ctx, db)
})

// configured is what the server is that databases are made on.
func configured() (Product, error) {
	switch {
	case os.Getenv("TEST_MYSQL_URL") != "":
		return external()
	case os.Getenv(mysqlBin) != "":
		return MySQL, nil
	}
	return MariaDB, nil
}

// Ability is what a test needs of its servers beside databases.
type Ability string

// What not every product has.
const (
	// Own is that tests start servers of their own, which they stop, kill or configure.
	Own Ability = "servers of its own"
	// Clusters are servers that replicate each other, as MariaDB's do.
	Clusters Ability = "MariaDB's replication"
	// Users is that users are created.
	Users Ability = "users that it creates"
	// Counters is that the server counts what a session does.
	Counters Ability = "counters of a session"
	// Triggers is that triggers are created.
	Triggers Ability = "triggers"
	// OneShard is that a statement or transaction reaches all rows as one server.
	OneShard Ability = "all rows in one server"
	// ManyShards is that rows of different buckets are in different shards.
	ManyShards Ability = "a sharded database"
	// Sharding is that Vitess is started with shards of its own.
	Sharding Ability = "Vitess, whose shards it kills"
	// Views is that a view that is created can be dropped and read.
	Views Ability = "views"
)

const notVitess = "tools/engine.sh vitess4 has it"

// lacks says what a product has not, and who has it. This is the one place where it is
// decided that a test is not run on a product.
var lacks = map[Product]map[Ability]string{
	MariaDB: {
		Sharding: notVitess,
	},
	MySQL: {
		Sharding: notVitess,
		Clusters: "MYSQL_BIN chooses MySQL; run it without that too",
	},
	Vitess: {
		Own:      "a server that it starts would not be Vitess; run it on MySQL and MariaDB",
		Clusters: "a server that it starts would not be Vitess; run it on MariaDB",
		Users:    "vtgate has no statement that creates users",
		Counters: "sessions of MySQL are shared by those of vtgate, which prepares no statement there",
		Triggers: "vtgate has no statement that creates triggers",
	},
}

// sharded is what databases that tests take turns with have not besides, since each may
// be sharded.
var sharded = map[Ability]string{
	OneShard: "the database is sharded",
	Views:    "vtgate does not find views of a sharded keyspace",
}

// Has reports whether the servers are of a product that has something.
func Has(a Ability) (bool, error) {
	p, err := configured()
	return lacks[p][a] == "" && (sharded[a] == "" || !Named()), err
}

// Need skips tb if the servers are of a product that lacks something.
func Need(tb testing.TB, abilities ...Ability) {
	tb.Helper()
	need.Server(tb, need.MySQL)
	p, err := configured()
	if err != nil {
		tb.Fatalf("mysqltest: %v", err)
	}
	for _, a := range abilities {
		if why, ok := lacks[p][a]; ok {
			tb.Skipf("NOT RUN on %s: it needs %s: %s", p, a, why)
		}
		if a == ManyShards && !Named() {
			tb.Skipf("NOT RUN on %s: it needs %s: %s", p, a, notVitess)
		}
		if why, ok := sharded[a]; ok && Named() {
			tb.Skipf("NOT RUN on shards: it needs %s: %s", a, why)
		}
	}
}
