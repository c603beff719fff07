package mysql

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	gomysql "github.com/go-sql-driver/mysql"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/internal/sqllist"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/mysql/dbq"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/storetest"
)

// plansFile says where each statement runs on a keyspace that is sharded by bucket. Its
// lines are NAME: PLACE; NAME: PLACE, because REASON; or comments that begin with a #.
const plansFile = "testdata/vitess_plans.txt"

// The places where a statement runs.
const (
	onOneShard    = "one shard"
	onItsRows     = "shards of its rows" // of an insert
	onNamedShards = "named shards"
	rowByRow      = "row by row" // the gateway joins the rows of one statement with those of another
	onEveryShard  = "every shard"
	// onNone means that the gateway cannot plan it while it does not know the types of columns,
	// and that the store then sends its parts, which are noted with it.
	onNone = "refused"
)

// vitessPlan is how Vitess runs a statement; see tools/vitessplan.
type vitessPlan struct {
	Steps   []string
	Queries []string
	Alone   bool
	Joined  bool
	Pulled  bool
	Error   string
}

// place returns where the statement runs, or why it cannot.
func (p vitessPlan) place() string {
	is := func(variants ...string) bool {
		return !slices.ContainsFunc(p.Steps, func(step string) bool {
			_, variant, _ := strings.Cut(step, " ")
			return !slices.Contains(variants, variant)
		})
	}
	switch {
	case p.Error != "":
		return onNone
	case len(p.Steps) == 0:
		return "nowhere"
	case len(p.Steps) > 1 && (strings.HasPrefix(p.Steps[0], "Update ") || strings.HasPrefix(p.Steps[0], "Delete ")):
		return "by keys that are read first, without a lock"
	case p.Steps[0] == "Insert Select": // of what the gateway has read
		return onItsRows + ", from " + vitessPlan{Steps: p.Steps[1:], Joined: p.Joined}.place()
	case is("Sharded"):
		return onItsRows
	case !p.Joined && is("EqualUnique"): // of one bucket: what a step reads, the next one writes
		return onOneShard
	case p.Joined && is("EqualUnique", "IN", "MultiEqual"):
		return rowByRow
	case is("EqualUnique", "IN", "MultiEqual"):
		return onNamedShards
	case is("EqualUnique", "IN", "MultiEqual", "Scatter", "Reference"):
		return onEveryShard
	}
	return fmt.Sprintf("%q", p.Steps) // such as None, which does nothing and says nothing
}

// locking is a part of statements that lock what they read.
var locking = regexp.MustCompile(`(?i)\bfor\s+update\b(\s+(nowait|skip\s+locked)\b)?|\block\s+in\s+share\s+mode\b`)

// unlocked returns a query that the gateway sends without the lock of the statement. Vitess
// forgets it in a statement with a subquery, and says nothing.
func (p vitessPlan) unlocked(text string) string {
	lock := locking.FindString(text)
	if lock != "" && len(p.Queries) == 0 {
		return "nothing that is known"
	}
	for _, query := range p.Queries {
		if lock != "" && !strings.EqualFold(locking.FindString(query), lock) {
			return query
		}
	}
	return ""
}

// writes reports whether a statement with this plan changes or locks rows. A transaction
// does so in one shard, of which the statement itself is the first part.
func (p vitessPlan) writes(text string) bool {
	return locking.MatchString(text) || slices.ContainsFunc(p.Steps, func(step string) bool {
		operator, _, _ := strings.Cut(step, " ")
		return slices.Contains([]string{"Insert", "Update", "Delete"}, operator)
	})
}

// writeOfSeveral is a list of rows, each with its bucket, that a statement changes or locks.
// The gateway sends it to the shards of these buckets; that they are of one bucket where
// there are several shards is up to the method that sends it. The suite of the contract
// shows it on shards that refuse a transaction of several (tools/engine.sh vitess4).
var writeOfSeveral = regexp.MustCompile(`^((delete|lock)AgedSQL of .*|lockBodiesSQL|lockEventsSQL|lockStatesSQL|purgeEventsSQL)$`)

// scatters says whether a statement may change or lock rows of several shards, which no
// reason excuses: one of them can fail when another has committed, and a database may
// refuse it.
func (p vitessPlan) scatters(name, text string) bool {
	switch place := p.place(); {
	case !p.writes(text), place == onOneShard, place == onItsRows, place == onItsRows+", from "+onOneShard:
		return false
	default:
		return place != onNamedShards || !writeOfSeveral.MatchString(name)
	}
}

