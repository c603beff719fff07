// Command liveblocks-mirror keeps a SQL database equal to a Liveblocks project.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/app"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/cli"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/config"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/demo"
)

// version is set by the linker.
var version = "dev"

// Exit codes.
const (
	exitOK      = 0
	exitFailure = 1 // it could not do its work
	exitUsage   = 2 // it was not told properly what to do
	exitDrift   = 3 // the mirror differs from Liveblocks
)

type commands struct {
	Config string `name:"config" env:"MIRROR_CONFIG" type:"path" placeholder:"FILE" help:"File with settings, a line each, under the names of their environment variables. Flags and the environment go before it. Each setting can also be given as the name of a file that holds it, in the variable with _FILE added."`

	Serve    serveCmd    `cmd:"" help:"Run the service."`
	Migrate  migrateCmd  `cmd:"" help:"Bring the database schema up to date."`
	Backfill backfillCmd `cmd:"" help:"Have the running service fetch everything anew, and show how far it is."`
	Verify   verifyCmd   `cmd:"" help:"Have the running service compare everything with Liveblocks. Exit code 3 if anything differs."`
	Demo     demoCmd     `cmd:"" help:"Try the service on this machine with a built-in fake of Liveblocks; needs no account and no database."`
	Version  versionCmd  `cmd:"" help:"Print the version."`
}

type serveCmd struct {
	config.Serve
	config.Log `group:"Log"`
}

func (c *serveCmd) Validate() error { return c.Serve.Validate() }

func (c *serveCmd) Run(ctx context.Context) error {
	log := logger(c.Log, os.Stderr)
	app.LogGRPC(log)
	return app.Run(ctx, c.Serve, version, log)
}

type migrateCmd struct {
	PrintSQL bool `name:"print-sql" help:"Print what an empty MySQL database needs and do nothing: for a deploy request of PlanetScale, or to be read first."`

	config.Database `group:"Database"`
	config.Log      `group:"Log"`
}

func (c *migrateCmd) Validate() error { return c.Database.Validate() }

func (c *migrateCmd) Run(ctx context.Context) error {
	if c.PrintSQL {
		return app.PrintMigrations(os.Stdout)
	}
	return app.Migrate(ctx, c.Database, logger(c.Log, os.Stderr))
}

type backfillCmd struct {
	Watch bool `name:"watch" help:"Begin nothing, only show how far the latest sweep is."`

	config.Client `group:"Service"`
}

func (c *backfillCmd) Validate() error { return c.Client.Validate() }

func (c *backfillCmd) Run(ctx context.Context) error {
	return cli.Backfill(ctx, c.Client, c.Watch, os.Stdout)
}

type verifyCmd struct {
	Repair     bool   `name:"repair" help:"Have what differs fetched and written anew."`
	RoomPrefix string `name:"room-prefix" placeholder:"TEXT" help:"Compare only rooms whose id begins with this."`

	config.Client `group:"Service"`
}

func (c *verifyCmd) Validate() error { return c.Client.Validate() }

func (c *verifyCmd) Run(ctx context.Context) error {
	return cli.Verify(ctx, c.Client, cli.VerifyOptions{RoomPrefix: c.RoomPrefix, Repair: c.Repair}, os.Stdout, os.Stderr)
}

type demoCmd struct {
	demo.Config
	config.Log `group:"Log"`
}

func (c *demoCmd) Validate() error { return c.Config.Validate() }

func (c *demoCmd) Run(ctx context.Context) error {
	log := logger(c.Log, os.Stderr)
	app.LogGRPC(log)
	return demo.Run(ctx, c.Config, version, os.Stdout, log)
}

type versionCmd struct{}

func (versionCmd) Run() error {
	_, err := fmt.Println("liveblocks-mirror " + version)
	return err
}

func logger(c config.Log, w io.Writer) *slog.Logger {
	opts := &slog.HandlerOptions{Level: c.LogLevel}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal asks to stop in order; with the default action back in
	// place, a second one ends the process at once.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:]))
}

func run(ctx context.Context, args []string) int {
	app.TuneMemory()
	resolver, err := config.NewResolver(os.LookupEnv, configPath(args))
	if err != nil {
		return fail(err, exitUsage)
	}
	parser, err := kong.New(&commands{},
		kong.Name("liveblocks-mirror"),
		kong.Description("Keeps a SQL database equal to a Liveblocks project."),
		kong.UsageOnError(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.Resolvers(resolver),
		kong.BindTo(ctx, (*context.Context)(nil)),
	)
	if err != nil {
		return fail(err, exitUsage)
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	parsed, err := parser.Parse(args)
	if err != nil {
		return fail(err, exitUsage)
	}
	switch err := parsed.Run(); {
	case errors.Is(err, cli.ErrDrift):
		return fail(err, exitDrift)
	case err != nil:
		return fail(err, exitFailure)
	}
	return exitOK
}

// configPath finds --config before anything else is parsed, since what the file
// holds takes part in the parsing.
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

// fail says in one line what went wrong.
func fail(err error, code int) int {
	fmt.Fprintln(os.Stderr, "liveblocks-mirror: "+strings.Join(strings.Fields(err.Error()), " "))
	return code
}
