// Command liveblocks-mirror keeps a SQL database equal to a Liveblocks project.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	_ "golang.org/x/crypto/x509roots/fallback" // for containers that have no certificates of authorities

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/app"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/cli"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/config"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/demo"
)

// version is set by the linker; see [builtFrom].
var version string

// Exit codes.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2 // an argument or a setting is wrong
	exitDrift   = 3 // the mirror differs from Liveblocks
)

type commands struct {
	ShowVersion kong.VersionFlag `name:"version" short:"v" help:"Print the version."`

	ConfigFile string `name:"config" env:"MIRROR_CONFIG" type:"path" placeholder:"FILE" help:"Configuration file. Each line sets one environment variable. Flags and the environment override it. A variable with _FILE appended names a file that contains the value."`

	Serve   serveCmd   `cmd:"" help:"Run the service."`
	Migrate migrateCmd `cmd:"" help:"Migrate the database schema."`

	Status   cli.Status   `cmd:"" help:"Show the status of the running service."`
	Tasks    cli.Tasks    `cmd:"" help:"List, show, retry and discard tasks."`
	Events   cli.Events   `cmd:"" help:"List, show and replay recorded webhooks."`
	Erase    cli.Erase    `cmd:"" help:"Erase what only the mirror has of a user, or what a deleted room has left, for good."`
	Audit    cli.Audit    `cmd:"" help:"List who did what, and whose calls were refused."`
	Resync   cli.Resync   `cmd:"" help:"Make the running service fetch a room, or one resource in it, again."`
	Backfill cli.Backfill `cmd:"" help:"Make the running service fetch everything again, and show the progress."`
	Verify   cli.Verify   `cmd:"" help:"Make the running service compare the mirror with Liveblocks. Exits with 3 if they differ."`
	Follow   cli.Follow   `cmd:"" help:"Print what changes in the mirror, as it happens, until an interrupt."`
	Pause    cli.Pause    `cmd:"" help:"Stop all calls to Liveblocks. Webhooks are still recorded."`
	Resume   cli.Resume   `cmd:"" help:"Let calls to Liveblocks go on."`
	Project  cli.Project  `cmd:"" help:"Tell the running service what an operator knows about the Liveblocks project."`

	CallMethod cli.CallMethod `cmd:"" name:"call" help:"Make any call of the API, and print its answers as JSON."`

	Feed        feedCmd        `cmd:"" help:"Look after the feed of changes."`
	Purge       purgeCmd       `cmd:"" help:"Delete what is mirrored no more, for good."`
	Keys        keysCmd        `cmd:"" help:"Make, list and check the keys of those who may call the service."`
	Projects    projectsCmd    `cmd:"" help:"List the projects in the database, and delete the rows of those that were removed from the settings."`
	Doctor      cli.Doctor     `cmd:"" help:"Look for what is wrong with settings, database, Liveblocks, service and webhooks, and say what to do. Exits with 1 if a check fails."`
	Config      cli.Config     `cmd:"" name:"config" help:"Show the settings."`
	Healthcheck healthcheckCmd `cmd:"" help:"Ask the running service whether it works, for a container's health check. Exits with 0 or 1."`
	Completion  cli.Completion `cmd:"" help:"Print a script that completes commands in a shell."`
	Demo        demoCmd        `cmd:"" help:"Try the service on this machine with a built-in fake Liveblocks. Needs no account and no database."`
	Version     versionCmd     `cmd:"" help:"Print the version."`
}

type serveCmd struct {
	config.Serve
	config.Log `group:"Log"`
}

func (c *serveCmd) Run(ctx context.Context, unknown config.Unknown) error {
	log := c.Logger(os.Stderr)
	unknown.Warn(ctx, log)
	app.LogGRPC(log)
	return app.Run(ctx, c.Serve, version, log)
}

