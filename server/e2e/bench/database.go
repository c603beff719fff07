package main

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/engine"
)

// dialect is a database engine: how a server of it is run, and the plain way to
// do there what the service does.
type dialect struct {
	name     string // the server's
	driver   string // the plain way to it
	document string // the type of the column that documents are in

	start   func(ctx context.Context, dir string) (server, error)
	connect func(ctx context.Context, url string, conns int) (conn, error)
	// listen has told called with each notification from now on; nil if there are none.
	listen func(ctx context.Context, url string, told func(string)) error

	// Statements that engines spell differently.
	version     string                    // the server's
	insertEvent string                    // the row of the ledger that the service writes, and no other
	upsert      string                    // a document, into the table the service writes it into
	guideTable  string                    // that of the Liveblocks guides
	guideUpsert string                    // a document, into that table
	revision    string                    // that of a room's document, out of that table or the view in its place
	revisions   string                    // those of lookAt rooms as words of the form room=revision
	length      string                    // that of a document as it will be read
	idle        string                    // whether nothing is due
	tidy        func(table string) string // after it was filled
	size        func(table string) string // of what it takes of the disk
	series      func(n int) string        // a table expression of the numbers n from 1 on
	echo        string                    // a row of a time, and its notification
}

// dialects are those that can be asked for.
var dialects = map[string]*dialect{"postgres": &postgres, "mysql": &mysql}

// lookAt is the number of rooms whose revisions one statement reads.
const lookAt = 16

// revisionsOf is the end of a statement about the documents of lookAt rooms.
var revisionsOf = func() string {
	places := make([]string, lookAt)
	for i := range places {
		places[i] = "$" + strconv.Itoa(i+1)
	}
	return " from liveblocks_documents where room_id in (" + strings.Join(places, ", ") + ")"
}()

// lookUp reads the revisions of rooms that have a document.
func (db database) lookUp(ctx context.Context, rooms []string) (map[string]int64, error) {
	revisions := make(map[string]int64, len(rooms))
	for some := range slices.Chunk(rooms, lookAt) {
		args := make([]any, lookAt)
		for i := range args {
			args[i] = some[min(i, len(some)-1)]
		}
		var text string
		if err := db.get(ctx, &text, db.revisions, args...); err != nil {
			return nil, err
		}
		for _, word := range strings.Fields(text) {
			room, revision, _ := strings.Cut(word, "=")
			n, err := strconv.ParseInt(revision, 10, 64)
			if err != nil {
				return nil, err
			}
			revisions[room] = n
		}
	}
	return revisions, nil
}

// server is a database server of this run.
type server interface {
	Pid() int
	URL() string
	Stop(ctx context.Context) error
}

// conn is one connection or a pool of them. In statements, values go where $1,
// $2 and so on stand, in this order. Statements are prepared once.
type conn interface {
	exec(ctx context.Context, query string, args ...any) error
	// get reads the one value that a query returns.
	get(ctx context.Context, value any, query string, args ...any) error
	// record writes the rows of events in one statement and one commit.
	record(ctx context.Context, events []*mirror.Event) error
	close()
}

// database is the plain way to a database.
type database struct {
	*dialect
	conn
}

// connect leads to a database by as many connections at most; one is opened at
// once and is no pool, if there can be such a thing.
func connect(ctx context.Context, url string, conns int) (database, error) {
	d := &mysql
	if engine.IsPostgres(url) {
		d = &postgres
	}
	c, err := d.connect(ctx, url, conns)
	return database{d, c}, err
}

// eventRow is what an event's row is made of, in the order of the columns.
func eventRow(ev *mirror.Event) []any {
	return []any{
		ev.Bucket(), string(ev.Project), ev.ID, ev.Type, string(ev.Room), ev.User,
		ev.LiveblocksProject, ev.Payload, ev.SendTime, ev.ReceiveTime, ev.SourceTime, string(ev.Outcome),
	}
}

// readSQL is the plain way to read a document.
const readSQL = `select data from mirror_document where bucket = $1 and project_id = $2 and room_id = $3 and kind = 2 and resource_id = ''`
