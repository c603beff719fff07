package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/clock"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

func TestBackfill(t *testing.T) {
	t.Parallel()
	h := start(t)
	h.sweeper.backfill = mirror.Backfill{
		Sweep: mirror.Sweep{
			Project: project, ID: "sw_1", Full: true, Done: true, Cursor: "secret", Listed: 5000, Known: 4000, Vanished: 3,
			MarkedStale: 20000,
			BeginTime:   noon.Add(-time.Hour), EndTime: noon.Add(-time.Minute), FullTime: noon.Add(-24 * time.Hour),
			Problem: "told",
		},
		Pending: 150, Done: 19850, PerSecond: 7.5, Remaining: 20 * time.Second,
	}
	want := &mirrorv1.Sweep{
		ProjectId: "default", SweepId: "sw_1", State: mirrorv1.SweepState_SWEEP_STATE_FETCHING, Full: true,
		RoomsListed: 5000, RoomsKnown: 4000, RoomsVanished: 3, ResourcesRaised: 20000, ResourcesPending: 150,
		ResourcesDone: 19850, ResourcesPerSecond: 7.5,
		RemainingDuration: durationpb.New(20 * time.Second), BeginTime: timestamppb.New(noon.Add(-time.Hour)),
		EndTime:       timestamppb.New(noon.Add(-time.Minute)),
		FullBeginTime: timestamppb.New(noon.Add(-24 * time.Hour)), Problem: "told",
	}
	begun, err := h.admin.StartBackfill(t.Context(), &mirrorv1.StartBackfillRequest{})
	if diff := gocmp.Diff(want, begun.GetSweep(), protocmp.Transform()); err != nil || diff != "" {
		t.Errorf("StartBackfill = %v; -want +got:\n%s", err, diff)
	}
	if !slices.Equal(h.sweeper.started, []mirror.ProjectID{project}) {
		t.Errorf("started %v; want the project once", h.sweeper.started)
	}
	got, err := h.admin.GetBackfill(t.Context(), &mirrorv1.GetBackfillRequest{ProjectId: "default"})
	if diff := gocmp.Diff(want, got.GetSweep(), protocmp.Transform()); err != nil || diff != "" ||
		len(h.sweeper.started) != 1 {
		t.Errorf("GetBackfill = %v, started %v; -want +got:\n%s", err, h.sweeper.started, diff)
	}
	confirmed, err := h.admin.ConfirmDeletions(t.Context(), &mirrorv1.ConfirmDeletionsRequest{
		RoomsVanished: 30, GroupsVanished: 21,
	})
	if diff := gocmp.Diff(want, confirmed.GetSweep(), protocmp.Transform()); err != nil || diff != "" ||
		h.sweeper.confirmed != [2]int64{30, 21} {
		t.Errorf("ConfirmDeletions = %v, confirmed %v; -want +got:\n%s", err, h.sweeper.confirmed, diff)
	}
	_, err = h.admin.ConfirmDeletions(t.Context(), &mirrorv1.ConfirmDeletionsRequest{RoomsVanished: -1})
	wantStatus(t, err, codes.InvalidArgument, fault.ReasonRequestInvalid)
	for name, c := range map[string]struct {
		backfill mirror.Backfill
		want     mirrorv1.SweepState
	}{
		"none":    {mirror.Backfill{Sweep: mirror.Sweep{Project: project}}, mirrorv1.SweepState_SWEEP_STATE_UNSPECIFIED},
		"planned": {mirror.Backfill{Sweep: mirror.Sweep{ID: "x"}}, mirrorv1.SweepState_SWEEP_STATE_LISTING},
		"listing": {
			mirror.Backfill{Sweep: mirror.Sweep{ID: "x", Cursor: "y"}, Pending: 1},
			mirrorv1.SweepState_SWEEP_STATE_LISTING,
		},
		"fetching": {
			mirror.Backfill{Sweep: mirror.Sweep{ID: "x", Done: true}, Pending: 1},
			mirrorv1.SweepState_SWEEP_STATE_FETCHING,
		},
		"done": {mirror.Backfill{Sweep: mirror.Sweep{ID: "x", Done: true}}, mirrorv1.SweepState_SWEEP_STATE_DONE},
	} {
		if shown := sweepToProto(&c.backfill); shown.GetState() != c.want || shown.GetRemainingDuration() != nil {
			t.Errorf("%s: shown as %v; want %v", name, shown, c.want)
		}
	}
	h.sweeper.err = fault.New(fault.Unavailable, fault.ReasonStoreUnavailable, "told")
	_, err = h.admin.StartBackfill(t.Context(), &mirrorv1.StartBackfillRequest{})
	wantStatus(t, err, codes.Unavailable, fault.ReasonStoreUnavailable)
	_, err = h.admin.GetBackfill(t.Context(), &mirrorv1.GetBackfillRequest{})
	wantStatus(t, err, codes.Unavailable, fault.ReasonStoreUnavailable)
	_, err = h.admin.GetStatus(t.Context(), &mirrorv1.GetStatusRequest{})
	wantStatus(t, err, codes.Unavailable, fault.ReasonStoreUnavailable)
}

