package cli

import (
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/config"
)

// Programs that read only the result of a health check learn also that nothing works.
func TestHealthcheckPrintsThatNothingWorks(t *testing.T) {
	t.Parallel()
	checked := health.NewServer()
	address := serveGRPC(t, func(s *grpc.Server) { grpc_health_v1.RegisterHealthServer(s, checked) })
	for _, c := range []struct {
		name, address string
		status        grpc_health_v1.HealthCheckResponse_ServingStatus
		json, text    string
	}{
		{"it works", address, grpc_health_v1.HealthCheckResponse_SERVING, `{"works":true}`, "The service works."},
		{"it does not", address, grpc_health_v1.HealthCheckResponse_NOT_SERVING, `{"works":false}`, ""},
		{"there is none", "127.0.0.1:1", grpc_health_v1.HealthCheckResponse_SERVING, `{"works":false}`, ""},
	} {
		checked.SetServingStatus("", c.status)
		for _, asJSON := range []bool{true, false} {
			want := c.text
			if asJSON {
				want = c.json
			}
			var out strings.Builder
			err := Healthcheck(t.Context(), config.Client{Server: c.address}, Format{asJSON}, &out)
			if got := strings.TrimSpace(out.String()); got != want || (err == nil) != strings.Contains(c.json, "true") {
				t.Errorf("%s: with JSON %t it printed %q and ended with %v; want %q", c.name, asJSON, got, err, want)
			}
		}
	}
}
