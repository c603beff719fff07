package doctor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/app"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/config"
)

const (
	// skewWarn is by how much the clock may differ from Liveblocks', and skewFail by how
	// much it may before deliveries are refused.
	skewWarn, skewFail = time.Minute, 5 * time.Minute
	// atOnce is how many projects are checked at the same time.
	atOnce = 8
	// serviceWarning is the check whose findings the running service has made.
	serviceWarning = "service warning"
)

// liveblocks asks Liveblocks once with the key of each project.
func (d *doctor) liveblocks(ctx context.Context) []Finding {
	if d.projectsErr != nil {
		return []Finding{skip("liveblocks", "there is no secret key to ask with")}
	}
	ctx, cancel := d.step(ctx)
	defer cancel()
	transport := liveblocks.NewTransport(atOnce)
	defer transport.CloseIdleConnections()
	found := make([][]Finding, len(d.projects))
	places := make(chan struct{}, atOnce)
	var all sync.WaitGroup
	for i, p := range d.projects {
		all.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			for _, f := range d.upstream(ctx, transport, p) {
				found[i] = append(found[i], f.of(p))
			}
		})
	}
	all.Wait()
	return slices.Concat(found...)
}

func (d *doctor) upstream(ctx context.Context, transport http.RoundTripper, p config.Project) []Finding {
	const check = "liveblocks"
	base, key, err := app.Upstream(p)
	if err != nil {
		return []Finding{skip(check, "the secret key or LIVEBLOCKS_BASE_URL has not the right form")}
	}
	if u, err := url.Parse(p.BaseURL); err == nil && d.own(u.Host) {
		return []Finding{fail(check, paragraphUpstream, "LIVEBLOCKS_BASE_URL leads to this service itself",
			"unset LIVEBLOCKS_BASE_URL, or set it to https://api.liveblocks.io")}
	}
	before := d.Now()
	got, err := liveblocks.Probe(ctx, transport, base, key)
	if err != nil {
		return []Finding{fail(check, paragraphUpstream, "no answer: "+err.Error(), "check LIVEBLOCKS_BASE_URL, and that "+
			"this machine reaches it: its name server, its firewall, and HTTPS_PROXY if it needs a proxy")}
	}
	list := []Finding{answered(got, p)}
	if !got.Date.IsZero() {
		list = append(list, clock(got.Date.Sub(before.Add(got.Took/2))))
	}
	return list
}

// own reports whether an address is one that the service listens on.
func (d *doctor) own(host string) bool {
	a := d.serve.Addresses
	return host != "" && slices.ContainsFunc([]string{a.HTTPAddr, a.GRPCAddr, a.WebhookAddr, a.MetricsAddr},
		func(addr string) bool { return addr != "" && (dial(addr) == host || addr == host) })
}

// answered judges the answer of Liveblocks.
func answered(got liveblocks.Probed, p config.Project) Finding {
	const check = "liveblocks"
	switch {
	case got.Listed:
		kind := "a key"
		switch {
		case strings.HasPrefix(p.SecretKey.Reveal(), "sk_dev_"):
			kind = "the key of a development project"
		case strings.HasPrefix(p.SecretKey.Reveal(), "sk_prod_"):
			kind = "the key of a production project"
		}
		return ok(check, "accepts LIVEBLOCKS_SECRET_KEY, %s, and answers within %v", kind, got.Took.Round(time.Millisecond))
	case got.Status == http.StatusUnauthorized, got.Status == http.StatusForbidden:
		return fail(check, paragraphSecrets, fmt.Sprintf("refuses the secret key (%d): %s", got.Status, oneLine(got.Message)),
			"copy the secret key of the project (sk_...) from the Liveblocks dashboard under API keys to LIVEBLOCKS_SECRET_KEY")
	case got.Status == http.StatusTooManyRequests:
		return warn(check, paragraphUpstream, "limits the calls (429)", "wait; if others use the key, lower "+
			"MIRROR_LIVEBLOCKS_CALLS_PER_SECOND")
	case got.Status >= http.StatusInternalServerError:
		return fail(check, paragraphUpstream, fmt.Sprintf("answers with an error (%d)", got.Status),
			"check LIVEBLOCKS_BASE_URL and the status page of Liveblocks")
	}
	return fail(check, paragraphUpstream, fmt.Sprintf("what answers (%d) is not the API of Liveblocks", got.Status),
		"unset LIVEBLOCKS_BASE_URL, or set it to https://api.liveblocks.io; check for a proxy in between")
}

// oneLine is what may be shown of a text from elsewhere.
func oneLine(text string) string {
	const most = 200
	text = strings.ToValidUTF8(strings.Join(strings.Fields(text), " "), "")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "..."
	}
	return text
}

// clock judges by how much Liveblocks' clock is ahead of this machine's.
func clock(ahead time.Duration) Finding {
	const check, advice = "clock", "set the clock of this machine, such as with `timedatectl set-ntp true`"
	seen := "the clock of this machine is " + difference(-ahead) + " that of Liveblocks"
	switch {
	case ahead.Abs() > skewFail:
		return fail(check, paragraphClock, seen+": webhooks are refused", advice)
	case ahead.Abs() > skewWarn:
		return warn(check, paragraphClock, seen+"; from five minutes on, webhooks are refused", advice)
	}
	return ok(check, "within a minute of Liveblocks'")
}

