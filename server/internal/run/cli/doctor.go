package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/alecthomas/kong"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/config"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/doctor"
)

// Doctor is the command that looks for what is wrong. It takes the settings from the
// environment and the configuration file only, so that a wrong one is something to tell,
// and no reason not to begin.
type Doctor struct {
	PublicURL string        `name:"public-url" env:"MIRROR_PUBLIC_URL" placeholder:"URL" help:"URL of the webhook endpoint without its path, such as https://mirror.example.com, to check that webhooks get through and nothing else does."`
	REST      bool          `name:"rest" help:"Also show the two lines that let an application read from the mirror over Liveblocks' own REST API, and try them; see REST.md."`
	Timeout   time.Duration `name:"timeout" default:"10s" help:"How long to wait for each answer."`

	Format

	version string
}

// BeforeResolve is called by kong.
func (*Doctor) BeforeResolve(resolver *config.Resolver) error {
	resolver.Diagnose()
	return nil
}

// Validate checks the flags.
func (c *Doctor) Validate() error {
	if c.PublicURL != "" {
		if _, err := liveblocks.ParseBaseURL(c.PublicURL); err != nil {
			return &config.Error{Setting: "MIRROR_PUBLIC_URL", Problem: err.Error()}
		}
	}
	return config.Positive("--timeout", c.Timeout)
}

// SetVersion sets the version of the program.
func (c *Doctor) SetVersion(version string) { c.version = version }

// Run makes the checks. It fails if one of them does.
func (c *Doctor) Run(ctx context.Context, resolver *config.Resolver, unknown config.Unknown, app *kong.Application,
	std Streams,
) error {
	found := doctor.Run(ctx, doctor.Config{
		Resolver: resolver, Unknown: unknown, App: app, PublicURL: c.PublicURL, REST: c.REST, Limit: c.Timeout,
		Version: c.version,
		Status:  statusOf, Now: time.Now, Free: doctor.Free,
	})
	failed := 0
	for _, f := range found {
		if f.Verdict == doctor.Fail {
			failed++
		}
	}
	report := struct {
		Checks []doctor.Finding `json:"checks"`
	}{found}
	if err := c.Print(std.Out, report, func(w io.Writer) { doctorText(w, found) }); err != nil {
		return err
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d checks failed; what to do is below each of them", failed, len(found))
	}
	return nil
}

// statusOf asks a service for its status.
func statusOf(ctx context.Context, cfg config.Client) (*mirrorv1.GetStatusResponse, error) {
	s, err := dial(cfg)
	if err != nil {
		return nil, err
	}
	defer s.close()
	got, err := s.GetStatus(ctx, &mirrorv1.GetStatusRequest{})
	if err != nil {
		err = s.explain(err)
		if _, none := errors.AsType[noServiceError](err); none {
			err = fmt.Errorf("%w: %w", doctor.ErrNoService, err)
		}
	}
	return got, err
}

// doctorText writes the findings for people.
func doctorText(w io.Writer, found []doctor.Finding) {
	for _, f := range found {
		check := f.Check
		if f.Project != "" {
			check += " of " + f.Project
		}
		_, _ = fmt.Fprintf(w, "%-4s  %s: %s\n", f.Verdict, check, f.Seen) // to a builder, which never fails
		for _, line := range []string{f.Advice, f.Runbook} {
			if line != "" {
				_, _ = fmt.Fprintf(w, "      -> %s\n", line)
			}
		}
	}
}
