package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/config"
)

// healthTimeout bounds a health check. Docker's own limit is 30 seconds.
const healthTimeout = 5 * time.Second

// Healthcheck fails unless a service answers that it works. It needs no credential. As JSON
// it also prints that nothing works.
func Healthcheck(ctx context.Context, cfg config.Client, format Format, out io.Writer) error {
	s, err := dial(cfg)
	if err != nil {
		return err
	}
	defer s.close()
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	answer, err := grpc_health_v1.NewHealthClient(s.conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	switch {
	case err != nil:
		err = s.explain(err)
	case answer.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING:
		err = errors.New("the service runs, but does not work now: its database is away or takes no writes; see its log")
	}
	works := struct {
		Works bool `json:"works"`
	}{err == nil}
	return errors.Join(err, format.Print(out, works, func(w io.Writer) {
		if works.Works {
			_, _ = fmt.Fprintln(w, "The service works.")
		}
	}))
}
