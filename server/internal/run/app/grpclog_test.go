package app

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/grpclog"
)

// It is not parallel: gRPC has one logger for the whole process.
func TestLogGRPC(t *testing.T) { //nolint:paralleltest // see above
	var out bytes.Buffer
	LogGRPC(slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})))
	defer LogGRPC(slog.New(slog.DiscardHandler))

	part := grpclog.Component("part")
	grpclog.Info("a connection came")
	grpclog.Infof("a connection %s", "went")
	part.Infoln("and another")
	grpclog.Warning("late", "r")
	grpclog.Warningf("%d late", 2)
	part.Warningln("very", "late")
	grpclog.Error("broken", 1)
	grpclog.Errorf("broken by %q", "x\ny")
	part.Errorln("quite", "broken")
	if grpclog.V(2) {
		t.Error("gRPC is asked for details that nobody writes down")
	}

	type line struct{ Level, Msg, Text string }
	var got []line
	for dec := json.NewDecoder(&out); ; {
		var l line
		if err := dec.Decode(&l); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		got = append(got, l)
	}
	want := []line{
		{"WARN", "gRPC", "later"},
		{"WARN", "gRPC", "2 late"},
		{"WARN", "gRPC", "[part] very late"},
		{"ERROR", "gRPC", "broken1"},
		{"ERROR", "gRPC", `broken by "x\ny"`},
		{"ERROR", "gRPC", "[part] quite broken"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}