func TestVerifyMirror(t *testing.T) {
	t.Parallel()
	h := start(t)
	var asked mirror.VerifyOptions
	var failure error
	h.sweeper.verify = func(_ context.Context, options mirror.VerifyOptions,
		report func(mirror.VerifyReport) error,
	) error {
		asked = options
		return errors.Join(
			report(mirror.VerifyReport{Difference: &mirror.Difference{
				Resource: mirror.Resource{Project: project, Room: "r", Kind: mirror.KindThread, ID: "th_1"},
				Kind:     mirror.DifferenceDerived, Detail: "told", Repair: true,
			}}),
			report(mirror.VerifyReport{Progress: &mirror.VerifyProgress{Rooms: 1, Listed: 2, Resources: 3, Differences: 4}}),
			report(mirror.VerifyReport{Summary: &mirror.VerifySummary{
				Rooms: 1, Resources: 2, Differences: 3, Repairs: 4, Skipped: 5,
				Pending: 6, SkipReason: "gone",
			}}),
			failure,
		)
	}
	receive := func() (all []*mirrorv1.VerifyMirrorResponse, err error) {
		stream, err := h.admin.VerifyMirror(t.Context(), &mirrorv1.VerifyMirrorRequest{RoomIdPrefix: "a/", Repair: true})
		for err == nil {
			var report *mirrorv1.VerifyMirrorResponse
			if report, err = stream.Recv(); err == nil {
				all = append(all, report)
			}
		}
		return all, err
	}
	got, err := receive()
	want := []*mirrorv1.VerifyMirrorResponse{
		{Report: &mirrorv1.VerifyMirrorResponse_Drift{Drift: &mirrorv1.Drift{
			ResourceKind: mirrorv1.ResourceKind_RESOURCE_KIND_THREAD, RoomId: "r", ResourceId: "th_1",
			Kind:   mirrorv1.DriftKind_DRIFT_KIND_DERIVED,
			Detail: "told", RepairRequested: true,
		}}},
		{Report: &mirrorv1.VerifyMirrorResponse_Progress{Progress: &mirrorv1.VerifyProgress{
			RoomsChecked: 1, RoomsListed: 2,
			ResourcesChecked: 3, Drifts: 4,
		}}},
		{Report: &mirrorv1.VerifyMirrorResponse_Summary{Summary: &mirrorv1.VerifySummary{
			RoomsChecked: 1, ResourcesChecked: 2, Drifts: 3, RepairsRequested: 4, ResourcesSkipped: 5, ResourcesPending: 6,
			SkipReason: "gone",
		}}},
	}
	if diff := gocmp.Diff(want, got, protocmp.Transform()); !errors.Is(err, io.EOF) || diff != "" {
		t.Errorf("VerifyMirror = %v; -want +got:\n%s", err, diff)
	}
	if want := (mirror.VerifyOptions{Project: project, Prefix: "a/", Repair: true}); asked != want {
		t.Errorf("asked for %+v; want %+v", asked, want)
	}
	failure = fault.New(fault.Unavailable, fault.ReasonUpstreamUnavailable, "told")
	got, err = receive()
	if len(got) != 3 {
		t.Errorf("%d reports before the failure; want 3", len(got))
	}
	wantStatus(t, err, codes.Unavailable, fault.ReasonUpstreamUnavailable)
}

// Who hangs up ends the verification, and is no failure of the service.
func TestVerifyMirrorEndsWithItsReader(t *testing.T) {
	t.Parallel()
	h := start(t)
	ended := make(chan error, 1)
	h.sweeper.verify = func(ctx context.Context, _ mirror.VerifyOptions, report func(mirror.VerifyReport) error) error {
		var err error
		for err == nil {
			err = report(mirror.VerifyReport{Progress: &mirror.VerifyProgress{}})
		}
		// What is sent fails a moment before the context ends.
		_ = clock.Sleep(ctx, 10*time.Second)
		ended <- ctx.Err()
		return fmt.Errorf("verify: %w", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := h.admin.VerifyMirror(ctx, &mirrorv1.VerifyMirrorRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	cancel()
	for err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.Canceled {
		t.Errorf("Recv = %v; want CANCELED", err)
	}
	if err := <-ended; err == nil {
		t.Error("the verification's context lives on")
	}
	h.server.GracefulStop() // after it, what was to be logged is
	if log := h.log.String(); strings.Contains(log, "Internal") || strings.Contains(log, "Unknown") {
		t.Errorf("a reader that hangs up is logged as a failure:\n%s", log)
	}
}
