package doctor

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/gateway"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/app"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/config"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/tlsfiles"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/access"
)

// expiresSoon is how long before the end of a key or a certificate it is a warning.
const expiresSoon = 14 * 24 * time.Hour

// settings checks the values of the settings. What they lead to is checked elsewhere.
func (d *doctor) settings(context.Context) (list []Finding) {
	if err := d.Resolver.CheckFile(d.App); err != nil {
		list = append(list, failed("settings", paragraphSettings, err, "correct the configuration file"))
	}
	told := make(map[string]bool)
	problem := func(err error) {
		if err != nil && !told[err.Error()] {
			told[err.Error()] = true
			list = append(list, failed("settings", paragraphSettings, err, "correct the setting"))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(d.wrong)) {
		problem(d.wrong[name])
	}
	if d.wrong["DATABASE_URL"] == nil {
		problem(d.serve.Database.Validate())
	}
	problem(d.serve.Roles.Validate())
	problem(d.serve.Work.Validate())
	problem(d.client.Validate())
	for _, name := range d.Unknown {
		list = append(list, warn("settings", paragraphSettings, name+" looks like a setting and is none",
			"correct the name of the variable, or unset it"))
	}
	if len(list) == 0 {
		list = append(list, ok("settings", "all can be used"))
	}
	return list
}

// listeners checks who can reach the addresses.
func (d *doctor) listeners(context.Context) (list []Finding) {
	const check = "listeners"
	a := d.serve.Addresses
	if err := a.Validate(); err != nil {
		list = append(list, failed(check, paragraphReach, err, "correct the setting"))
	} else {
		var beyond []string
		for _, addr := range []string{a.HTTPAddr, a.GRPCAddr, a.WebhookAddr, a.MetricsAddr} {
			if addr != "" && !gateway.Loopback(addr) {
				beyond = append(beyond, addr)
			}
		}
		switch {
		case len(beyond) == 0:
			list = append(list, ok(check, "only this machine reaches them"))
		case a.Enabled():
			list = append(list, ok(check, "other machines reach %s, with TLS", strings.Join(beyond, ", ")))
		default:
			list = append(list, ok(check, "other machines reach %s without TLS; MIRROR_INSECURE says that only a proxy "+
				"can", strings.Join(beyond, ", ")))
		}
	}
	return append(list, d.certificate())
}

// certificate checks the certificate of the addresses.
func (d *doctor) certificate() Finding {
	const check = "certificate"
	if !d.serve.Enabled() || d.serve.TLSKey == "" {
		return skip(check, "the addresses have no TLS")
	}
	files, err := tlsfiles.NewServer(d.serve.TLS, d.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		return failed(check, paragraphReach, err, "correct the files")
	}
	leaf := files.Certificate()
	left := leaf.NotAfter.Sub(d.Now())
	seen := fmt.Sprintf("MIRROR_TLS_CERT ends at %s", leaf.NotAfter.UTC().Format(time.RFC3339))
	const advice = "renew the certificate in MIRROR_TLS_CERT, or find out why the renewal does not reach the file"
	switch {
	case left <= 0:
		return fail(check, paragraphSecrets, seen+", which is over", advice)
	case left < min(expiresSoon, leaf.NotAfter.Sub(leaf.NotBefore)/10):
		return warn(check, paragraphSecrets, seen, advice)
	}
	return ok(check, "%s", seen)
}

// credentials checks the keys file.
func (d *doctor) credentials(context.Context) (list []Finding) {
	const check = "keys"
	path := d.serve.KeysFile
	switch {
	case path == "" && len(d.serve.APIToken) == 0:
		return []Finding{ok(check, "none are set: whoever is on this machine may do everything")}
	case path == "":
		return []Finding{ok(check, "%d tokens in MIRROR_API_TOKEN, which may do everything", len(d.serve.APIToken))}
	}
	const advice = "correct the file; `liveblocks-mirror keys new` prints entries for it"
	data, err := os.ReadFile(path)
	if err != nil {
		return []Finding{fail(check, paragraphSecrets, "MIRROR_KEYS_FILE cannot be read: "+err.Error(),
			"let MIRROR_KEYS_FILE name a file that this user may read")}
	}
	entries, err := access.ParseKeys(data)
	if err != nil {
		return []Finding{fail(check, paragraphSecrets, fmt.Sprintf("%s cannot be used: %v", path, err), advice)}
	}
	for i := range entries {
		e := &entries[i]
		if e.Expires == nil || e.Expires.Sub(d.Now()) > expiresSoon {
			continue
		}
		when := "ends at "
		if !e.Expires.After(d.Now()) {
			when = "has ended at "
		}
		list = append(list, warn(check, paragraphSecrets,
			fmt.Sprintf("key %s (%s) %s%s", e.ID, strings.Join(strings.Fields(e.Name), " "), when,
				e.Expires.UTC().Format(time.RFC3339)),
			"make another with `liveblocks-mirror keys new --add`, give it to its users, and remove the old entry from "+path))
	}
	if len(list) == 0 {
		list = append(list, ok(check, "%d in %s, and none ends soon", len(entries), path))
	}
	return list
}

// secrets checks the form of the secret keys and the signing secrets.
func (d *doctor) secrets(context.Context) (list []Finding) {
	const check = "secrets"
	if d.projectsErr != nil {
		return []Finding{failed(check, paragraphSecrets, d.projectsErr, "correct the setting")}
	}
	for _, p := range d.projects {
		_, _, err := app.Upstream(p)
		if err == nil {
			_, err = app.Verifier([]config.Project{p})
		}
		if err != nil {
			list = append(list, failed(check, paragraphSecrets, err, "copy it from the Liveblocks dashboard").of(p))
			continue
		}
		seen := "the secret key and the signing secret have the right form"
		if n := len(p.WebhookSecret); n > 1 {
			seen = fmt.Sprintf("the secret key and %d signing secrets have the right form; remove the old ones once the "+
				"rotation is over", n)
		}
		list = append(list, ok(check, "%s", seen).of(p))
	}
	if _, err := app.Verifier(d.projects); err != nil && !slices.ContainsFunc(list, func(f Finding) bool {
		return f.Verdict == Fail
	}) {
		list = append(list, failed(check, paragraphSecrets, err, "give each project a secret of its own"))
	}
	return list
}

// server is where the running service is asked.
func (d *doctor) server() config.Client {
	c := d.client
	c.Server = cmp.Or(c.Server, config.DefaultServer)
	if c.Server == config.DefaultServer && d.serve.GRPCAddr != config.DefaultServer {
		if c.Server = dial(d.serve.GRPCAddr); d.serve.Enabled() {
			c.Server = "https://" + c.Server
		}
	}
	return c
}
