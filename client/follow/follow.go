// Package follow follows what changes in a mirror: it watches the changes, starts again
// after whatever cuts the stream off, and keeps the token that says how far it is.
package follow

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
)

const (
	// defaultHeartbeat is how often the service sends something unless the request says
	// otherwise.
	defaultHeartbeat = 15 * time.Second
	// silence is after how many heartbeats that did not come a connection counts as dead.
	silence = 3
	// firstPause and longestPause are how long Run waits before it starts again, about.
	firstPause, longestPause = 100 * time.Millisecond, 30 * time.Second
	// health is how long a stream that brought no changes must last to count as a good one.
	health = time.Minute
	// upgrade is for how long a token that the service calls invalid may be one that another
	// replica knows: while they are upgraded one by one, older ones do not know those of newer
	// ones.
	upgrade = 10 * time.Minute
)

// Config says what to follow.
type Config struct {
	// Request selects changes. Its start counts as long as Store has no token; without one,
	// that is now.
	Request *mirrorv1.WatchChangesRequest
	// Store keeps the token from one run to the next. It may be nil if the function that
	// handles a response keeps its token itself, such as in one transaction with what it
	// makes of the changes, and Request starts from that token.
	Store Store
	// Snapshot begins with all that is mirrored if there is no start, and again if the service
	// no longer accepts the token: between SnapshotBegin and SnapshotEnd, the handler gets what
	// is there as SnapshotItems, then the changes since. If it is not set and Anew is nil, such
	// a token ends Run; see [TokenGone]. One that is called invalid is tried for ten minutes
	// first: while replicas are upgraded, older ones do not know the tokens of newer ones.
	Snapshot bool
	// Anew, if not nil, reads all that the caller wants to hold. Run calls it if there is no
	// start, before it handles the first response, and if the service no longer accepts the
	// token, because changes behind it were trimmed, say. No change is missed meanwhile. It
	// takes the place of Snapshot for those who read by other ways.
	Anew func(ctx context.Context) error
	// Failed, if not nil, is told why a stream broke that Run opens again.
	Failed func(err error)
}

// Handler handles a response: changes, a part of a snapshot, or that there is nothing. When it returns nil, the
// response counts as handled, and its token is kept.
//
// What is held when a snapshot begins is replaced by its item whatever the revision of that is:
// see [mirrorv1.SnapshotBegin].
type Handler func(ctx context.Context, response *mirrorv1.WatchChangesResponse) error

// Run hands all responses to a handler, one after another, until ctx ends, the handler, the
// store or Anew fails, or the service refuses the request. It returns why.
//
// Each change is handled at least once: again if the program or Store failed after the
// handler, before the token was kept. Changes of a room come in order.
func Run(ctx context.Context, client mirrorv1.ChangeServiceClient, cfg Config, handle Handler) error {
	f := &follower{Config: cfg, client: client, handle: handle, request: proto.CloneOf(cfg.Request)}
	if f.request == nil {
		f.request = &mirrorv1.WatchChangesRequest{}
	}
	if cfg.Store != nil {
		token, err := cfg.Store.Load(ctx)
		if err != nil {
			return fmt.Errorf("load the token: %w", err)
		}
		if token != "" {
			f.startFrom(token)
		}
	}
	if cfg.Snapshot && cfg.Anew != nil {
		return errors.New("follow: Snapshot and Anew are two ways to begin; set one of them")
	}
	if f.request.GetStart() == nil {
		f.begin()
	}
	for failures := 0; ; {
		begun := time.Now()
		got, err := f.watch(ctx)
		if f.moved || time.Since(begun) >= health {
			failures = 0
		}
		pause := max(pauseAfter(failures+1), retryAfter(err))
		var own *ownError
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &own):
			return own.error
		case errors.Is(err, io.EOF) && got && failures == 0: // the service ends each stream after a while
			if err := sleep(ctx, firstPause); err != nil {
				return err
			}
			failures = 1 // unless the next one does better
			continue
		case f.mayBeKnown(err, got, pause): // to another replica
		case TokenGone(err) && (cfg.Anew != nil || cfg.Snapshot):
			f.begin()
		case final(err):
			return err
		}
		if cfg.Failed != nil {
			cfg.Failed(err)
		}
		failures++
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
}

// retryAfter returns how long the service asks to wait; zero if it does not.
func retryAfter(err error) time.Duration {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.RetryInfo); ok {
			return min(info.GetRetryDelay().AsDuration(), longestPause)
		}
	}
	return 0
}

