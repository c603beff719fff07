package fault_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
)

func TestOfFindsTheClassification(t *testing.T) {
	t.Parallel()
	cause := errors.New("cause")
	f := fault.Wrap(cause, fault.Busy, fault.ReasonUpstreamRateLimited, "wait").With("k", "v").After(time.Second)
	err := fmt.Errorf("fetch: %w", f)
	if got := fault.Of(err); got != f {
		t.Errorf("Of = %v; want the wrapped fault", got)
	}
	if !errors.Is(err, cause) {
		t.Error("the cause is lost")
	}
	if !fault.Is(err, fault.ReasonUpstreamRateLimited) || fault.Is(err, fault.ReasonInternal) {
		t.Error("Is does not tell the reason")
	}
	if f.Meta["k"] != "v" || f.RetryAfter != time.Second {
		t.Errorf("metadata or delay lost: %+v", f)
	}
	if got, want := f.Error(), "wait: cause"; got != want {
		t.Errorf("Error() = %q; want %q", got, want)
	}
}

// TestFinerReasonsAreCasesOfTheAPIs holds that what decides inside is told by a
// reason that callers know.
func TestFinerReasonsAreCasesOfTheAPIs(t *testing.T) {
	t.Parallel()
	for finer, public := range map[fault.Reason]fault.Reason{
		fault.ReasonUpstreamRoomNotFound:     fault.ReasonUpstreamNotFound,
		fault.ReasonUpstreamResourceNotFound: fault.ReasonUpstreamNotFound,
		fault.ReasonUpstreamCursorInvalid:    fault.ReasonUpstreamAnswerInvalid,
		fault.ReasonUpstreamOutage:           fault.ReasonUpstreamUnavailable,
		fault.ReasonUpstreamNotFound:         fault.ReasonUpstreamNotFound,
	} {
		if got := finer.Public(); got != public {
			t.Errorf("Public of %s = %s; want %s", finer, got, public)
		}
		err := fmt.Errorf("fetch: %w", fault.New(fault.NotFound, finer, "no"))
		if !fault.Is(err, finer) || !fault.Is(err, public) {
			t.Errorf("a fault of reason %s is not one of %s", finer, public)
		}
	}
	if fault.Is(fault.New(fault.NotFound, fault.ReasonUpstreamNotFound, "no"), fault.ReasonUpstreamRoomNotFound) {
		t.Error("any 404 counts as that of a room")
	}
}

// TestUnclassifiedIsInternal holds that a mistake of ours is never blamed on the
// caller, and that its text is not what the caller reads.
func TestUnclassifiedIsInternal(t *testing.T) {
	t.Parallel()
	f := fault.Of(errors.New("password=hunter2"))
	if f.Kind != fault.Internal || f.Reason != fault.ReasonInternal {
		t.Errorf("Of(unclassified) = %v, %s; want internal", f.Kind, f.Reason)
	}
	if f.Public != "internal error" {
		t.Errorf("Public = %q; want nothing of the cause", f.Public)
	}
}
