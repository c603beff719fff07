// Package liveblocks is the client of the Liveblocks REST API. Its typed calls
// return the exact bytes of the response and classify every failure as a
// [fault.Error]. A [Limiter] decides when calls may be made.
package liveblocks

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/listed"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/lson"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/rawjson"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/memory"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// MaxRatePerSecond is the maximum of [Config.RatePerSecond], more than one process
// can send.
const MaxRatePerSecond = 100_000

// Key is a secret key as issued by Liveblocks. It is never printed: the key is behind
// a pointer, which fmt does not follow even in unexported fields, where it cannot
// call Format.
type Key struct{ secret *string }

var keyForm = regexp.MustCompile(`^sk_[\w-]+$`)

// ParseKey returns the key in s. Its errors continue a sentence that starts with
// the name of the setting, and do not repeat s.
func ParseKey(s string) (Key, error) {
	switch {
	case strings.HasPrefix(s, "pk_"):
		return Key{}, errors.New("is the public key; copy the secret key, which begins with sk_")
	case !keyForm.MatchString(s):
		return Key{}, errors.New(`must be sk_ followed by letters, digits, "_" and "-"; ` +
			"check it for spaces, quotes and line breaks")
	}
	return Key{&s}, nil
}

// Format prints a placeholder instead of the key.
func (Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[secret]") }

// BaseURL is the base URL of a Liveblocks API.
type BaseURL struct{ url string }

// ParseBaseURL returns the base URL in s, which may include a path. Its errors are
// like those of [ParseKey], because s may contain a password.
func ParseBaseURL(s string) (BaseURL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "":
		return BaseURL{}, errors.New("must be a URL that begins with https:// or http:// and names a host")
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return BaseURL{}, errors.New("must not have a user, a query or a fragment; " +
			"remove what comes before @ and after ? or #")
	}
	return BaseURL{strings.TrimRight(s, "/")}, nil
}

// Config configures a [Client]. Every field must be set unless stated otherwise.
type Config struct {
	BaseURL   BaseURL
	SecretKey Key
	// IdleTimeout limits how long a call may go on without a byte: before the response,
	// and in its body. It doubles with every failed attempt, up to Timeout.
	IdleTimeout time.Duration
	// Timeout limits one call. A body may take longer while it arrives at a rate that
	// a slow link has.
	Timeout time.Duration
	// HedgeShare is the share of calls that may get further attempts because their
	// answer is late, beside those that hang; 0 disables them.
	HedgeShare float64
	// MaxBody is the maximum size of a response in bytes, after decompression.
	MaxBody int64
	// RatePerSecond is the upper limit of the adaptive call rate: above 0 and at
	// most [MaxRatePerSecond].
	RatePerSecond float64
	// ProbeMin and ProbeMax limit the growing interval of the probes that are sent
	// while the key is refused.
	ProbeMin, ProbeMax time.Duration
	// UserAgent names this service to Liveblocks.
	UserAgent string
	// Now is the clock of [mirror.Fetched.FetchTime].
	Now func() time.Time
	// Logger receives pauses, resumptions and changes of the rate.
	Logger *slog.Logger
	// OnPause is called by [Client.Run] with a reason when the key is refused, and
	// with an empty one when it is accepted again.
	OnPause func(reason string)
	// Called, if set, is called with each call that was made.
	Called func(Call)
	// Stopped returns why and since when an operator has stopped calls; an empty reason
	// if none has. It is called now and then before a call; see [Client.Look]. nil means
	// never.
	Stopped func(ctx context.Context) (reason string, since time.Time, err error)
	// Transport carries the calls; see [NewTransport].
	Transport http.RoundTripper
}

// Call is a call that was made.
type Call struct {
	// Route names what was asked, such as "get_room"; "ping" is the check of the key.
	Route string
	// Code is the status of the response, or without one why there is none: "no_answer",
	// "truncated", "too_large", "invalid" or "cancelled".
	Code string
	// Took is how long the call took, its body included; of calls for others until it arrives.
	Took time.Duration
}

// pingTimeout is how long an HTTP/2 connection with calls may be silent before it is
// checked, and how long the check may take.
const pingTimeout = 5 * time.Second

