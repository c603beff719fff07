package mirror

import "context"

type attemptsKey struct{}

// WithAttempts returns a context for calls to Liveblocks after a number of failed
// attempts. Each makes the calls more patient.
func WithAttempts(ctx context.Context, attempts int) context.Context {
	return context.WithValue(ctx, attemptsKey{}, attempts)
}

// AttemptsOf returns the number of failed attempts before the calls of a context.
func AttemptsOf(ctx context.Context) int {
	attempts, _ := ctx.Value(attemptsKey{}).(int)
	return attempts
}