// TokenGone reports whether the service refused a call because of its token: changes behind
// it are no longer kept, the database is older than it or another one, or it is damaged. Then
// start again, with a snapshot or by reading the resources: what is held may be of another life
// of the database, with revisions that no longer compare.
func TokenGone(err error) bool {
	switch reasonOf(err) {
	case "CHANGE_TOKEN_EXPIRED", "CHANGE_TOKEN_AHEAD", "CHANGE_TOKEN_MISMATCH", tokenInvalid:
		return true
	}
	return false
}

const tokenInvalid = "CHANGE_TOKEN_INVALID"

// reasonOf returns why the service refused a call; empty if it does not say.
func reasonOf(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}

// mayBeKnown reports whether another replica may know the token that the service calls invalid.
// pause is how long it is before the next try. Only those after such an answer count: a service
// that is away meanwhile has not answered.
func (f *follower) mayBeKnown(err error, got bool, pause time.Duration) bool {
	if got {
		f.unknown = 0
	}
	if reasonOf(err) != tokenInvalid {
		return false
	}
	f.unknown += pause
	return f.unknown <= upgrade
}

// final reports whether the same call would fail again.
func final(err error) bool {
	switch status.Code(err) {
	case codes.InvalidArgument, codes.OutOfRange, codes.NotFound, codes.PermissionDenied, codes.Unauthenticated,
		codes.Unimplemented:
		return true
	default:
		return false
	}
}

// pauseAfter is how long to wait after so many failures: twice as long each time, about.
func pauseAfter(failures int) time.Duration {
	d := min(firstPause<<min(failures-1, 16), longestPause)
	return d/2 + rand.N(d/2)
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ownError is one of the caller, not of the stream.
type ownError struct{ error }

// follower is the state of [Run].
type follower struct {
	Config

	client  mirrorv1.ChangeServiceClient
	handle  Handler
	request *mirrorv1.WatchChangesRequest
	// anew means that Anew comes before the next response is handled.
	anew bool
	// moved means that the last stream has brought changes or a part of a snapshot, or that
	// Anew has read all.
	moved bool
	// unknown is for how long the service has called the token invalid.
	unknown time.Duration
}

// begin begins without a token.
func (f *follower) begin() {
	f.request.Start, f.anew = nil, f.Anew != nil
	if f.Snapshot {
		f.request.Start = &mirrorv1.WatchChangesRequest_Position{Position: mirrorv1.ChangeStart_CHANGE_START_SNAPSHOT}
	}
}

func (f *follower) startFrom(token string) {
	f.request.Start = &mirrorv1.WatchChangesRequest_Token{Token: token}
}

// watch handles the responses of one stream, and reports whether there were some. A
// connection that is silent for too long counts as dead: nobody may be at the other end.
func (f *follower) watch(ctx context.Context) (got bool, err error) {
	streamCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	patience := defaultHeartbeat
	if d := f.request.GetHeartbeatInterval(); d != nil {
		patience = d.AsDuration()
	}
	patience *= silence
	f.moved = false
	dead := time.AfterFunc(patience, cancel)
	defer dead.Stop()
	stream, err := f.client.WatchChanges(streamCtx, f.request)
	if err != nil {
		return false, err
	}
	for {
		response, err := stream.Recv()
		if !dead.Stop() && err != nil && ctx.Err() == nil {
			return got, fmt.Errorf("nothing came from the service for %s: %w", patience, err)
		}
		if err != nil {
			return got, err
		}
		got = true
		if f.anew { // its token is from before all that is read now
			cancel()
			if err := f.Anew(ctx); err != nil {
				return got, &ownError{err}
			}
			f.anew, f.moved = false, true
			if err := f.handled(ctx, response); err != nil {
				return got, &ownError{err}
			}
			return got, io.EOF
		}
		if err := f.handled(ctx, response); err != nil {
			return got, &ownError{err}
		}
		f.moved = f.moved || response.GetProgress() == nil
		dead.Reset(patience)
	}
}

// handled hands on a response and keeps its token.
func (f *follower) handled(ctx context.Context, response *mirrorv1.WatchChangesResponse) error {
	if err := f.handle(ctx, response); err != nil {
		return err
	}
	if f.Store != nil {
		if err := f.Store.Save(ctx, response.GetToken()); err != nil {
			return fmt.Errorf("save the token: %w", err)
		}
	}
	f.startFrom(response.GetToken())
	return nil
}
