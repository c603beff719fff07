package doctor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/ingest/webhook"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/app"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/config"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/engine"
)

const (
	// databaseSkew is by how much the clock of the database may differ. Nothing depends on
	// it but people who compare times.
	databaseSkew = 10 * time.Second
	// packet is the least max_allowed_packet that is no warning: MariaDB's default. A
	// larger document needs more.
	packet = 16 << 20
	// diskWarn and diskFail are how much of a disk has to be free.
	diskWarn, diskFail = 1 << 30, 128 << 20
	// conns is how many connections a diagnosis opens.
	conns = 2
)

// database checks the database and what is in it.
func (d *doctor) database(ctx context.Context) []Finding {
	const check = "database"
	switch err := d.serve.Database.Validate(); {
	case d.wrong["DATABASE_URL"] != nil:
		return []Finding{skip(check, "DATABASE_URL cannot be read")}
	case err != nil:
		return []Finding{skip(check, "the settings lead to none: %v", err)}
	case d.serve.DatabaseURL.Reveal() == "":
		return d.embedded()
	}
	s, err := engine.Open(ctx, engine.Config{
		URL: d.serve.URL(), Pooled: d.serve.Pooled(), MaxConns: conns, ReadTimeout: d.Limit,
	})
	if err != nil {
		return []Finding{failed(check, paragraphDatabase, err, "correct DATABASE_URL")}
	}
	defer s.Close()
	return d.stored(ctx, s)
}

// stored checks a database that is not the embedded one.
func (d *doctor) stored(ctx context.Context, s store.Store) (list []Finding) {
	const check = "database"
	notes := &notes{}
	first, cancel := d.step(ctx)
	checked := s.Check(first, slog.New(notes))
	cancel()
	second, cancel := d.step(ctx)
	before := d.Now()
	facts, err := s.Inspect(second)
	middle := before.Add(d.Now().Sub(before) / 2)
	cancel()
	where := host(d.serve.DatabaseURL.Reveal())
	switch {
	case err != nil && checked != nil && fault.Of(checked).Kind != fault.Unavailable:
		return []Finding{failed(check, paragraphDatabase, checked, "correct DATABASE_URL, or the rights of its user")}
	case err != nil:
		return []Finding{fail(check, paragraphDatabase, fmt.Sprintf("cannot use %s: %v", where, err),
			"check DATABASE_URL, and that the server runs and accepts connections from this machine")}
	}
	list = append(list, d.reached(where, facts))
	for _, text := range notes.list() {
		list = append(list, failed(check, paragraphDatabase, errors.New(text), "see the paragraph"))
		list[len(list)-1].Verdict = Warn
	}
	list = append(list, rights(checked, facts), schema(facts), databaseClock(facts.Now.Sub(middle)))
	if facts.MaxPacket > 0 {
		list = append(list, packets(facts.MaxPacket))
	}
	list = append(list, ids(facts.Inexact)...)
	if facts.Schema < facts.Wanted {
		return append(list, skip("removed projects", "the schema is not that of this version"),
			skip("webhooks", "the schema is not that of this version"))
	}
	third, cancel := d.step(ctx)
	defer cancel()
	switch err := s.Ping(third); {
	case errors.Is(err, store.ErrReadOnly):
		list = append(list, fail(check, paragraphFailover, where+" takes no writes: it is a standby, or was set read-only",
			"let DATABASE_URL lead to the primary"))
	case err != nil:
		list = append(list, failed(check, paragraphDatabase, err, "see the log of the database"))
	}
	return append(list, d.contents(ctx, s)...)
}

// host names a server without the secrets of its URL.
func host(raw string) string {
	if u, err := url.Parse(raw); err == nil && u.Host != "" {
		return "the database at " + u.Host
	}
	return "the database"
}

// reached judges the way to the database.
func (d *doctor) reached(where string, facts store.Server) Finding {
	const check = "database"
	seen := where + " is " + facts.Engine
	if facts.Pooled {
		seen += ", behind a pooler"
	}
	switch {
	case facts.Encrypted:
		seen += ", with TLS"
	case facts.Local:
		seen += ", on this machine"
	default:
		advice := "add sslmode=require to the parameters of DATABASE_URL"
		if !engine.IsPostgres(d.serve.DatabaseURL.Reveal()) {
			advice = "add tls=true to the parameters of DATABASE_URL"
		}
		return warn(check, paragraphDatabase, seen+", without TLS: who is on the way reads everything", advice)
	}
	return ok(check, "%s", seen)
}

// rights judges what the user may do.
func rights(checked error, facts store.Server) Finding {
	const check = "database rights"
	switch {
	case checked != nil:
		return failed(check, paragraphDatabase, checked,
			"give the user the rights of `liveblocks-mirror migrate --print-grants`")
	case facts.MayMigrate:
		return ok(check, "rows may be read and written, and tables altered")
	}
	return ok(check, "rows may be read and written; tables are altered by another user")
}

