// Command bench measures the service against the limits of the machine it runs
// on. It builds the real binary, runs it on a database server of its own, an
// embedded PostgreSQL or a MariaDB, and measures it in turns with the least that
// could do the same work, against databases of the same server with the same
// tables. What counts are the ratios: they can be compared between machines, the
// numbers beside them cannot.
//
// It prints results and never fails because of them.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/engine"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench: "+err.Error())
		os.Exit(1)
	}
}

// run plays the role that the first argument names; without one it is the bench.
func run(ctx context.Context, args []string) error {
	if len(args) == 1 {
		switch args[0] {
		case "load":
			return play(ctx, runLoad)
		case "baseline":
			return play(ctx, runBaseline)
		case "fake":
			return play(ctx, runFake)
		case "echo":
			return play(ctx, runEcho)
		}
	}
	opt, err := parseOptions(args)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	return runBench(ctx, opt)
}

// play reads the settings of a role from the first line of the input, byte by
// byte: what follows is for the role.
func play[C any](ctx context.Context, role func(context.Context, C) error) error {
	var line []byte
	for b := make([]byte, 1); b[0] != '\n'; line = append(line, b[0]) {
		if _, err := io.ReadFull(os.Stdin, b); err != nil {
			return err
		}
	}
	var cfg C
	if err := json.Unmarshal(line, &cfg); err != nil {
		return err
	}
	return role(ctx, cfg)
}

// options are the settings of a run.
type options struct {
	only    string
	engine  string
	dir     string
	service string
	against string
	profile string
	quick   bool
	share   int

	conns             []int
	rounds            int
	warm, timed       time.Duration
	rooms, applyRooms int
	samples           int
	// rate is the events a second of parts e and h, freshWarm and freshTimed the parts of a
	// window there and in part i.
	rate                  int
	freshWarm, freshTimed time.Duration
	// stall is how long a watcher does not read in part i.
	stall time.Duration
	// oldRows is how many rows the tables of part k have, and aging the length of its windows.
	oldRows int
	aging   time.Duration
}

func parseOptions(args []string) (options, error) {
	o := options{
		conns: []int{1, 8, 32, 128}, rounds: 3,
		warm: 300 * time.Millisecond, timed: 1500 * time.Millisecond,
		rooms: 10_000, applyRooms: 2000, samples: 50,
		freshWarm: 2 * time.Second, freshTimed: 8 * time.Second, stall: time.Minute, aging: 10 * time.Second,
	}
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.StringVar(&o.only, "only", "a,b,c,d,e,f,g,h,i,j",
		"parts to measure: a webhooks, b reads, c fetch and apply, d webhook to row, e freshness under load, "+
			"f webhooks beside a held row and beside a list, g with many keys, h freshness beside a project that hangs, "+
			"i from the commit to clients that watch, j reads by Liveblocks' package for Node; and, if it is named, "+
			"k webhooks while old rows are deleted")
	f.StringVar(&o.engine, "engine", "postgres", "database engine: postgres or mysql")
	f.StringVar(&o.dir, "dir", "",
		"folder for the data, on the disk to measure; empty means the system's for temporary files")
	f.StringVar(&o.service, "service", "", "binary of the service; empty builds it")
	f.StringVar(&o.against, "against", "",
		"binary of another build of the service: measure this one against it, in parts a to c, and not against plain code")
	f.StringVar(&o.profile, "profile", "",
		"do not measure, but write processor profiles of the service in parts a to c into this folder")
	f.IntVar(&o.share, "share", 0,
		"in part b, let the callers share this many gRPC connections; 0 gives each its own, like to the database")
	var conns string
	f.StringVar(&conns, "conns", "",
		"numbers of connections in parts a and b, separated by commas; empty means 1,8,32,128, and 8,32 with -quick")
	f.IntVar(&o.rate, "rate", 0, "events a second in parts e and h; 0 means 400, and 100 with -quick")
	var rounds int
	f.IntVar(&rounds, "rounds", 0, "windows of each line; 0 means 3")
	f.IntVar(&o.oldRows, "rows", 0, "old rows of each table in part k; 0 means 1,000,000, and 50,000 with -quick")
	f.BoolVar(&o.quick, "quick", false, "short windows and few rooms, for development: the ratios swing")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if dialects[o.engine] == nil {
		return o, fmt.Errorf("there is no engine %q", o.engine)
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("%q is not a flag", f.Arg(0))
	}
	if o.quick {
		o.conns, o.warm, o.timed = []int{8, 32}, 200*time.Millisecond, 800*time.Millisecond
		o.rooms, o.applyRooms, o.samples = 2000, 400, 20
		o.freshWarm, o.freshTimed, o.stall, o.aging = time.Second, 3*time.Second, 45*time.Second, 3*time.Second
	}
	if o.against != "" {
		if o.profile != "" || !strings.ContainsAny(o.only, "abc") {
			return o, errors.New("-against measures parts a, b and c, and writes no profile")
		}
		if _, err := exec.LookPath(o.against); err != nil {
			return o, fmt.Errorf("-against: %w", err)
		}
	}
	if rounds > 0 {
		o.rounds = rounds
	}
	if o.rate == 0 {
		o.rate = 400
		if o.quick {
			o.rate = 100
		}
	}
	if o.oldRows == 0 {
		o.oldRows = 1_000_000
		if o.quick {
			o.oldRows = 50_000
		}
	}
	if conns != "" {
		o.conns = nil
		for word := range strings.SplitSeq(conns, ",") {
			n, err := strconv.Atoi(word)
			if err != nil || n < 1 || n > 250 {
				return o, fmt.Errorf("-conns: %q is no number from 1 to 250", word)
			}
			o.conns = append(o.conns, n)
		}
	}
	return o, nil
}