// ErrNoService is that no service runs where it is looked for.
var ErrNoService = errors.New("no service answers")

// service asks the running service.
func (d *doctor) service(ctx context.Context) []Finding {
	const check = "service"
	client := d.server()
	if err := client.Validate(); err != nil {
		return []Finding{skip(check, "the settings do not say where it is: %v", err)}
	}
	asked, cancel := d.step(ctx)
	status, err := d.Status(asked, client)
	cancel()
	switch {
	case errors.Is(err, ErrNoService):
		return d.notRunning(ctx, err)
	case err != nil:
		return []Finding{failed(check, paragraphService, err, "set MIRROR_SERVER to its gRPC address")}
	}
	var list []Finding
	switch {
	case !status.GetReady():
		list = append(list, fail(check, paragraphService, "it runs and is not ready", "wait if it is starting; see its log"))
	case status.GetVersion() != d.Version:
		list = append(list, warn(check, paragraphSchema, fmt.Sprintf("it is version %s, and this program is %s",
			status.GetVersion(), d.Version), "use the same version"))
	default:
		list = append(list, ok(check, "version %s runs on %s and is ready", status.GetVersion(), status.GetStore()))
	}
	if d.serve.DatabaseURL.Reveal() == "" {
		list = append(list, removed(status.GetRemovedProjectIds())...)
	}
	for _, p := range status.GetProjects() {
		for _, w := range p.GetWarnings() {
			list = append(list, Finding{
				Check: serviceWarning, Project: p.GetProjectId(), Verdict: Warn, Seen: w.GetText(),
				Advice: "read the paragraph", Runbook: w.GetRunbook(),
			})
		}
	}
	return list
}

// notRunning tells whether a service could be started.
func (d *doctor) notRunning(ctx context.Context, err error) []Finding {
	const check = "service"
	ctx, cancel := d.step(ctx)
	defer cancel()
	if busy := app.CheckAddresses(ctx, d.serve.Addresses); busy != nil && d.serve.Addresses.Validate() == nil {
		return []Finding{failed(check, paragraphService, busy, "stop the process that uses the address")}
	}
	seen, _, _ := strings.Cut(strings.TrimPrefix(err.Error(), ErrNoService.Error()+": "), "; ")
	return []Finding{warn(check, paragraphService, seen,
		"start it with `liveblocks-mirror serve`, or set MIRROR_SERVER to its gRPC address")}
}

// publicURL asks the service in the way that Liveblocks does, and looks for what should
// not be reached in that way.
func (d *doctor) publicURL(ctx context.Context) []Finding {
	const check = "public url"
	base := strings.TrimRight(d.PublicURL, "/")
	if base == "" {
		return []Finding{skip(check, "set MIRROR_PUBLIC_URL to the URL of the webhook endpoint without its path")}
	}
	transport := liveblocks.NewTransport(1)
	defer transport.CloseIdleConnections()
	client := &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	health, body, err := d.get(ctx, client, base+"/healthz")
	if err == nil && (health != http.StatusOK || !strings.Contains(body, `"ok"`)) {
		err = fmt.Errorf("/healthz answers with %d", health)
	}
	if err != nil {
		return []Finding{fail(check, paragraphEvents, fmt.Sprintf("does not lead to the service: %v", err),
			"let the proxy or tunnel of MIRROR_PUBLIC_URL lead to MIRROR_WEBHOOK_ADDR, and start the service")}
	}
	hook, _, err := d.get(ctx, client, base+"/v1/webhooks/liveblocks")
	if err == nil && hook != http.StatusMethodNotAllowed {
		err = fmt.Errorf("it answers with %d to GET, and not with 405", hook)
	}
	if err != nil {
		return []Finding{fail(check, paragraphEvents,
			fmt.Sprintf("the path of webhooks does not lead to the service: %v", err),
			"let the proxy pass /v1/webhooks/liveblocks on as it is")}
	}
	rooms, _, err := d.get(ctx, client, base+"/v1/rooms")
	const advice = "let it lead to MIRROR_WEBHOOK_ADDR, which serves nothing but webhooks"
	switch {
	case err != nil:
		return []Finding{fail(check, paragraphReach, fmt.Sprintf("no answer to /v1/rooms: %v", err), advice)}
	case rooms == http.StatusOK:
		return []Finding{fail(check, paragraphReach,
			"everybody can read the mirror there: /v1/rooms answers without a credential",
			advice+", and set MIRROR_API_TOKEN")}
	case rooms != http.StatusNotFound:
		return []Finding{warn(check, paragraphReach, fmt.Sprintf("leads to the whole API: /v1/rooms answers with %d, and "+
			"not with 404", rooms), advice)}
	}
	return []Finding{ok(check, "leads to the paths of webhooks, and to nothing else")}
}

// get fetches a page. The error does not repeat the URL.
func (d *doctor) get(ctx context.Context, client *http.Client, page string) (status int, body string, err error) {
	ctx, cancel := d.step(ctx)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, page, http.NoBody)
	if err != nil {
		return 0, "", errors.New("the URL cannot be used")
	}
	resp, err := client.Do(req)
	if err != nil {
		if of, ok := errors.AsType[*url.Error](err); ok {
			err = of.Err
		}
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }() // nothing more is read
	const enough = 4 << 10
	text, err := io.ReadAll(io.LimitReader(resp.Body, enough))
	return resp.StatusCode, string(text), err
}
