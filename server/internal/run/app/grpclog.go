package app

import (
	"fmt"
	"log/slog"
	"strings"

	"google.golang.org/grpc/grpclog"
)

// LogGRPC has gRPC and grpc-gateway write to log what goes wrong inside of them;
// they would write it to standard error otherwise, in a form of their own. It
// concerns the whole process and has to come before any use of gRPC.
func LogGRPC(log *slog.Logger) { grpclog.SetLoggerV2(grpcLogger{log}) }

// grpcLogger passes on warnings and errors. What gRPC takes for information is
// the coming and going of connections.
type grpcLogger struct{ log *slog.Logger }

var _ grpclog.LoggerV2 = grpcLogger{}

func (grpcLogger) Info(...any)          {}
func (grpcLogger) Infoln(...any)        {}
func (grpcLogger) Infof(string, ...any) {}

func (l grpcLogger) Warning(args ...any)                 { l.warn(fmt.Sprint(args...)) }
func (l grpcLogger) Warningln(args ...any)               { l.warn(fmt.Sprintln(args...)) }
func (l grpcLogger) Warningf(format string, args ...any) { l.warn(fmt.Sprintf(format, args...)) }

func (l grpcLogger) Error(args ...any)                 { l.fail(fmt.Sprint(args...)) }
func (l grpcLogger) Errorln(args ...any)               { l.fail(fmt.Sprintln(args...)) }
func (l grpcLogger) Errorf(format string, args ...any) { l.fail(fmt.Sprintf(format, args...)) }

// gRPC itself ends the process after these.
func (l grpcLogger) Fatal(args ...any)                 { l.fail(fmt.Sprint(args...)) }
func (l grpcLogger) Fatalln(args ...any)               { l.fail(fmt.Sprintln(args...)) }
func (l grpcLogger) Fatalf(format string, args ...any) { l.fail(fmt.Sprintf(format, args...)) }

// V reports whether details of that level are wanted: only the coarsest.
func (grpcLogger) V(level int) bool { return level <= 0 }

func (l grpcLogger) warn(text string) {
	l.log.Warn("gRPC", slog.String("text", strings.TrimSpace(text)))
}

func (l grpcLogger) fail(text string) {
	l.log.Error("gRPC", slog.String("text", strings.TrimSpace(text)))
}