// vitessPlans plans statements with the planner of Vitess.
func vitessPlans(t *testing.T, statements map[string]string) map[string]vitessPlan {
	t.Helper()
	input, err := json.Marshal(map[string]any{"vschema": json.RawMessage(VSchema()), "statements": statements})
	if err != nil {
		t.Fatalf("Marshal = %v", err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "run", ".")
	cmd.Dir = filepath.Join("..", "..", "..", "..", "tools", "vitessplan")
	var out, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), &out, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("tools/vitessplan: %v\n%s", err, &stderr)
	}
	var plans map[string]vitessPlan
	if err := json.Unmarshal(out.Bytes(), &plans); err != nil {
		t.Fatalf("Unmarshal = %v", err)
	}
	return plans
}

// oneRow is the result of a statement whose text is all that is wanted. The next
// statement of a list follows.
type oneRow struct{}

func (oneRow) Scan(...any) error { return nil }

// allStatements are those that the store sends, each under a name that several share if
// they differ in what a filter selects.
func allStatements(t *testing.T) map[string][]string {
	t.Helper()
	all := make(map[string][]string)
	add := func(name, text string) {
		text = leadingComments.ReplaceAllString(text, "")
		if !slices.Contains(all[name], text) {
			all[name] = append(all[name], text)
		}
	}
	record := &recorder{}
	queries := reflect.ValueOf(dbq.New(record))
	for i := range queries.NumMethod() {
		name, method := queries.Type().Method(i).Name, queries.Method(i)
		arguments := []reflect.Value{reflect.ValueOf(t.Context())}
		switch method.Type().NumIn() {
		case 1:
		case 2:
			argument := reflect.New(method.Type().In(1)).Elem()
			sample(argument)
			if argument.Kind() == reflect.Struct {
				for f := range argument.NumField() { // a list of one would be no list
					if list := argument.Field(f); list.Kind() == reflect.Slice && list.Type().Elem().Kind() != reflect.Uint8 {
						list.Set(reflect.MakeSlice(list.Type(), 2, 2))
					}
				}
			}
			arguments = append(arguments, argument)
		default:
			continue // it does not send anything
		}
		if name == "WithTx" {
			continue
		}
		func() {
			defer func() { _ = recover() }() // of a scan of the row that is not there
			method.Call(arguments)
		}()
		add(name, record.text)
	}
	for where, text := range statements(t) {
		switch {
		case where == "MigrationSQL", where == text, strings.HasSuffix(where, ".sql"), strings.HasPrefix(where, "read "):
		default:
			add(where, text)
		}
	}
	v := versionQueries{}
	add("schema: InsertVersion", v.InsertVersion(schemaTable))
	add("schema: DeleteVersion", v.DeleteVersion(schemaTable))
	add("schema: GetMigrationByVersion", v.GetMigrationByVersion(schemaTable))
	add("schema: ListMigrations", v.ListMigrations(schemaTable))
	add("schema: GetLatestVersion", v.GetLatestVersion(schemaTable))
	for _, read := range storetest.Reads() {
		name := read.Name
		if f := reflect.ValueOf(read.Filter); f.Kind() == reflect.Struct {
			if room := f.FieldByName("Room"); room.IsValid() && !room.IsZero() {
				name += " of a room"
			}
		}
		run := func(_ context.Context, text string, _ []any, scan func(sqllist.Row) error) error {
			add(name, text)
			if strings.HasPrefix(text, "(") { // of several statements together
				return &gomysql.MySQLError{Number: 1235}
			}
			return scan(oneRow{})
		}
		same := func(_ context.Context, err error) error { return err }
		read.Call(t.Context(), &Store{Reader: sqllist.NewReader(lists, run, same, nil, 0)})
	}
	return all
}

// before returns the part of a text before a separator.
func before(text, separator string) string {
	text, _, _ = strings.Cut(text, separator)
	return text
}