// part is one of the measurements.
type part struct {
	name string
	run  func(context.Context, *bench) error
}

func parts() []part {
	return []part{
		{"a", benchWebhooks},
		{"b", benchReads},
		{"c", benchApply},
		{"d", benchLatency},
		{"e", benchFreshness},
		{"f", benchHeld},
		{"g", benchKeys},
		{"h", benchFairness},
		{"i", benchWatch},
		{"j", benchREST},
		{"k", benchRetention},
	}
}

// bench is one run.
type bench struct {
	options
	out     io.Writer
	log     *slog.Logger
	self    string // this program
	started int    // processes so far
	server  server
	admin   database
}

func runBench(ctx context.Context, opt options) (err error) {
	b := &bench{options: opt, out: os.Stdout, log: slog.New(slog.DiscardHandler)}
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp(opt.dir, "liveblocks-mirror-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	// The database server may run as another account, which has to pass through.
	if err := os.Chmod(b.dir, 0o711); err != nil {
		return err
	}
	if err := b.build(ctx); err != nil {
		return err
	}
	if b.server, err = dialects[b.engine].start(ctx, b.dir); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.server.Stop(context.WithoutCancel(ctx))) }()
	if b.admin, err = connect(ctx, b.server.URL(), 1); err != nil {
		return err
	}
	defer b.admin.close()
	var version string
	if err := b.admin.get(ctx, &version, b.admin.version); err != nil {
		return err
	}
	fmt.Fprintf(b.out, "machine: %s\n", machine(b.admin.name+" "+version))
	turns := "in turns with the baselines; medians, and in brackets the lowest and highest ratio"
	if b.against != "" {
		turns = "in turns with the other build; medians, also of the ratios, and in brackets the lowest and highest ratio"
	}
	fmt.Fprintf(b.out, "windows: %d of %s after %s, %s\n", b.rounds, b.timed, b.warm, turns)
	fmt.Fprintf(b.out, "processor time is in microseconds an operation: server + %s + load generator; memory is the "+
		"server's peak in MiB\n", b.admin.name)
	begin := time.Now()
	chosen := slices.DeleteFunc(parts(), func(p part) bool { return !strings.Contains(b.only, p.name) })
	if b.against != "" {
		chosen = []part{{"of -against", benchAgainst}}
	}
	for _, p := range chosen {
		if err := p.run(ctx, b); err != nil {
			return fmt.Errorf("part %s: %w", p.name, err)
		}
	}
	fmt.Fprintf(b.out, "\ntook %s\n", time.Since(begin).Round(time.Second))
	return nil
}

// build builds the service as it is shipped.
func (b *bench) build(ctx context.Context) error {
	if b.service != "" || b.profile != "" {
		return nil
	}
	b.service = filepath.Join(b.dir, "liveblocks-mirror")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", b.service,
		"github.com/liveblocks-mirror/liveblocks-mirror/server/cmd/liveblocks-mirror")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the service: %w: %s", err, out)
	}
	return nil
}

// database makes a database with the service's tables.
func (b *bench) database(ctx context.Context, name string) (string, error) {
	u, err := b.emptyDatabase(ctx, name)
	if err != nil {
		return "", err
	}
	return u, engine.Migrate(ctx, u, b.log)
}

// emptyDatabase makes a database without tables.
func (b *bench) emptyDatabase(ctx context.Context, name string) (string, error) {
	if err := b.admin.exec(ctx, "create database "+name); err != nil {
		return "", err
	}
	u, err := url.Parse(b.server.URL())
	if err != nil {
		return "", err
	}
	u.Path = "/" + name
	return u.String(), nil
}

// settings are those of the service; the rest is as users have it.
func settings(database, upstream string, more ...string) map[string]string {
	env := map[string]string{
		"DATABASE_URL":     database,
		"MIRROR_HTTP_ADDR": "127.0.0.1:0",
		// The fake has no list of its rooms.
		"MIRROR_SWEEP_INTERVAL":      "0",
		"MIRROR_FULL_SWEEP_INTERVAL": "0",
		"MIRROR_GRPC_ADDR":           "127.0.0.1:0",
		"LIVEBLOCKS_SECRET_KEY":      "sk_bench",
		"LIVEBLOCKS_WEBHOOK_SECRET":  secret,
		"LIVEBLOCKS_BASE_URL":        "http://" + upstream,
	}
	for i := 0; i+1 < len(more); i += 2 {
		env[more[i]] = more[i+1]
	}
	return env
}

// callsPerSecond is the setting that bounds calls to Liveblocks.
const callsPerSecond = "MIRROR_LIVEBLOCKS_CALLS_PER_SECOND"

// unbounded is as many calls as the client allows for.
const unbounded = "100000"