type migrateCmd struct {
	PrintSQL    bool `name:"print-sql" help:"Print the SQL for an empty database instead of running it: for whoever may create tables, for review, or for a PlanetScale deploy request. It is for PostgreSQL if DATABASE_URL is, otherwise for MySQL. Nothing connects to the database."`
	PrintGrants bool `name:"print-grants" help:"Print the SQL that makes database roles with least rights, instead of migrating: one that owns the tables, one for the service, and one that reads the views. Run it as an administrator before the first migrate and again after it. It holds no password. It is for PostgreSQL if DATABASE_URL is, otherwise for MySQL. Nothing connects to the database."`

	PrintVSchema bool `name:"print-vschema" help:"Print the VSchema for a sharded keyspace of Vitess or PlanetScale, which has to be in place before the tables. Nothing connects to the database."`

	cli.Format
	config.Roles    `group:"Database"`
	config.Database `group:"Database"`
	config.Log      `group:"Log"`
}

// Validate checks the settings.
func (c *migrateCmd) Validate() error {
	if c.JSON && (c.PrintSQL || c.PrintGrants || c.PrintVSchema) {
		return &config.Error{Setting: "--json", Problem: "cannot be combined with --print-sql, --print-grants or " +
			"--print-vschema, which print what a database reads; leave it out"}
	}
	return cmp.Or(c.Database.Validate(), c.Roles.Validate())
}

func (c *migrateCmd) Run(ctx context.Context) error {
	switch {
	case c.PrintSQL:
		return app.PrintMigrations(c.Database, os.Stdout)
	case c.PrintVSchema:
		return app.PrintVSchema(os.Stdout)
	case c.PrintGrants:
		return app.PrintGrants(c.Database, c.Roles, os.Stdout)
	}
	if err := app.Migrate(ctx, c.Database, c.Roles, c.Logger(os.Stderr)); err != nil {
		return err
	}
	current := struct {
		Migrated bool `json:"migrated"`
	}{true}
	return c.Print(os.Stdout, current, func(io.Writer) {}) // people see it in the log
}

type feedCmd struct {
	Reset feedResetCmd `cmd:"" help:"Make all who follow the changes start again, after a restore or a failover that lost commits. Without --yes, only say so."`
}

type feedResetCmd struct {
	Yes bool `name:"yes" help:"Do it."`

	cli.Format
	config.Database `group:"Database"`
	config.Log      `group:"Log"`
}

// Validate checks the database settings.
func (c *feedResetCmd) Validate() error { return c.Database.Validate() }

func (c *feedResetCmd) Run(ctx context.Context) error {
	result, err := app.ResetFeed(ctx, c.Database, c.Yes, c.Logger(os.Stderr))
	return show(c.Format, result, err)
}

// show prints a result, or what was done before an error.
func show(format cli.Format, result app.Result, err error) error {
	if result == nil {
		return err
	}
	return errors.Join(err, format.Print(os.Stdout, result, result.Say))
}

type purgeCmd struct {
	Rooms purgeRoomsCmd `cmd:"" help:"Delete what deleted rooms have left in the tables. Without --yes, only count it."`
}

type purgeRoomsCmd struct {
	DeletedBefore time.Duration `name:"deleted-before" required:"" placeholder:"DURATION" help:"Only rooms that were found to be deleted longer ago than this, such as 720h."`
	Yes           bool          `name:"yes" help:"Delete."`

	cli.Format
	config.OneProject
	config.Database `group:"Database"`
	config.Log      `group:"Log"`
}

// Validate refuses a time to come.
func (c *purgeRoomsCmd) Validate() error {
	if c.DeletedBefore < 0 {
		return &config.Error{Setting: "--deleted-before", Problem: "must not be negative"}
	}
	return c.Database.Validate()
}

func (c *purgeRoomsCmd) Run(ctx context.Context) error {
	project, err := c.ID()
	if err != nil {
		return err
	}
	result, err := app.PurgeRooms(ctx, c.Database, app.Purge{
		Project: string(project), DeletedBefore: c.DeletedBefore, Delete: c.Yes,
	}, c.Logger(os.Stderr))
	return show(c.Format, result, err)
}

