package rpc

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// The reasons in the code and those in the API are the same.
func TestReasonsAreTheEnum(t *testing.T) {
	t.Parallel()
	file, err := parser.ParseFile(token.NewFileSet(), "../../fault/fault.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var inCode []string
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if typ, ok := spec.Type.(*ast.Ident); !ok || typ.Name != "Reason" {
			return true
		}
		for _, value := range spec.Values {
			literal, ok := value.(*ast.BasicLit)
			if !ok {
				t.Fatalf("a reason is no literal at %v", value.Pos())
			}
			reason, err := strconv.Unquote(literal.Value)
			if err != nil {
				t.Fatal(err)
			}
			if reason := fault.Reason(reason); reason == reason.Public() {
				inCode = append(inCode, string(reason))
			}
		}
		return true
	})
	var inAPI []string
	for value, name := range mirrorv1.ErrorReason_name {
		if value != 0 {
			inAPI = append(inAPI, strings.TrimPrefix(name, "ERROR_REASON_"))
		}
	}
	slices.Sort(inCode)
	slices.Sort(inAPI)
	if len(inCode) == 0 || !slices.Equal(inCode, inAPI) {
		t.Errorf("reasons in fault.go = %v;\nin the API %v", inCode, inAPI)
	}
}

func TestFaultsBecomeStatuses(t *testing.T) {
	t.Parallel()
	const secret = "secret driver text"
	cause := errors.New(secret)
	for _, c := range []struct {
		name   string
		err    error
		code   codes.Code
		reason fault.Reason
		text   string
		retry  bool
	}{
		{
			"invalid", fault.Wrap(cause, fault.Invalid, fault.ReasonIDInvalid, "told"), codes.InvalidArgument,
			fault.ReasonIDInvalid, "told", false,
		},
		{
			"too large", fault.New(fault.Invalid, fault.ReasonPayloadTooLarge, "told"), codes.InvalidArgument,
			fault.ReasonPayloadTooLarge, "told", false,
		},
		{
			"unauthentic", fault.New(fault.Unauthentic, fault.ReasonSignatureInvalid, "told"), codes.Unauthenticated,
			fault.ReasonSignatureInvalid, "told", false,
		},
		{
			"not found", fault.New(fault.NotFound, fault.ReasonUpstreamNotFound, "told"), codes.NotFound,
			fault.ReasonUpstreamNotFound, "told", false,
		},
		{
			"precondition", fault.New(fault.Precondition, fault.ReasonTaskNotRetryable, "told"), codes.FailedPrecondition,
			fault.ReasonTaskNotRetryable, "told", false,
		},
		{
			"finer", fault.New(fault.NotFound, fault.ReasonUpstreamRoomNotFound, "told"), codes.NotFound,
			fault.ReasonUpstreamNotFound, "told", false,
		},
		{
			"busy", fault.New(fault.Busy, fault.ReasonAcceptQueueFull, "told"), codes.ResourceExhausted,
			fault.ReasonAcceptQueueFull, "told", true,
		},
		{
			"unavailable", fault.Wrap(cause, fault.Unavailable, fault.ReasonStoreUnavailable, "told"), codes.Unavailable,
			fault.ReasonStoreUnavailable, "told", true,
		},
		{
			"wrapped", fmt.Errorf("%s: %w", secret, fault.New(fault.Unavailable, fault.ReasonShuttingDown, "told")),
			codes.Unavailable, fault.ReasonShuttingDown, "told", true,
		},
		{
			"internal", fault.Wrap(cause, fault.Internal, fault.ReasonInternal, secret), codes.Internal, fault.ReasonInternal,
			"internal error", false,
		},
		{"unclassified", cause, codes.Internal, fault.ReasonInternal, "internal error", false},
		{"lease lost", store.ErrLeaseLost, codes.Internal, fault.ReasonInternal, "internal error", false},
		{
			"schema", fmt.Errorf("%s: %w", secret, store.ErrSchemaBehind), codes.Unavailable, fault.ReasonSchemaBehind,
			"the database's schema is older than the service needs: run migrate", true,
		},
		{
			"our deadline", fmt.Errorf("%s: %w", secret, context.DeadlineExceeded), codes.Unavailable,
			fault.ReasonStoreUnavailable, "the operation took too long", true,
		},
		{
			"our cancel", fmt.Errorf("%s: %w", secret, context.Canceled), codes.Unavailable, fault.ReasonStoreUnavailable,
			"the operation took too long", true,
		},
		{
			"our deadline, classified", fault.Wrap(context.DeadlineExceeded, fault.Unavailable, fault.ReasonSyncFailed, "told"),
			codes.Unavailable, fault.ReasonSyncFailed, "told", true,
		},
		{
			"another service's status", fmt.Errorf("call: %w", status.Error(codes.PermissionDenied, secret)), codes.Internal,
			fault.ReasonInternal, "internal error", false,
		},
		{
			"not UTF-8", fault.New(fault.NotFound, fault.ReasonEventNotFound, "told \xff").With("event_id", "\xfe"),
			codes.NotFound, fault.ReasonEventNotFound, "told \uFFFD", false,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := start(t)
			h.query.err = func(context.Context) error { return c.err }
			_, err := h.mirror.GetRoom(t.Context(), &mirrorv1.GetRoomRequest{RoomId: "r"})
			wantStatus(t, err, c.code, c.reason)
			if got := status.Convert(err).Message(); got != c.text {
				t.Errorf("message = %q; want %q", got, c.text)
			}
			if strings.Contains(fmt.Sprint(err, status.Convert(err).Details()), secret) {
				t.Errorf("the answer shows the cause: %v", err)
			}
			retry := detail[*errdetails.RetryInfo](err)
			if (retry != nil) != c.retry {
				t.Errorf("RetryInfo = %v; want one: %v", retry, c.retry)
			}
			if wait := retry.GetRetryDelay().AsDuration(); c.retry && (wait < time.Second || wait > 5*time.Second) {
				t.Errorf("RetryInfo asks for %v; want 1 s to 5 s", wait)
			}
			if c.code == codes.Internal {
				id := detail[*errdetails.RequestInfo](err).GetRequestId()
				if id == "" || strings.Count(h.log.String(), "request_id="+id) != 1 ||
					strings.Count(h.log.String(), "level=WARN") != 1 {
					t.Errorf("request %q is not logged once:\n%s", id, h.log)
				}
			}
		})
	}
}

