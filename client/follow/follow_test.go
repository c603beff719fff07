package follow

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
)

// service is a feed whose changes have the revisions 1 to last, and whose tokens are
// revisions. Its streams end as serve says.
type service struct {
	mirrorv1.ChangeServiceClient

	last int64
	// serve is called before each response, and for how many came before it in the stream.
	// An error ends the stream.
	serve func(ctx context.Context, sent int) error
	// starts are those of all streams.
	starts []string
}

func (s *service) WatchChanges(ctx context.Context, req *mirrorv1.WatchChangesRequest, _ ...grpc.CallOption) (
	grpc.ServerStreamingClient[mirrorv1.WatchChangesResponse], error,
) {
	at := s.last
	switch start := req.GetStart().(type) {
	case *mirrorv1.WatchChangesRequest_Token:
		n, err := strconv.ParseInt(start.Token, 10, 64)
		if err != nil {
			return nil, err
		}
		at = n
	case *mirrorv1.WatchChangesRequest_Position:
		at = 0
	}
	start := fmt.Sprint(req.GetStart())
	if _, ok := req.GetStart().(*mirrorv1.WatchChangesRequest_Position); ok {
		start = "{position}"
	}
	s.starts = append(s.starts, start)
	return &stream{service: s, serve: func(sent int) error { return s.serve(ctx, sent) }, at: at}, nil
}

type stream struct {
	grpc.ClientStream

	service *service
	serve   func(sent int) error
	at      int64
	sent    int
}

func (s *stream) Recv() (*mirrorv1.WatchChangesResponse, error) {
	if err := s.serve(s.sent); err != nil {
		return nil, err
	}
	response := &mirrorv1.WatchChangesResponse{Event: &mirrorv1.WatchChangesResponse_Progress{
		Progress: &mirrorv1.ChangeProgress{CaughtUp: s.at == s.service.last},
	}}
	if s.sent++; s.sent > 1 && s.at < s.service.last {
		s.at++
		response.Event = &mirrorv1.WatchChangesResponse_Changes{Changes: &mirrorv1.ChangeBatch{
			Changes: []*mirrorv1.Change{{Revision: s.at}},
		}}
	}
	response.Token = strconv.FormatInt(s.at, 10)
	return response, nil
}

var (
	errCut  = status.Error(codes.Unavailable, "cut")
	errStop = errors.New("stop")
	// earliest is before the first change.
	earliest     = &mirrorv1.WatchChangesRequest_Position{Position: mirrorv1.ChangeStart_CHANGE_START_EARLIEST}
	fromEarliest = &mirrorv1.WatchChangesRequest{Start: earliest}
)

// forever waits as a service does that has nothing to tell.
func forever(ctx context.Context) error {
	<-ctx.Done()
	return status.FromContextError(ctx.Err()).Err()
}

// until collects revisions and stops at the last one.
func until(seen *[]int64, last int64) Handler {
	return func(_ context.Context, response *mirrorv1.WatchChangesResponse) error {
		for _, c := range response.GetChanges().GetChanges() {
			if *seen = append(*seen, c.GetRevision()); c.GetRevision() == last {
				return errStop
			}
		}
		return nil
	}
}

// However early each stream is cut off, each change is handled once and in order.
func TestCutsAtEveryResponse(t *testing.T) {
	t.Parallel()
	for cut := 2; cut < 12; cut++ {
		for _, end := range []error{errCut, io.EOF, status.Error(codes.ResourceExhausted, "too slow")} {
			synctest.Test(t, func(t *testing.T) {
				s := &service{last: 10, serve: func(_ context.Context, sent int) error {
					if sent == cut {
						return end
					}
					return nil
				}}
				var seen []int64
				store := &Memory{}
				cfg := Config{Request: fromEarliest, Store: store}
				if err := Run(t.Context(), s, cfg, until(&seen, 10)); !errors.Is(err, errStop) {
					t.Fatalf("Run = %v; want %v", err, errStop)
				}
				for i, n := range seen {
					if n != int64(i)+1 {
						t.Fatalf("after cuts at %d: %v; want 1 to 10", cut, seen)
					}
				}
				if len(seen) != 10 {
					t.Fatalf("after cuts at %d: %v; want 1 to 10", cut, seen)
				}
				if token, err := store.Load(t.Context()); err != nil || token != "9" {
					t.Fatalf("the token is %q, %v; want that of the last that was handled", token, err)
				}
				seen = nil
				if err := Run(t.Context(), s, cfg, until(&seen, 10)); !errors.Is(err, errStop) ||
					len(seen) != 1 || seen[0] != 10 {
					t.Fatalf("Run from the store = %v, %v; want the change that failed, again", seen, err)
				}
			})
		}
	}
}

