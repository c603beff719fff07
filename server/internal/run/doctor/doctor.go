// Package doctor looks for what is wrong with an installation: with its settings, the
// database, Liveblocks, the running service and the way of the webhooks to it. Each check
// ends with what was seen and, unless all is well, with what to do. It changes nothing.
//
// Nothing of what is wrong keeps the other checks from being made. What a check shows
// holds no secret.
package doctor

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/alecthomas/kong"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/config"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/rpc"
)

// Verdict is how a check ended.
type Verdict string

// The verdicts.
const (
	OK   Verdict = "ok"
	Warn Verdict = "warn" // it works, and something has to be done
	Fail Verdict = "fail" // it does not work
	Skip Verdict = "skip" // it could not be checked, or there is nothing to check
)

// Finding is the result of a check.
type Finding struct {
	Check string `json:"check"`
	// Project is the id of the project that the check is about, if it is about one.
	Project string  `json:"project,omitempty"`
	Verdict Verdict `json:"verdict"`
	// Seen is what was seen, and Advice what to do about it.
	Seen   string `json:"seen"`
	Advice string `json:"advice,omitempty"`
	// Runbook is the URL of the paragraph about it.
	Runbook string `json:"runbook,omitempty"`
}

// The paragraphs of OPERATIONS.md.
const (
	paragraphSettings    = "a-setting-cannot-be-used"
	paragraphReach       = "who-can-reach-the-service"
	paragraphSecrets     = "the-key-or-the-signing-secret-changes" //nolint:gosec // holds none
	paragraphDatabase    = "the-database-cannot-be-used"
	paragraphFailover    = "a-failover-of-the-database"
	paragraphSchema      = "upgrading-while-replicas-run"
	paragraphClock       = "a-clock-is-wrong"
	paragraphRemoved     = "projects-without-settings"
	paragraphUpstream    = "liveblocks-does-not-answer"
	paragraphPaused      = "fetching-is-paused"
	paragraphEvents      = "events-do-not-arrive"
	paragraphUnannounced = "changes-without-an-event"
	paragraphService     = "the-service-does-not-answer"
	paragraphDisk        = "the-disk-is-nearly-full"
)

// Config says where to look.
type Config struct {
	// Resolver finds the settings, Unknown are variables that look like some, and App has
	// all that there are.
	Resolver *config.Resolver
	Unknown  config.Unknown
	App      *kong.Application
	// PublicURL is where Liveblocks reaches the service, a URL without a path; empty if
	// that is not to be checked.
	PublicURL string
	// REST shows and tries what lets an application read over Liveblocks' REST API.
	REST bool
	// Limit is how long a check may take.
	Limit time.Duration
	// Version is that of this program.
	Version string
	// Status asks the running service. Its error says what to do.
	Status func(context.Context, config.Client) (*mirrorv1.GetStatusResponse, error)
	Now    func() time.Time
	// Free returns how much of a disk is free, and how large it is, in bytes.
	Free func(dir string) (free, size int64, err error)
}

// doctor is one run.
type doctor struct {
	Config

	serve  config.Serve
	client config.Client
	// wrong says what is wrong with single settings, by their names.
	wrong map[string]error
	// projects are those of the settings, if these can be used.
	projects    []config.Project
	projectsErr error
}

// group is a series of checks of one thing.
type group struct {
	name string
	// steps is how often it waits for something, at most.
	steps int
	run   func(context.Context) []Finding
}

// Run makes all checks, and returns what they found in a fixed order.
func Run(ctx context.Context, cfg Config) []Finding {
	d := &doctor{Config: cfg, wrong: make(map[string]error)}
	maps.Copy(d.wrong, cfg.Resolver.Read(&d.serve))
	maps.Copy(d.wrong, cfg.Resolver.Read(&d.client))
	d.projects, d.projectsErr = d.serve.Projects()
	groups := []group{
		{"settings", 1, d.settings},
		{"listeners", 1, d.listeners},
		{"keys", 1, d.credentials},
		{"secrets", 1, d.secrets},
		{"database", 4, d.database},
		{"liveblocks", 1, d.liveblocks},
		{"service", 2, d.service},
		{"public url", 3, d.publicURL},
		{"rest", 1, d.rest},
	}
	found := make([][]Finding, len(groups))
	var all sync.WaitGroup
	for i, g := range groups {
		all.Go(func() { found[i] = d.bounded(ctx, g) })
	}
	all.Wait()
	return distinct(slices.Concat(found...))
}

// bounded runs a group for as long as its checks may take, even if one of them hangs.
func (d *doctor) bounded(ctx context.Context, g group) []Finding {
	limit := time.Duration(g.steps) * d.Limit
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	done := make(chan []Finding, 1)
	go func() { done <- g.run(ctx) }()
	select {
	case found := <-done:
		return found
	case <-time.After(limit + time.Second):
		return []Finding{fail(g.name, paragraphService, fmt.Sprintf("no result after %v", limit),
			"find out what hangs, such as a file on a network, or allow more time with --timeout")}
	}
}

// step limits one wait.
func (d *doctor) step(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, d.Limit)
}

// distinct leaves out what the running service says again of what was found already.
func distinct(all []Finding) (list []Finding) {
	for _, f := range all {
		if f.Check == serviceWarning && slices.ContainsFunc(list, func(o Finding) bool {
			return o.Verdict != OK && o.Runbook == f.Runbook && o.Project == f.Project && o.Check != serviceWarning
		}) {
			continue
		}
		list = append(list, f)
	}
	return list
}

func ok(check, seen string, args ...any) Finding {
	return Finding{Check: check, Verdict: OK, Seen: fmt.Sprintf(seen, args...)}
}

func skip(check, seen string, args ...any) Finding {
	return Finding{Check: check, Verdict: Skip, Seen: fmt.Sprintf(seen, args...)}
}

func warn(check, paragraph, seen, advice string) Finding {
	return Finding{Check: check, Verdict: Warn, Seen: seen, Advice: advice, Runbook: rpc.Operations + paragraph}
}

func fail(check, paragraph, seen, advice string) Finding {
	f := warn(check, paragraph, seen, advice)
	f.Verdict = Fail
	return f
}

// failed makes a finding of an error, whose text says what to do after a semicolon.
func failed(check, paragraph string, err error, otherwise string) Finding {
	text := strings.Join(strings.Fields(err.Error()), " ")
	seen, advice, told := strings.Cut(text, "; ")
	if !told {
		advice = otherwise
	}
	return fail(check, paragraph, seen, advice)
}

// of says which project a finding is about.
func (f Finding) of(p config.Project) Finding {
	f.Project = p.ProjectID
	return f
}

// dial is where a client on this machine reaches an address that the service listens on.
func dial(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if ip := net.ParseIP(host); host == "" || ip.IsUnspecified() {
		host = "127.0.0.1"
		if ip != nil && ip.To4() == nil {
			host = "::1"
		}
	}
	return net.JoinHostPort(host, port)
}
