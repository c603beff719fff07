package app

import (
	"fmt"
	"log/slog"
	"strings"

	"google.golang.org/grpc/grpclog"
)

// LogGRPC sends the messages of gRPC and grpc-gateway to log; otherwise they would
// write to standard error in their own format. It affects the whole process and
// must be called before any use of gRPC.
func LogGRPC(log *slog.Logger) { grpclog.SetLoggerV2(grpcLogger{log}) }

// grpcLogger passes on warnings and errors. gRPC's information messages only report
// connections opening and closing.
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

// gRPC itself ends the process after fatal messages.
func (l grpcLogger) Fatal(args ...any)                 { l.fail(fmt.Sprint(args...)) }
func (l grpcLogger) Fatalln(args ...any)               { l.fail(fmt.Sprintln(args...)) }
func (l grpcLogger) Fatalf(format string, args ...any) { l.fail(fmt.Sprintf(format, args...)) }

// V reports whether details of a level are logged: only the coarsest.
func (grpcLogger) V(level int) bool { return level <= 0 }

func (l grpcLogger) warn(text string) {
	l.log.Warn("gRPC", slog.String("text", strings.TrimSpace(text)))
}

func (l grpcLogger) fail(text string) {
	l.log.Error("gRPC", slog.String("text", strings.TrimSpace(text)))
}