// NewTransport returns a transport that keeps up to idle connections for reuse.
// There should be at least one for each worker.
func NewTransport(idle int) *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:    10 * time.Second,
		ForceAttemptHTTP2:      true,
		MaxIdleConns:           idle,
		MaxIdleConnsPerHost:    idle, // there is only one host
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: 1 << 20,
		// A connection that went silent would hold up every call on it.
		HTTP2: &http.HTTP2Config{
			SendPingTimeout: pingTimeout, PingTimeout: pingTimeout,
			MaxReceiveBufferPerStream: memory.Free, // a body may have to wait for memory
		},
	}
}

// Client calls the Liveblocks REST API. It is safe for concurrent use.
//
// Its methods return a [*fault.Error], or the context's error if the caller's
// context ended. Each call waits for its turn at the [Limiter], unless the context
// carries one; see [Client.WithTurn]. While the limiter is closed they fail
// immediately, without a call.
type Client struct {
	cfg      Config
	http     *http.Client
	limiter  *Limiter
	routes   routes
	calls    sync.WaitGroup // attempts under way
	pings    pings
	forwards forwards
	// unsupported are the kinds that the server does not have.
	unsupported unsupported
	looking     sync.Mutex // of Look
	// again and check are those of Hold.
	again <-chan struct{}
	check func(context.Context) (problem string, err error)
}