// Every statement runs where the table says, on a keyspace that is sharded by bucket. A
// statement that Vitess plans to run nowhere would lose what it should write, and say
// nothing. One that changes or locks rows of several shards is refused.
func TestVitessPlans(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("NOT RUN: -short leaves out what compiles Vitess' planner; run without it before a merge")
	}
	all := allStatements(t)
	texts := make(map[string]string)
	for name, list := range all {
		for i, text := range list {
			texts[fmt.Sprintf("%s#%d", name, i)] = alone(text)
		}
	}
	// These must be refused, whatever the table says.
	scattering := map[string]string{
		"update of a table":  "update mirror_project set feed = null where feed is not null",
		"update of a room":   "update mirror_room set fetch_time = ? where project_id = ? and room_id = ?",
		"update by keys":     "update mirror_room set fetch_time = ? where bucket in (?, ?)",
		"delete":             "delete from mirror_audit where project_id = ?",
		"delete by keys":     purgeEventsSQL(2),
		"insert of a select": "insert into mirror_unannounced (project_id) select project_id from mirror_project",
		"lock":               strings.Replace(agedSQL(store.AgingTables[0]), "limit ?", "limit ? for update nowait", 1),
		"lock of a share":    "select room_id from mirror_room where project_id = ? lock in share mode",
	}
	maps.Copy(texts, scattering)
	// Vitess forgets the lock of the one, and may join the other with an equal read.
	waits := "exists (select 1 from " + store.AgingThreads.Columns().Waits + ")"
	unlocked := strings.Replace(lockAgedSQL(store.AgingThreads, 2), "select ", "select "+waits+", ", 1)
	texts["unlocked"], texts["joined"] = unlocked, "select room_id from mirror_room where bucket = ?"
	plans := vitessPlans(t, texts)
	if plan := plans["unlocked"]; plan.Error != "" || plan.unlocked(unlocked) == "" {
		t.Errorf("the plan %+v of %q is taken for one with a lock", plan, unlocked)
	}
	if plan := plans["joined"]; plan.Error != "" || plan.Alone {
		t.Errorf("the plan %+v of a read without a directive is taken for one with it", plan)
	}
	for name, text := range scattering {
		if plan := plans[name]; plan.Error != "" || !plan.scatters(name, text) {
			t.Errorf("the plan %+v of %q is taken for one of a single shard", plan, text)
		}
	}
	noted := make(map[string]string)
	b, err := os.ReadFile(plansFile)
	if err != nil {
		t.Fatalf("ReadFile = %v", err)
	}
	for line := range strings.Lines(string(b)) {
		// A name may have a colon of its own.
		line = strings.TrimSpace(line)
		if at := strings.LastIndex(before(line, ", because "), ": "); at > 0 && line[0] != '#' {
			name, place := line[:at], line[at+2:]
			place, reason, _ := strings.Cut(place, ", because ")
			noted[name] = place
			if reason == "" && (strings.Contains(place, onEveryShard) || strings.Contains(place, rowByRow) ||
				strings.Contains(place, onNone)) {
				t.Errorf("%s runs %s, and %s gives no reason", name, place, plansFile)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		var places []string
		for i, text := range all[name] {
			plan := plans[fmt.Sprintf("%s#%d", name, i)]
			places = append(places, plan.place())
			if plan.Error != "" && !strings.Contains(noted[name], onNone) {
				t.Errorf("%s is refused: %s", name, plan.Error)
			}
			if plan.Pulled {
				t.Errorf("%s has a subquery whose value may come without its type, or as null: %s", name, text)
			}
			if !plan.Alone && !plan.writes(text) {
				t.Errorf("%s may be answered with the result of an earlier read: %s", name, alone(text))
			}
			if query := plan.unlocked(text); query != "" {
				t.Errorf("%s reads without the lock that it asks for: %s\n%s", name, text, query)
			}
			if plan.scatters(name, text) {
				t.Errorf("%s changes or locks rows of several shards: %s\n%s", name, plan.place(), text)
			}
		}
		slices.Sort(places)
		place := strings.Join(slices.Compact(places), " or ")
		if place != noted[name] {
			t.Errorf("%s has %q for a statement that runs so:\n%s: %s\n%s", plansFile, noted[name], name, place, all[name][0])
		}
		delete(noted, name)
	}
	for name := range noted {
		t.Errorf("%s has %s, of which there is no statement", plansFile, name)
	}
}

// Each function or constant with a statement is among those that tests look at.
func TestStatementsAreListed(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatalf("Glob = %v", err)
	}
	var names []string
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatalf("ParseFile = %v", err)
		}
		for _, d := range parsed.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				names = append(names, d.Name.Name)
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					if v, ok := spec.(*ast.ValueSpec); ok {
						for _, name := range v.Names {
							names = append(names, name.Name)
						}
					}
				}
			}
		}
	}
	listed := strings.Join(slices.Collect(maps.Keys(statements(t))), "\n")
	seen := 0
	for _, name := range names {
		switch {
		case !strings.HasSuffix(name, "SQL"):
			continue
		case name == "selectSQL", name == "afterSQL", name == "newItemSQL": // parts of statements
			continue
		case name == "GrantSQL": // not run but printed
			continue
		}
		seen++
		if !strings.Contains(listed, name) {
			t.Errorf("%s is not among the statements that tests look at; add it in portable_test.go", name)
		}
	}
	if seen < 15 {
		t.Fatalf("only %d names were found", seen)
	}
}
