package rpc

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// StartBackfill begins a full sweep, unless one is under way.
func (a *adminService) StartBackfill(ctx context.Context,
	req *mirrorv1.StartBackfillRequest) (*mirrorv1.StartBackfillResponse, error) {
	project, err := a.s.project(req.GetProjectId())
	if err != nil {
		return nil, err
	}
	b, err := a.s.Sweeper.Start(ctx, project)
	if err != nil {
		return nil, err
	}
	return &mirrorv1.StartBackfillResponse{Sweep: showSweep(&b)}, nil
}

// GetBackfill tells how far the latest sweep is.
func (a *adminService) GetBackfill(ctx context.Context,
	req *mirrorv1.GetBackfillRequest) (*mirrorv1.GetBackfillResponse, error) {
	project, err := a.s.project(req.GetProjectId())
	if err != nil {
		return nil, err
	}
	b, err := a.s.Sweeper.Status(ctx, project)
	if err != nil {
		return nil, err
	}
	return &mirrorv1.GetBackfillResponse{Sweep: showSweep(&b)}, nil
}

// VerifyMirror streams what differs from Liveblocks, and at the end a summary.
func (a *adminService) VerifyMirror(req *mirrorv1.VerifyMirrorRequest,
	stream grpc.ServerStreamingServer[mirrorv1.VerifyMirrorResponse]) error {
	project, err := a.s.project(req.GetProjectId())
	if err != nil {
		return err
	}
	options := mirror.VerifyOptions{Project: project, Prefix: req.GetRoomIdPrefix(), Repair: req.GetRepair()}
	var sent error
	err = a.s.Verifier.Verify(stream.Context(), options, func(report mirror.VerifyReport) error {
		sent = stream.Send(showReport(report))
		return sent
	})
	if sent != nil { // gRPC's own word for what became of the stream
		return sent
	}
	return err
}

func showSweep(b *mirror.Backfill) *mirrorv1.Sweep {
	s := &b.Sweep
	shown := &mirrorv1.Sweep{
		ProjectId:          string(s.Project),
		SweepId:            s.ID,
		Full:               s.Full,
		RoomsListed:        s.Listed,
		RoomsKnown:         s.Known,
		RoomsVanished:      s.Vanished,
		ResourcesRaised:    s.MarkedStale,
		ResourcesPending:   b.Pending,
		ResourcesDone:      b.Done,
		ResourcesPerSecond: b.PerSecond,
		BeginTime:          timestamp(s.BeginTime),
		EndTime:            timestamp(s.EndTime),
		FullBeginTime:      timestamp(s.FullTime),
		Problem:            s.Problem,
	}
	if b.Remaining > 0 {
		shown.RemainingDuration = durationpb.New(b.Remaining)
	}
	switch {
	case s.ID == "":
	case !s.Done:
		shown.State = mirrorv1.SweepState_SWEEP_STATE_LISTING
	case b.Pending > 0:
		shown.State = mirrorv1.SweepState_SWEEP_STATE_FETCHING
	default:
		shown.State = mirrorv1.SweepState_SWEEP_STATE_DONE
	}
	return shown
}

func showReport(r mirror.VerifyReport) *mirrorv1.VerifyMirrorResponse {
	switch {
	case r.Drift != nil:
		return &mirrorv1.VerifyMirrorResponse{Report: &mirrorv1.VerifyMirrorResponse_Drift{Drift: &mirrorv1.Drift{
			ResourceKind:    kinds[r.Drift.Resource.Kind],
			RoomId:          string(r.Drift.Resource.Room),
			ResourceId:      r.Drift.Resource.ID,
			Kind:            driftKinds[r.Drift.Kind],
			Detail:          r.Drift.Detail,
			RepairRequested: r.Drift.Repair,
		}}}
	case r.Progress != nil:
		return &mirrorv1.VerifyMirrorResponse{Report: &mirrorv1.VerifyMirrorResponse_Progress{Progress: &mirrorv1.VerifyProgress{
			RoomsChecked:     r.Progress.Rooms,
			RoomsListed:      r.Progress.Listed,
			ResourcesChecked: r.Progress.Resources,
			Drifts:           r.Progress.Drifts,
		}}}
	case r.Summary != nil:
		return &mirrorv1.VerifyMirrorResponse{Report: &mirrorv1.VerifyMirrorResponse_Summary{Summary: &mirrorv1.VerifySummary{
			RoomsChecked:     r.Summary.Rooms,
			ResourcesChecked: r.Summary.Resources,
			Drifts:           r.Summary.Drifts,
			RepairsRequested: r.Summary.Repairs,
			ResourcesSkipped: r.Summary.Skipped,
			SkipReason:       r.Summary.SkipReason,
			ResourcesPending: r.Summary.Pending,
		}}}
	default:
		return &mirrorv1.VerifyMirrorResponse{}
	}
}