func TestFaultDetailsArrive(t *testing.T) {
	t.Parallel()
	h := start(t)
	f := fault.New(fault.Busy, fault.ReasonAcceptQueueFull, "told").With("size", "1").With("limit",
		"2").After(7 * time.Second)
	f.Fields = []fault.Field{{Path: "a", Problem: "is bad"}, {Path: "b.c", Problem: "is worse"}}
	h.query.err = func(context.Context) error { return f }
	_, err := h.mirror.GetRoom(t.Context(), &mirrorv1.GetRoomRequest{RoomId: "r"})
	if got := detail[*errdetails.ErrorInfo](err).GetMetadata(); len(got) != 2 || got["size"] != "1" ||
		got["limit"] != "2" {
		t.Errorf("metadata = %v; want size 1 and limit 2", got)
	}
	if got := detail[*errdetails.RetryInfo](err).GetRetryDelay().AsDuration(); got != 7*time.Second {
		t.Errorf("retry delay = %v; want 7s", got)
	}
	if got := badFields(err); !slices.Equal(got, []string{"a", "b.c"}) {
		t.Errorf("bad fields = %v; want a and b.c", got)
	}
	if got := detail[*errdetails.BadRequest](err).GetFieldViolations()[1].GetDescription(); got != "is worse" {
		t.Errorf("description = %q; want %q", got, "is worse")
	}
}