// New returns a client. It makes no call.
func New(cfg Config) *Client {
	return &Client{
		cfg: cfg,
		http: &http.Client{
			Transport: cfg.Transport,
			// Return a redirect as the response: following it would send the key to
			// its target.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		limiter:  newLimiter(cfg.RatePerSecond, cfg.Logger),
		routes:   routes{share: cfg.HedgeShare},
		pings:    pings{busy: make(chan struct{}, 1)},
		forwards: newForwards(),
	}
}

// Close waits for the calls in flight, and closes the idle connections.
func (c *Client) Close() {
	c.calls.Wait()
	c.http.CloseIdleConnections()
}

// Room fetches a room. Source is the response byte for byte; typed fields that are
// absent or malformed stay zero.
func (c *Client) Room(ctx context.Context, id mirror.RoomID) (mirror.RoomContent, error) {
	var content mirror.RoomContent
	got, err := c.getOfRoom(ctx, "get room", id, "", func(_ string, body []byte) error {
		fields, err := about("room", string(id), body)
		content = roomContent(fields)
		return err
	})
	if err != nil {
		return mirror.RoomContent{}, err
	}
	content.Source, content.FetchTime = got.Body, got.FetchTime
	return content, nil
}

// Storage fetches a room's Storage document as plain-lson.
func (c *Client) Storage(ctx context.Context, id mirror.RoomID) (mirror.Fetched, error) {
	return c.getOfRoom(ctx, "get storage", id, "/storage?format=plain-lson", checkStorage)
}

// Ydoc fetches a Yjs document of a room as one update in encoding version 1: the
// room's own or, with a guid, a subdocument.
func (c *Client) Ydoc(ctx context.Context, id mirror.RoomID, guid string) (mirror.Fetched, error) {
	rest := "/ydoc-binary"
	if guid != "" {
		rest += "?guid=" + url.QueryEscape(guid)
	}
	return c.getOfRoom(ctx, "get ydoc", id, rest, checkBinary)
}

// Threads fetches all threads of a room with their comments, as one list, which has no
// pages. It may exceed the size limit: then it has the hashes of all threads and the
// sources of the first ones. A single thread may not.
func (c *Client) Threads(ctx context.Context, id mirror.RoomID) (mirror.List, error) {
	path, err := pathOfRoom(id, "/threads")
	if err != nil {
		return mirror.List{}, err
	}
	var list mirror.List
	got, err := c.get(ctx, call{op: "get threads", path: path, stream: func(body io.Reader) (err error) {
		list.Items, err = listed.Read(body, c.cfg.MaxBody)
		if errors.Is(err, listed.ErrElement) {
			err = errTooLarge
		}
		return err
	}})
	list.FetchTime = got.FetchTime
	return list, err
}

// Thread fetches a thread of a room with its comments.
func (c *Client) Thread(ctx context.Context, id mirror.RoomID, thread string) (mirror.Fetched, error) {
	if !mirror.ValidID(thread, mirror.MaxResourceID) {
		return mirror.Fetched{}, impossibleID("thread")
	}
	return c.getOfRoom(ctx, "get thread", id, "/threads/"+segment(thread), func(_ string, body []byte) error {
		fields, err := about("thread", thread, body)
		if room := fields.Get("roomId"); err == nil && len(room) > 0 && text(room) != string(id) {
			err = errAnother("thread")
		}
		return err
	})
}

// ActiveUsers fetches the users in a room, one entry for each connection.
// Liveblocks allows this once in 10 s per room.
func (c *Client) ActiveUsers(ctx context.Context, id mirror.RoomID) (mirror.Fetched, error) {
	path, err := pathOfRoom(id, "/active_users")
	if err != nil {
		return mirror.Fetched{}, err
	}
	return c.get(ctx, call{op: "get active users", path: path, check: checkList, once: true})
}

// InboxNotification fetches a notification from a user's inbox.
func (c *Client) InboxNotification(ctx context.Context, user, id string) (mirror.Fetched, error) {
	if !mirror.ValidID(user, mirror.MaxUserID) {
		return mirror.Fetched{}, impossibleID("user")
	}
	return c.getOne(ctx, "get inbox notification", "/v2/users/"+segment(user)+"/inbox-notifications/", "notification", id)
}

// Groups fetches every group of the project as one list, page by page.
func (c *Client) Groups(ctx context.Context) (mirror.List, error) {
	return c.pages(ctx, "list groups", "/v2/groups")
}

// Group fetches a group.
func (c *Client) Group(ctx context.Context, id string) (mirror.Fetched, error) {
	return c.getOne(ctx, "get group", "/v2/groups/", "group", id)
}

// ListRooms fetches a page of at most limit rooms, 1 to 100, newest first: the
// first page or, with the Next of a page as cursor, the following one. It leaves
// out rooms whose id cannot be stored.
func (c *Client) ListRooms(ctx context.Context, cursor string, limit int) (mirror.RoomPage, error) {
	got, items, next, err := c.page(ctx, "list rooms", "/v2/rooms", cursor, limit)
	if err != nil {
		return mirror.RoomPage{}, err
	}
	page := mirror.RoomPage{Rooms: []mirror.ListedRoom{}, Next: next}
	for item := range items.Elements() {
		fields, err := object(item)
		id := text(fields.Get("id"))
		if err != nil || !mirror.ValidID(id, mirror.MaxRoomID) {
			continue
		}
		content := roomContent(fields)
		content.Source, content.FetchTime = item, got.FetchTime
		page.Rooms = append(page.Rooms, mirror.ListedRoom{ID: mirror.RoomID(id), Content: content})
	}
	return page, nil
}

// pages fetches all pages of a list as one list.
func (c *Client) pages(ctx context.Context, op, path string) (mirror.List, error) {
	var list mirror.List
	body := []byte(`{"data":[`)
	for cursor := ""; ; {
		got, items, next, err := c.page(ctx, op, path, cursor, 100)
		if err != nil {
			return mirror.List{}, err
		}
		if list.FetchTime.IsZero() {
			list.FetchTime = got.FetchTime
		}
		for item := range items.Elements() {
			if body[len(body)-1] != '[' {
				body = append(body, ',')
			}
			body = append(body, item...)
		}
		if err := memory.ForReading(ctx, 2*int64(len(body))); err != nil {
			return mirror.List{}, err
		}
		if int64(len(body)) > c.cfg.MaxBody {
			return mirror.List{}, c.tooLarge(op).err
		}
		if cursor = next; cursor == "" {
			break
		}
	}
	var err error
	if list.Items, err = listed.Parse(append(body, "]}"...)); err != nil {
		return mirror.List{}, invalidAnswer(op, http.StatusOK, err).err
	}
	return list, nil
}

// page fetches a page of a list, and returns the cursor of the next.
func (c *Client) page(ctx context.Context, op, path, cursor string, limit int) (got mirror.Fetched,
	items rawjson.Value, next string, err error,
) {
	path += "?limit=" + strconv.Itoa(limit)
	if cursor != "" {
		path += "&startingAfter=" + url.QueryEscape(cursor)
	}
	got, r := c.do(ctx, call{op: op, path: path, check: func(_ string, body []byte) (err error) {
		items, next, err = parsePage(cursor, body)
		return err
	}})
	if cursor != "" {
		r = cursorRefused(op, r)
	}
	return got, items, next, r.err
}

// getOne fetches a resource that is in no room by its id; what names it in errors.
func (c *Client) getOne(ctx context.Context, op, path, what, id string) (mirror.Fetched, error) {
	if !mirror.ValidID(id, mirror.MaxResourceID) {
		return mirror.Fetched{}, impossibleID(what)
	}
	return c.get(ctx, call{op: op, path: path + segment(id), check: func(_ string, body []byte) error {
		_, err := about(what, id, body)
		return err
	}})
}

// getOfRoom fetches the path rest below a room; check validates the body of the
// response.
func (c *Client) getOfRoom(
	ctx context.Context, op string, id mirror.RoomID, rest string, check checkFunc,
) (mirror.Fetched, error) {
	path, err := pathOfRoom(id, rest)
	if err != nil {
		return mirror.Fetched{}, err
	}
	return c.get(ctx, call{op: op, path: path, check: check})
}

// pathOfRoom returns the path rest below a room.
func pathOfRoom(id mirror.RoomID, rest string) (string, error) {
	if !mirror.ValidID(string(id), mirror.MaxRoomID) {
		return "", impossibleID("room")
	}
	return "/v2/rooms/" + segment(string(id)) + rest, nil
}

// get makes one call, if the limiter is open.
func (c *Client) get(ctx context.Context, call call) (mirror.Fetched, error) {
	got, r := c.do(ctx, call)
	return got, r.err
}

// do makes one call, if the limiter is open, and decides whose failure a failed one is.
func (c *Client) do(ctx context.Context, call call) (mirror.Fetched, result) {
	if kind := kinds[call.op]; c.unsupported.lacks(call.op) {
		err := notSent(call.op, unsupportedFault(kind))
		return mirror.Fetched{}, result{outcome: outcomeUnsupported, status: http.StatusNotImplemented, err: err}
	}
	if err := c.takeTurn(ctx, call.op); err != nil {
		return mirror.Fetched{}, result{outcome: outcomeCancelled, err: err}
	}
	begun := time.Now()
	got, r := c.send(ctx, call)
	r = c.judge(ctx, call, begun, r)
	c.note(ctx, &r)
	c.unsupported.note(ctx, c.cfg.Logger, call.op, r)
	return got, r
}

// note passes a result on to the limiter, and tells the caller when to come back.
func (c *Client) note(ctx context.Context, r *result) {
	wait := c.limiter.note(ctx, *r)
	if f, ok := errors.AsType[*fault.Error](r.err); ok && wait > 0 {
		f.RetryAfter = wait
	}
}

// segment encodes an id as one path segment. It also encodes "." and "..", which
// would be resolved on the way.
func segment(id string) string {
	if id == "." || id == ".." {
		return strings.ReplaceAll(id, ".", "%2E")
	}
	return url.PathEscape(id)
}

// impossibleID returns the failure for an id that no resource can have. An empty one
// would request the list of all.
func impossibleID(what string) error {
	return fault.New(fault.Invalid, fault.ReasonIDInvalid, "no "+what+" in Liveblocks can have this id")
}

// about reads a resource. It requires only that it is the requested one: a proxy that
// decodes or resolves the path could return another one.
func about(what, id string, body []byte) (rawjson.Value, error) {
	fields, err := object(body)
	if err == nil && text(fields.Get("id")) != id {
		err = errAnother(what)
	}
	return fields, err
}

func errAnother(what string) error { return errors.New("the answer is about another " + what) }

// roomContent reads the typed fields of a room. Malformed ones read as absent.
func roomContent(fields rawjson.Value) mirror.RoomContent {
	moment := func(key string) time.Time {
		t, err := time.Parse(time.RFC3339Nano, text(fields.Get(key)))
		if err != nil {
			return time.Time{}
		}
		return t.UTC()
	}
	content := mirror.RoomContent{
		CreateTime:         moment("createdAt"),
		LastConnectionTime: moment("lastConnectionAt"),
		OrganizationID:     text(fields.Get("organizationId")),
	}
	if content.OrganizationID == "" {
		content.OrganizationID = text(fields.Get("tenantId")) // its old name
	}
	return content
}

// parsePage reads a page of a list. A page that names itself as the next one
// would be read forever.
func parsePage(cursor string, body []byte) (items rawjson.Value, next string, err error) {
	fields, err := object(body)
	if err != nil {
		return nil, "", err
	}
	if items = fields.Get("data"); !items.IsArray() {
		return nil, "", errors.New("the answer holds no list")
	}
	next = text(fields.Get("nextCursor"))
	switch raw := fields.Get("nextCursor"); {
	case next == "" && !raw.IsNull() && string(raw) != `""`:
		return nil, "", errors.New("the answer's cursor is not one")
	case next != "" && next == cursor:
		return nil, "", errors.New("the answer's cursor leads back to itself")
	}
	return items, next, nil
}

// object reads a JSON object.
func object(body []byte) (rawjson.Value, error) {
	if err := checkJSON("", body); err != nil {
		return nil, err
	}
	v, err := rawjson.Parse(body)
	if err != nil || !v.IsObject() {
		return nil, errors.New("the answer is not a JSON object")
	}
	return v, nil
}

// text returns the string in v, or "" if v is not a string or not one in UTF-8: other
// readers would replace an unpaired surrogate, which can make two ids equal.
func text(v rawjson.Value) string {
	if s := v.Exact(); utf8.ValidString(s) {
		return s
	}
	return ""
}

// checkFunc returns why a response cannot be the requested resource.
type checkFunc func(contentType string, body []byte) error

// checkBinary checks the media type, because a proxy's error page consists of bytes
// too.
func checkBinary(contentType string, body []byte) error {
	switch kind, _, err := mime.ParseMediaType(contentType); {
	case err != nil || kind != "application/octet-stream":
		return errors.New("the answer is not declared as bytes")
	case len(body) == 0:
		return errors.New("the answer is empty")
	}
	return nil
}

// checkStorage returns why body is not a Storage document in plain-lson, whose root is
// always a LiveObject. Other JSON, such as a notice of maintenance, would replace the
// document.
func checkStorage(_ string, body []byte) error {
	// Package lson accepts what encoding/json does, except text that is not UTF-8, and is three
	// times as fast. What it refuses is left to encoding/json.
	root := rawjson.Known(body)
	if _, _, err := lson.Size(body); err != nil {
		if root, err = rawjson.Parse(body); err != nil {
			if err := checkJSON("", body); err != nil {
				return err
			}
			if bytes.Contains(body, []byte(`"LiveObject"`)) { // nested too deeply to be read
				return nil
			}
		}
	}
	var kind, data rawjson.Value
	for name, value := range root.Members() { // once: the answer can be large
		switch name {
		case "liveblocksType":
			kind = value
		case "data":
			data = value
		}
	}
	if text(kind) != "LiveObject" || !data.IsObject() {
		return errors.New("the root of the answer is no LiveObject")
	}
	return nil
}

// checkList returns why body is not an object that contains a list.
func checkList(_ string, body []byte) error {
	fields, err := object(body)
	switch {
	case err != nil:
		return err
	case !fields.Get("data").IsArray():
		return errors.New("the answer holds no list")
	}
	return nil
}

// checkJSON returns why body is not a JSON document.
func checkJSON(_ string, body []byte) error {
	switch {
	case len(bytes.TrimSpace(body)) == 0:
		return errors.New("the answer is empty")
	case !json.Valid(body) && !deepJSON(body):
		return errors.New("the answer is not JSON")
	}
	return nil
}

// maxStdDepth is the nesting limit of encoding/json.
const maxStdDepth = 10000

// deepJSON reports whether body is nested too deeply for encoding/json but
// complete: every bracket and string is closed. Such a document is valid content;
// the decoders decide what to do with it.
func deepJSON(body []byte) bool {
	var open []byte
	deepest := 0
	quoted := false
	for i := 0; i < len(body); i++ {
		switch b := body[i]; {
		case quoted && b == '\\':
			i++
		case b == '"':
			quoted = !quoted
		case quoted:
		case b == '{' || b == '[':
			open = append(open, b+2) // in ASCII the closing bracket is two characters later
			deepest = max(deepest, len(open))
		case b == '}' || b == ']':
			if len(open) == 0 || open[len(open)-1] != b {
				return false
			}
			open = open[:len(open)-1]
		}
	}
	return deepest > maxStdDepth && len(open) == 0 && !quoted
}
