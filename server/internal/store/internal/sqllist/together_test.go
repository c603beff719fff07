package sqllist

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
)

// Statements are sent as one, and one by one only to a server that cannot plan that.
func TestTogether(t *testing.T) {
	t.Parallel()
	unsupported, down := errors.New("unsupported"), errors.New("down")
	parts := []part{{"select 0 from a where n = ?", []any{1}}, {"select 1 from b where n = ?", []any{2}}}
	const union = "(select 0 from a where n = ?)\nunion all (select 1 from b where n = ?)"
	for name, c := range map[string]struct {
		union, fails error
		sent         []string
	}{
		"planned":     {nil, nil, []string{union}},
		"unsupported": {unsupported, nil, []string{union, parts[0].text, parts[1].text}},
		"down":        {down, down, []string{union}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var sent []string
			var args []any
			run := func(_ context.Context, text string, with []any, _ func(Row) error) error {
				sent, args = append(sent, text), append(args, with...)
				if strings.Contains(text, "union") {
					return c.union
				}
				return nil
			}
			r := NewReader(Dialect{Unsupported: func(err error) bool { return errors.Is(err, unsupported) }}, run,
				func(_ context.Context, err error) error { return err }, nil, 0)
			err := r.together(t.Context(), "read", parts, nil)
			if !errors.Is(err, c.fails) || !slices.Equal(sent, c.sent) ||
				!slices.Equal(args, slices.Repeat([]any{1, 2}, len(args)/2)) {
				t.Errorf("together = %v with %q, %v; want %q", err, sent, args, c.sent)
			}
		})
	}
}