// schema judges the version of the schema.
func schema(facts store.Server) Finding {
	const check = "schema"
	seen := fmt.Sprintf("version %d, and this version needs %d", facts.Schema, facts.Wanted)
	if facts.Schema == 0 {
		seen = "there are no tables"
	}
	switch {
	case facts.Schema < facts.Wanted && !facts.MayMigrate:
		return fail(check, paragraphSchema, seen, "run `liveblocks-mirror migrate` with the DATABASE_URL of the user that "+
			"owns the tables: this one may not create or alter them")
	case facts.Schema < facts.Wanted:
		return fail(check, paragraphSchema, seen, "run `liveblocks-mirror migrate`")
	case facts.Schema > facts.Wanted:
		return warn(check, paragraphSchema, seen, "use the newer version of the program here too")
	}
	return ok(check, "version %d, as needed", facts.Schema)
}

// databaseClock judges by how much the clock of the database is ahead of this machine's.
func databaseClock(ahead time.Duration) Finding {
	const check = "database clock"
	if ahead.Abs() > databaseSkew {
		return warn(check, paragraphClock, "the clock of the database is "+difference(ahead)+" that of this machine",
			"set the clock that is wrong, such as with `timedatectl set-ntp true`")
	}
	return ok(check, "within %v of this machine's", databaseSkew)
}

// difference says how a clock that is ahead by some time compares to another.
func difference(ahead time.Duration) string {
	if ahead < 0 {
		return ahead.Abs().Round(time.Second).String() + " behind"
	}
	return ahead.Round(time.Second).String() + " ahead of"
}

// packets judges the size of MySQL's packets.
func packets(size int64) Finding {
	const check = "max_allowed_packet"
	seen := fmt.Sprintf("%.0f MiB", float64(size)/(1<<20))
	if size < packet {
		return warn(check, paragraphDatabase, seen+": documents whose compressed content is larger are not mirrored",
			"as an administrator, run: set global max_allowed_packet = 67108864; set it in the server's configuration too, and "+
				"restart the service")
	}
	return ok(check, "%s", seen)
}

// ids judges the columns of ids.
func ids(inexact []store.InexactColumn) (list []Finding) {
	const check = "ids"
	for _, c := range inexact {
		list = append(list, fail(check, paragraphDatabase,
			fmt.Sprintf("%s.%s does not compare bytes: different ids can be taken for the same", c.Table, c.Column),
			"stop the service, and as the owner of the tables, run: "+c.Mend))
	}
	if len(list) == 0 {
		list = append(list, ok(check, "columns of ids compare bytes"))
	}
	return list
}

// contents checks what is stored.
func (d *doctor) contents(ctx context.Context, s store.Store) []Finding {
	ctx, cancel := d.step(ctx)
	defer cancel()
	if d.projectsErr != nil {
		return []Finding{
			skip("removed projects", "it is not known which projects are configured"),
			skip("webhooks", "it is not known which projects are configured"),
		}
	}
	stored, err := s.ProjectIDs(ctx)
	if err != nil {
		return []Finding{failed("removed projects", paragraphDatabase, err, "see the log of the database")}
	}
	var gone []string
	for _, id := range stored {
		if !slices.ContainsFunc(d.projects, func(p config.Project) bool { return p.ID() == id }) {
			gone = append(gone, string(id))
		}
	}
	list := removed(gone)
	for _, p := range d.projects {
		list = append(list, d.history(ctx, s, p)...)
	}
	return list
}

// removed judges projects that are not in the settings.
func removed(gone []string) (list []Finding) {
	const check = "removed projects"
	for _, id := range gone {
		list = append(list, warn(check, paragraphRemoved,
			fmt.Sprintf("project %s has rows and no settings: it is neither served nor fetched", id),
			fmt.Sprintf("give it its settings again, or delete its rows with `liveblocks-mirror projects purge %s --yes`", id)))
	}
	if len(list) == 0 {
		list = append(list, ok(check, "none has rows left"))
	}
	return list
}

// unannouncedShown is how long after the last change without an event they are a warning.
const unannouncedShown = 24 * time.Hour

// history checks what is stored of one project.
func (d *doctor) history(ctx context.Context, s store.Store, p config.Project) (list []Finding) {
	project, err := s.Project(ctx, p.ID())
	var events mirror.LastEvents
	if err == nil {
		events, err = s.LastEvents(ctx, p.ID(), webhook.Types())
	}
	var changes []mirror.Unannounced
	if err == nil {
		changes, err = s.Unannounced(ctx, p.ID())
	}
	if err != nil {
		return []Finding{failed("webhooks", paragraphDatabase, err, "see the log of the database").of(p)}
	}
	return []Finding{fetching(project).of(p), webhooks(events, changes, d.Now()).of(p)}
}