// Pauses grow while no changes come, up to a limit, also if the service greets each time,
// and begin again when some did.
func TestPauses(t *testing.T) {
	t.Parallel()
	for _, cut := range []int{0, 1} {
		synctest.Test(t, func(t *testing.T) {
			var times []time.Time
			broken := true
			s := &service{last: 1, serve: func(_ context.Context, sent int) error {
				if sent == 0 {
					times = append(times, time.Now())
				}
				if broken && sent == cut || sent == 2 {
					return errCut
				}
				return nil
			}}
			failed := 0
			ctx, cancel := context.WithCancel(t.Context())
			err := Run(ctx, s, Config{Request: fromEarliest, Failed: func(err error) {
				if status.Code(err) != codes.Unavailable {
					t.Errorf("Failed(%v); want %v", err, errCut)
				}
				failed++
				broken = failed < 20
				if failed == 22 {
					cancel()
				}
			}}, func(context.Context, *mirrorv1.WatchChangesResponse) error { return nil })
			if !errors.Is(err, context.Canceled) || len(times) != 22 {
				t.Fatalf("Run = %v after %d streams; want %v after 22", err, len(times), context.Canceled)
			}
			for i := range 21 {
				got, want := times[i+1].Sub(times[i]), min(firstPause<<i, longestPause)
				if i == 20 {
					want = firstPause
				}
				if got < want/2 || got > want {
					t.Errorf("pause %d is %s; want %s to %s", i, got, want/2, want)
				}
			}
		})
	}
}

// The service may ask for a longer pause.
func TestRetryAfter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st, err := status.New(codes.Unavailable, "no").WithDetails(&errdetails.RetryInfo{
			RetryDelay: durationpb.New(7 * time.Second),
		})
		if err != nil {
			t.Fatal(err)
		}
		begun, streams := time.Now(), 0
		s := &service{last: 1, serve: func(_ context.Context, sent int) error {
			if sent == 0 {
				streams++
			}
			if streams == 1 {
				return st.Err()
			}
			return nil
		}}
		var seen []int64
		err = Run(t.Context(), s, Config{Request: fromEarliest}, until(&seen, 1))
		if took := time.Since(begun); !errors.Is(err, errStop) || took != 7*time.Second {
			t.Fatalf("Run = %v after %v; want %v after 7s", err, took, errStop)
		}
	})
}

// A connection that says nothing is given up. Handling may take as long as it likes.
func TestSilence(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		streams := 0
		s := &service{last: 3, serve: func(ctx context.Context, sent int) error {
			if sent == 0 {
				streams++
			}
			if streams == 1 && sent == 2 {
				return forever(ctx)
			}
			return nil
		}}
		begin := time.Now()
		request := &mirrorv1.WatchChangesRequest{Start: earliest, HeartbeatInterval: durationpb.New(5 * time.Second)}
		var seen []int64
		slow := until(&seen, 3)
		err := Run(t.Context(), s, Config{Request: request}, func(ctx context.Context,
			r *mirrorv1.WatchChangesResponse,
		) error {
			time.Sleep(time.Hour) //nolint:forbidigo // of the bubble
			return slow(ctx, r)
		})
		if took := time.Since(begin) - 5*time.Hour; !errors.Is(err, errStop) || streams != 2 || len(seen) != 3 ||
			took < 15*time.Second || took > 16*time.Second {
			t.Fatalf("Run = %v: %v of %d streams, %s silent; want 3 of 2, and 15s", err, seen, streams, took)
		}
	})
}

func reason(code codes.Code, reason string) error {
	st, err := status.New(code, "no").WithDetails(&errdetails.ErrorInfo{Reason: reason})
	if err != nil {
		panic(err)
	}
	return st.Err()
}

// A token that one replica calls invalid is tried again: another may know it. Only after ten
// minutes it counts as damaged.
func TestUnknownToken(t *testing.T) {
	t.Parallel()
	for _, snapshot := range []bool{false, true} {
		for _, lasts := range []time.Duration{9 * time.Minute, 12 * time.Minute} {
			synctest.Test(t, func(t *testing.T) {
				var since time.Time
				s := &service{last: 5}
				s.serve = func(_ context.Context, sent int) error {
					switch {
					case len(s.starts) == 1 && sent == 3: // two changes came
						return errCut
					case len(s.starts) == 2 && since.IsZero():
						since = time.Now()
					}
					if !since.IsZero() && time.Since(since) < lasts && s.starts[len(s.starts)-1] != "{position}" {
						return reason(codes.InvalidArgument, tokenInvalid)
					}
					return nil
				}
				var seen []int64
				failed := 0
				store := &Memory{}
				err := Run(t.Context(), s, Config{
					Request: fromEarliest, Store: store, Snapshot: snapshot, Failed: func(error) { failed++ },
				}, until(&seen, 5))
				took := time.Since(since)
				known := lasts < upgrade
				want := "[1 2 3 4 5]"
				if !known && snapshot {
					want = "[1 2 1 2 3 4 5]" // it begins again
				} else if !known {
					want = "[1 2]"
				}
				// One pause comes before the last try, and one before it begins again.
				if fmt.Sprint(seen) != want || took > upgrade+2*longestPause || failed < 20 ||
					errors.Is(err, errStop) != (known || snapshot) || TokenGone(err) == (known || snapshot) {
					t.Errorf("Run = %v after %v and %d failures, %v; want %v, snapshot %t", err, took, failed, seen, want, snapshot)
				}
			})
		}
	}
}