// A call that its caller ended is judged by its own context.
func TestEndedCallsAreTheCallers(t *testing.T) {
	t.Parallel()
	past, cancelPast := context.WithDeadline(t.Context(), time.Unix(0, 0))
	defer cancelPast()
	gone, cancelGone := context.WithCancel(t.Context())
	cancelGone()
	contexts := map[string]context.Context{"past": past, "gone": gone, "live": t.Context()}
	unavailable := fault.Wrap(context.Canceled, fault.Unavailable, fault.ReasonStoreUnavailable, "told")
	for _, c := range []struct {
		ctx  string
		err  error
		want codes.Code
	}{
		{"past", context.DeadlineExceeded, codes.DeadlineExceeded},
		{"past", context.Canceled, codes.DeadlineExceeded},
		{"past", unavailable, codes.DeadlineExceeded},
		{"gone", fmt.Errorf("query: %w", context.Canceled), codes.Canceled},
		{"gone", unavailable, codes.Canceled},
		{"gone", fault.New(fault.NotFound, fault.ReasonRoomNotMirrored, "told"), codes.NotFound},
		{"gone", errors.New("bug"), codes.Internal},
		{"live", unavailable, codes.Unavailable},
	} {
		if got := status.Code(toStatus(contexts[c.ctx], c.err)); got != c.want {
			t.Errorf("toStatus(%v, %v) = %v; want %v", c.ctx, c.err, got, c.want)
		}
	}
}

func TestCallersDeadlineCutsTheQuery(t *testing.T) {
	t.Parallel()
	h := start(t)
	begun, ended := make(chan struct{}, 16), make(chan struct{}, 16)
	h.query.err = func(ctx context.Context) error {
		begun <- struct{}{}
		<-ctx.Done()
		ended <- struct{}{}
		return fault.Wrap(ctx.Err(), fault.Unavailable, fault.ReasonStoreUnavailable, "the database cannot be reached")
	}
	for timeout := 100 * time.Millisecond; timeout < time.Minute; timeout *= 2 {
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		_, err := h.mirror.GetRoom(ctx, &mirrorv1.GetRoomRequest{RoomId: "r"})
		cancel()
		wantStatus(t, err, codes.DeadlineExceeded, "")
		select {
		case <-begun:
		default:
			continue // the call ended before its query began
		}
		select {
		case <-ended:
		case <-time.After(time.Minute):
			t.Fatal("the query did not end with the call")
		}
		return
	}
	t.Fatal("no query began within a minute")
}

func TestStoreSentinelsHaveReasons(t *testing.T) {
	t.Parallel()
	h := start(t)
	ctx := t.Context()
	task := formatTaskID(mirror.Resource{Room: "r", Kind: mirror.KindStorage})

	_, err := h.mirror.GetRoom(ctx, &mirrorv1.GetRoomRequest{RoomId: "r"})
	wantStatus(t, err, codes.NotFound, fault.ReasonRoomNotMirrored)
	if got := detail[*errdetails.ErrorInfo](err).GetMetadata()["room_id"]; got != "r" {
		t.Errorf("room_id = %q; want r", got)
	}
	_, err = h.mirror.GetStorageDocument(ctx, &mirrorv1.GetStorageDocumentRequest{RoomId: "r"})
	wantStatus(t, err, codes.NotFound, fault.ReasonDocumentNotMirrored)
	if got := detail[*errdetails.ErrorInfo](err).GetMetadata(); got["room_id"] != "r" || got["kind"] != "storage" {
		t.Errorf("metadata = %v; want room_id r and kind storage", got)
	}
	_, err = h.events.GetEvent(ctx, &mirrorv1.GetEventRequest{EventId: "e"})
	wantStatus(t, err, codes.NotFound, fault.ReasonEventNotFound)
	if got := detail[*errdetails.ErrorInfo](err).GetMetadata()["event_id"]; got != "e" {
		t.Errorf("event_id = %q; want e", got)
	}
	_, err = h.admin.GetTask(ctx, &mirrorv1.GetTaskRequest{TaskId: task})
	wantStatus(t, err, codes.NotFound, fault.ReasonTaskNotFound)
	_, err = h.admin.RetryTask(ctx, &mirrorv1.RetryTaskRequest{TaskId: task})
	wantStatus(t, err, codes.NotFound, fault.ReasonTaskNotFound)
	h.worker.retryErr = fmt.Errorf("retry: %w", store.ErrNotDue)
	_, err = h.admin.RetryTask(ctx, &mirrorv1.RetryTaskRequest{TaskId: task})
	wantStatus(t, err, codes.FailedPrecondition, fault.ReasonTaskNotRetryable)
	if got := detail[*errdetails.ErrorInfo](err).GetMetadata()["task_id"]; got != task {
		t.Errorf("task_id = %q; want %q", got, task)
	}
}