// fetching judges whether a project is fetched.
func fetching(p mirror.Project) Finding {
	const check = "fetching"
	switch stopped := p.Stopped(); {
	case stopped != "":
		return warn(check, paragraphPaused, "paused "+mirror.StoppedByOperator+p.StopReason, "run `liveblocks-mirror resume`")
	case p.PauseReason != "":
		return fail(check, paragraphPaused, "paused: "+p.PauseReason, "set the right LIVEBLOCKS_SECRET_KEY and restart")
	case p.LiveblocksID == "":
		return ok(check, "not paused; no project of Liveblocks is pinned yet")
	}
	return ok(check, "not paused; pinned to the project %s of Liveblocks", p.LiveblocksID)
}

// webhooks compares the last event with what sweeps have found.
func webhooks(events mirror.LastEvents, changes []mirror.Unannounced, now time.Time) Finding {
	const check = "webhooks"
	found, since := int64(0), now
	for _, c := range changes {
		if now.Sub(c.LastTime) < unannouncedShown {
			found += c.Count
			if c.FirstTime.Before(since) {
				since = c.FirstTime
			}
		}
	}
	last := "the last one came at " + events.Time.UTC().Format(time.RFC3339)
	const endpoint = "in the Liveblocks dashboard under Webhooks, check that the endpoint is enabled and leads to this " +
		"service"
	switch {
	case found > 0 && events.Time.IsZero():
		return fail(check, paragraphEvents, fmt.Sprintf("none has ever come, and sweeps found %d changes", found), endpoint)
	case found > 0 && events.Time.Before(since):
		return fail(check, paragraphEvents, fmt.Sprintf("%s, and sweeps have found %d changes since", last, found), endpoint)
	case found > 0:
		return warn(check, paragraphUnannounced,
			fmt.Sprintf("%s, but of %d changes that sweeps found none told", last, found),
			"in the Liveblocks dashboard under Webhooks, choose all types of events for the endpoint")
	case events.Time.IsZero():
		return warn(check, paragraphEvents, "none has ever come", "in the Liveblocks dashboard under Webhooks, add an "+
			"endpoint that leads to this service, and choose all types of events")
	}
	return ok(check, "%s", last)
}

// embedded checks the directory of the embedded PostgreSQL. It is not started: the service
// may be using it.
func (d *doctor) embedded() []Finding {
	const check = "database"
	dir, err := app.DataDir(d.serve.Database)
	if err != nil {
		return []Finding{failed(check, paragraphDatabase, err, "set MIRROR_DATA_DIR")}
	}
	there := existing(dir)
	var list []Finding
	if info, err := os.Stat(there); err != nil || !info.IsDir() || unix.Access(there, unix.W_OK) != nil {
		list = append(list, fail(check, paragraphDatabase, fmt.Sprintf("the embedded PostgreSQL is to be in %s, where this "+
			"user may not write", dir), fmt.Sprintf("make %s a directory that this user may write to, or set "+
			"MIRROR_DATA_DIR to one", dir)))
	} else {
		list = append(list, ok(check, "the embedded PostgreSQL in %s; only the running service is asked about it", dir))
	}
	return append(list, d.disk(there), skip("removed projects", "the running service tells"),
		skip("webhooks", "the running service tells"))
}

// existing returns the directory, or the nearest one above it that is there.
func existing(dir string) string {
	for {
		if _, err := os.Stat(dir); err == nil || filepath.Dir(dir) == dir {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}

// disk judges how much space is left for the embedded PostgreSQL.
func (d *doctor) disk(dir string) Finding {
	const check = "disk"
	free, size, err := d.Free(dir)
	if err != nil {
		return skip(check, "the system does not tell how much is free: %v", err)
	}
	seen := fmt.Sprintf("%.1f of %.1f GiB are free in %s", float64(free)/(1<<30), float64(size)/(1<<30), dir)
	const advice = "free some space, or move the directory to a larger disk and set MIRROR_DATA_DIR"
	switch {
	case free < diskFail:
		return fail(check, paragraphDisk, seen, advice)
	case free < diskWarn:
		return warn(check, paragraphDisk, seen, advice)
	}
	return ok(check, "%s", seen)
}

// Free asks the system how much of a disk is free for this user, and how large it is.
func Free(dir string) (free, size int64, err error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(dir, &stat); err != nil {
		return 0, 0, err
	}
	block := int64(stat.Bsize)        //nolint:unconvert // of another type on other systems
	free = int64(stat.Bavail) * block //nolint:gosec // disks are smaller
	size = int64(stat.Blocks) * block //nolint:gosec // disks are smaller
	return free, size, nil
}

// notes keeps warnings that would be logged.
type notes struct {
	mu    sync.Mutex
	texts []string
}

// Enabled takes warnings and errors.
func (*notes) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }

// Handle keeps a record.
func (n *notes) Handle(_ context.Context, r slog.Record) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.texts = append(n.texts, strings.TrimSpace(r.Message))
	return nil
}

// WithAttrs changes nothing.
func (n *notes) WithAttrs([]slog.Attr) slog.Handler { return n }

// WithGroup changes nothing.
func (n *notes) WithGroup(string) slog.Handler { return n }

func (n *notes) list() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.texts)
}