// While the service is away, nothing says that no replica knows the token.
func TestUnknownTokenWhileTheServiceIsAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var since time.Time
		s := &service{last: 5}
		s.serve = func(_ context.Context, sent int) error {
			switch {
			case len(s.starts) == 1 && sent < 3:
				return nil
			case len(s.starts) == 1:
				return errCut
			case since.IsZero():
				since = time.Now()
			}
			switch away := time.Since(since); {
			case away < 30*time.Second, away > 20*time.Minute && away < 21*time.Minute: // two old replicas
				return reason(codes.InvalidArgument, tokenInvalid)
			case away < 20*time.Minute:
				return status.Error(codes.Unavailable, "away")
			}
			return nil
		}
		var seen []int64
		err := Run(t.Context(), s, Config{Request: fromEarliest, Store: &Memory{}, Snapshot: true}, until(&seen, 5))
		if !errors.Is(err, errStop) || fmt.Sprint(seen) != "[1 2 3 4 5]" {
			t.Errorf("Run = %v, %v; want all once, from the token", err, seen)
		}
	})
}

// All is read anew at the beginning and when the token no longer leads on, from a token that
// is older than what is read.
func TestAnew(t *testing.T) {
	t.Parallel()
	for _, why := range []string{"CHANGE_TOKEN_EXPIRED", "CHANGE_TOKEN_AHEAD", "CHANGE_TOKEN_MISMATCH"} {
		synctest.Test(t, func(t *testing.T) {
			var s *service
			gone := false
			s = &service{last: 5, serve: func(_ context.Context, sent int) error {
				if len(s.starts) == 3 && sent == 0 {
					gone, s.last = true, 20
					return reason(codes.OutOfRange, why)
				}
				if len(s.starts) == 2 && sent == 3 {
					return errCut
				}
				return nil
			}}
			reads := 0
			var seen []int64
			store := &Memory{}
			err := Run(t.Context(), s, Config{Store: store, Anew: func(ctx context.Context) error {
				if reads++; gone != (reads == 2) {
					t.Errorf("read anew for the time %d, token refused = %t", reads, gone)
				}
				if token, _ := store.Load(ctx); reads == 1 && token != "" {
					t.Errorf("the token is %q before all was read; want none", token)
				}
				s.last += 3 // changes that come meanwhile are told of
				return nil
			}}, until(&seen, 23))
			if !errors.Is(err, errStop) || reads != 2 || fmt.Sprint(seen) != "[6 7 21 22 23]" {
				t.Fatalf("Run after %s = %v, read %d times, %v", why, err, reads, seen)
			}
			// Without it, such a token ends Run.
			s.starts = make([]string, 2)
			err = Run(t.Context(), s, Config{Store: store}, until(&seen, 23))
			if !TokenGone(err) {
				t.Fatalf("Run after %s = %v; want the error of the service", why, err)
			}
		})
	}
}

func TestFinalErrors(t *testing.T) {
	t.Parallel()
	none := func(context.Context, *mirrorv1.WatchChangesResponse) error { return nil }
	for _, code := range []codes.Code{
		codes.InvalidArgument, codes.NotFound, codes.PermissionDenied, codes.Unauthenticated, codes.Unimplemented,
	} {
		refused := status.Error(code, "no")
		s := &service{serve: func(context.Context, int) error { return refused }}
		if err := Run(t.Context(), s, Config{}, none); !errors.Is(err, refused) || len(s.starts) != 1 {
			t.Errorf("Run = %v after %d calls; want %v at once", err, len(s.starts), refused)
		}
	}
	s := &service{serve: func(context.Context, int) error { return nil }}
	failing := Config{Anew: func(context.Context) error { return errStop }}
	if err := Run(t.Context(), s, failing, none); !errors.Is(err, errStop) {
		t.Errorf("Run = %v; want the error of Anew", err)
	}
	if err := Run(t.Context(), s, Config{Store: broken{load: errStop}}, none); !errors.Is(err, errStop) {
		t.Errorf("Run = %v; want the error of Load", err)
	}
	if err := Run(t.Context(), s, Config{Store: broken{save: errStop}}, none); !errors.Is(err, errStop) {
		t.Errorf("Run = %v; want the error of Save", err)
	}
}

type broken struct{ load, save error }

func (b broken) Load(context.Context) (string, error) { return "", b.load }

func (b broken) Save(context.Context, string) error { return b.save }

func TestFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := File(filepath.Join(dir, "token"))
	for _, want := range []string{"", "first", "second"} {
		if want != "" {
			if err := file.Save(t.Context(), want); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := file.Load(t.Context()); err != nil || got != want {
			t.Errorf("Load = %q, %v; want %q", got, err, want)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := File(filepath.Join(dir, "folder")).Save(t.Context(), "third"); err == nil {
		t.Error("Save in place of a folder succeeded")
	}
	if err := File(filepath.Join(dir, "missing", "token")).Save(t.Context(), "third"); err == nil {
		t.Error("Save in a folder that is missing succeeded")
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 2 {
		t.Errorf("files = %v, %v; want the token and the folder", left, err)
	}
}