type keysCmd struct {
	New   newKeyCmd    `cmd:"" help:"Make a key and print it, with the lines for the keys file. The key is shown only now."`
	List  listKeysCmd  `cmd:"" help:"List the keys of the keys file, and what they may do."`
	Check checkKeysCmd `cmd:"" help:"Check the keys file."`
}

type newKeyCmd struct {
	Name       string   `name:"name" required:"" placeholder:"TEXT" help:"Whose key it is, for people."`
	Scope      []string `name:"scope" required:"" placeholder:"SCOPE" help:"What the key may do, separated by commas, such as read,events. An unknown scope is answered with the list of all."`
	Project    []string `name:"project" default:"default" placeholder:"ID" help:"Local ids of the projects that it sees, separated by commas. * means all."`
	RoomPrefix []string `name:"room-prefix" sep:"none" placeholder:"TEXT" help:"It sees only rooms whose id begins with this text, such as team-a: with the colon. May be given several times."`
	Expires    string   `name:"expires" placeholder:"WHEN" help:"When it ends: a date, a time, or a duration such as 2160h. If empty, never."`
	Add        bool     `name:"add" help:"Add it to the keys file, and print only the key."`

	cli.Format
	config.Keys `group:"Keys"`
}

func (c *newKeyCmd) Run() error {
	return cli.NewKey(cli.KeyOptions{
		Name: c.Name, Scopes: c.Scope, Projects: c.Project, RoomPrefixes: c.RoomPrefix, Expires: c.Expires,
	}, c.KeysFile, c.Add, time.Now(), c.Format, os.Stdout, os.Stderr)
}

type listKeysCmd struct {
	cli.Format

	config.Keys `group:"Keys"`
}

func (c *listKeysCmd) Run() error { return cli.ListKeys(c.KeysFile, time.Now(), c.Format, os.Stdout) }

type checkKeysCmd struct {
	cli.Format

	Stdin bool `name:"stdin" help:"Read a key from standard input, and check that the file has it."`

	config.Keys `group:"Keys"`
}

func (c *checkKeysCmd) Run() error {
	key := ""
	if c.Stdin {
		text, err := io.ReadAll(io.LimitReader(os.Stdin, 1<<10))
		if err != nil {
			return err
		}
		if key = strings.TrimSpace(string(text)); key == "" {
			return &config.Error{Setting: "--stdin", Problem: "is set, but standard input has no key"}
		}
	}
	return cli.CheckKeys(c.KeysFile, key, time.Now(), c.Format, os.Stdout)
}

type projectsCmd struct {
	List  projectsListCmd  `cmd:"" help:"List the configured projects, and those that were removed and still have rows."`
	Purge projectsPurgeCmd `cmd:"" help:"Delete the rows of a project that was removed from the settings, for good. Without --yes, only count them."`
}

type projectsListCmd struct {
	cli.Format
	config.Configured
	config.Database `group:"Database"`
	config.Log      `group:"Log"`
}

// Validate checks the database settings.
func (c *projectsListCmd) Validate() error { return c.Database.Validate() }

func (c *projectsListCmd) Run(ctx context.Context) error {
	configured, err := c.IDs()
	if err != nil {
		return err
	}
	result, err := app.ListProjects(ctx, c.Database, configured, c.Logger(os.Stderr))
	return show(c.Format, result, err)
}

type projectsPurgeCmd struct {
	Project string `arg:"" name:"project" help:"Local id of the project that was removed."`
	Yes     bool   `name:"yes" help:"Delete."`

	cli.Format
	config.Configured
	config.Database `group:"Database"`
	config.Log      `group:"Log"`
}

// Validate checks the database settings.
func (c *projectsPurgeCmd) Validate() error { return c.Database.Validate() }

func (c *projectsPurgeCmd) Run(ctx context.Context) error {
	configured, err := c.IDs()
	if err != nil {
		return err
	}
	progress := os.Stdout
	if c.JSON {
		progress = os.Stderr
	}
	result, err := app.PurgeProject(ctx, c.Database, configured, c.Project, c.Yes, progress, c.Logger(os.Stderr))
	return show(c.Format, result, err)
}

