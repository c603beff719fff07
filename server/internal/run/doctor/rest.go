package doctor

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks"
)

// sdkKey is the form of the keys that Liveblocks' packages take.
var sdkKey = regexp.MustCompile(`^sk_[\w-]+$`)

// noSuchRoom is a room that is asked for: it can be no other answer than that it is not
// there.
const noSuchRoom = "liveblocks-mirror-doctor"

// rest shows the lines that let an application read from the mirror, and tries them.
func (d *doctor) rest(ctx context.Context) []Finding {
	const check = "rest"
	if !d.REST {
		return nil
	}
	if d.serve.RESTMode == "off" {
		return []Finding{fail(check, paragraphSettings, "Liveblocks' REST API is not served: MIRROR_REST is off",
			"set MIRROR_REST=read and start the service again")}
	}
	key, shown := "sk_any", `"sk_any"` // without credentials every one will do
	if d.serve.Credentials() {
		if len(d.client.APIToken) == 0 {
			return []Finding{skip(check, "set MIRROR_API_TOKEN to the key that the application shall have, such as one that "+
				"`liveblocks-mirror keys new --scope read` prints")}
		}
		key, shown = d.client.APIToken[0].Reveal(), "process.env.MIRROR_API_TOKEN"
	}
	if !sdkKey.MatchString(key) {
		return []Finding{fail(check, paragraphReach, "Liveblocks' packages take keys of the form sk_... only, and "+
			"MIRROR_API_TOKEN has another one", "make a key with `liveblocks-mirror keys new --scope read`")}
	}
	base := "http://" + dial(d.serve.HTTPAddr)
	if d.serve.Enabled() {
		base = "https://" + dial(d.serve.HTTPAddr)
	}
	lines := fmt.Sprintf("the lines of the application:\n        secret: %s,\n        baseUrl: %q,", shown, base)
	status, code, err := d.askREST(ctx, base, key, "")
	switch {
	case err != nil:
		return []Finding{fail(check, paragraphService, fmt.Sprintf("no answer: %v; %s", err, lines),
			"start the service; if only its certificate is refused here, use the name that it is for as the baseUrl")}
	case status == http.StatusNotFound && code == "ROOM_NOT_FOUND":
		return []Finding{ok(check, "answers the key, and %s; %s", d.otherCalls(ctx, base, key), lines)}
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return []Finding{fail(check, paragraphReach, fmt.Sprintf("refuses the key (%d %s); %s", status, oneLine(code), lines),
			"use a key with the scope read, of exactly one project")}
	}
	return []Finding{fail(check, paragraphService,
		fmt.Sprintf("answers with %d, and not as Liveblocks does; %s", status, lines),
		"start the service again if MIRROR_REST was set since; let proxies pass /v2/ on as it is")}
}

// otherCalls says what becomes of calls that the mirror does not answer. It tries a read: the
// settings say whether the service passes it on, and not whether this key may.
func (d *doctor) otherCalls(ctx context.Context, base, key string) string {
	reads, writes := "refuses other reads", "writes"
	if d.serve.RESTUpstream == "on" {
		switch status, code, err := d.askREST(ctx, base, key, "/versions"); {
		case err != nil, status == http.StatusBadGateway, status == http.StatusServiceUnavailable:
			reads = "gets no answer for other reads from Liveblocks now"
		case status == http.StatusForbidden && code == "FORBIDDEN":
			reads = "refuses other reads, for which the key needs the scope rest.upstream"
		default:
			reads = "passes other reads on to Liveblocks"
		}
		writes = "refuses writes"
	}
	if d.serve.RESTMode == "write" {
		writes = "forwards writes for keys with the scope rest.write"
	}
	return reads + " and " + writes
}

// askREST asks for a room that does not exist, or for what is in it, as the packages do.
func (d *doctor) askREST(ctx context.Context, base, key, in string) (status int, code string, err error) {
	transport := liveblocks.NewTransport(1)
	defer transport.CloseIdleConnections()
	client := &http.Client{
		Transport:     withKey{transport, key},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	status, body, err := d.get(ctx, client, base+"/v2/rooms/"+noSuchRoom+in)
	if err != nil {
		return 0, "", err
	}
	var problem struct {
		Error string `json:"error"`
	}
	_ = json.NewDecoder(strings.NewReader(body)).Decode(&problem) // what is no JSON has no code
	return status, problem.Error, nil
}

// withKey adds a key to requests.
type withKey struct {
	http.RoundTripper

	key string
}

// RoundTrip sends a request with the key.
func (w withKey) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+w.key)
	return w.RoundTripper.RoundTrip(r)
}