type healthcheckCmd struct {
	cli.Format
	config.Client `group:"Service"`
}

func (c *healthcheckCmd) Run(ctx context.Context) error {
	return cli.Healthcheck(ctx, c.Client, c.Format, os.Stdout)
}

type demoCmd struct {
	demo.Config

	LogLevel slog.Level `name:"log-level" default:"warn" help:"Minimum log level: debug, info, warn or error."`
}

func (c *demoCmd) Run(ctx context.Context) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: c.LogLevel}))
	app.LogGRPC(log)
	return demo.Run(ctx, c.Config, version, os.Stdout, log)
}

type versionCmd struct{ cli.Format }

func (c *versionCmd) Run() error {
	known := struct {
		Version string `json:"version"`
	}{version}
	return c.Print(os.Stdout, known, func(w io.Writer) { _, _ = fmt.Fprintln(w, versionLine()) })
}

func versionLine() string { return "liveblocks-mirror " + version }

// builtFrom is the version of a program that was built without make: that of the
// module, which has the commit in it, where the go command knows one.
func builtFrom(info *debug.BuildInfo, ok bool) string {
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "unknown"
	}
	return info.Main.Version
}

func main() {
	version = cmp.Or(version, builtFrom(debug.ReadBuildInfo()))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal starts an orderly shutdown and restores the default action,
	// so a second one kills the process.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:]))
}

// run executes a command, and returns its exit code. Docker reserves 2 for health checks.
func run(ctx context.Context, args []string) int {
	code := execute(ctx, args)
	if code == exitUsage && len(args) > 0 && args[0] == "healthcheck" {
		return exitFailure
	}
	return code
}

func execute(ctx context.Context, args []string) int {
	app.TuneMemory()
	resolver, err := config.NewResolver(os.LookupEnv, configPath(args))
	if err != nil && !slices.Contains(args, "doctor") { // which tells that among the rest
		return fail(err, exitUsage)
	}
	all := &commands{}
	all.Doctor.SetVersion(version)
	parser, err := kong.New(all,
		kong.Name("liveblocks-mirror"),
		kong.Description("Keeps a SQL database equal to a Liveblocks project."),
		kong.UsageOnError(),
		kong.Vars{"version": versionLine()},
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.Resolvers(resolver),
		kong.Bind(resolver),
		kong.BindTo(ctx, (*context.Context)(nil)),
	)
	if err != nil {
		return fail(err, exitUsage)
	}
	switch {
	case len(args) == 0:
		args = []string{"--help"}
	case args[0] == "help": // help serve
		args = append(slices.Clone(args[1:]), "--help")
	}
	parsed, err := parser.Parse(args)
	if err != nil {
		return fail(err, exitUsage)
	}
	if err := parsed.Run(config.FindUnknown(parser.Model, os.Environ()), resolver, parser.Model,
		cli.Streams{Out: os.Stdout, Err: os.Stderr}); err != nil {
		return fail(err, exitFailure)
	}
	return exitOK
}

// configPath finds --config before anything is parsed, because the file provides
// values to the parser.
func configPath(args []string) string {
	for i, a := range args {
		if v, ok := strings.CutPrefix(a, "--config="); ok {
			return v
		}
		if a == "--config" && i+1 < len(args) {
			return args[i+1]
		}
	}
	return os.Getenv("MIRROR_CONFIG")
}

// fail prints err in one line, and returns the exit code if err says none itself.
func fail(err error, code int) int {
	if wrong, ok := errors.AsType[*config.Error](err); ok {
		err, code = wrong, exitUsage // the parser would begin with the command or the flag
	}
	if errors.Is(err, cli.ErrDrift) {
		code = exitDrift
	}
	fmt.Fprintln(os.Stderr, "liveblocks-mirror: "+strings.Join(strings.Fields(err.Error()), " "))
	return code
}
