package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/liveblocks-mirror/liveblocks-mirror/gateway/apijson"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/config"
)

// Streams are where a command writes: its result to Out, anything else to Err.
type Streams struct{ Out, Err *os.File }

// Format says how a command prints its result.
type Format struct {
	JSON bool `name:"json" help:"Print JSON instead of text."`
}

// Call is what every command has that calls the running service. Its JSON is that of the
// HTTP API, one message a line.
type Call struct {
	Format

	config.Client `group:"Service"`
}

// run makes calls to the service, and explains their error.
func (c *Call) run(ctx context.Context, timeout time.Duration, calls func(context.Context, *service) error) error {
	s, err := dial(c.Client)
	if err != nil {
		return err
	}
	defer s.close()
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	if err := calls(ctx, s); err != nil {
		return s.explain(err)
	}
	return nil
}

// once makes one call and prints its answer, as JSON or as text says.
func once[M proto.Message](ctx context.Context, c *Call, std Streams, call func(context.Context, *service) (M, error),
	text func(w io.Writer, answer M),
) error {
	return within(ctx, c, std, callTimeout, call, text)
}

// within is once for what makes several calls; a timeout of 0 leaves each its own.
func within[M proto.Message](ctx context.Context, c *Call, std Streams, timeout time.Duration,
	call func(context.Context, *service) (M, error), text func(w io.Writer, answer M),
) error {
	return c.run(ctx, timeout, func(ctx context.Context, s *service) error {
		answer, err := call(ctx, s)
		if err != nil {
			return err
		}
		return c.Print(std.Out, answer, func(w io.Writer) { text(w, answer) })
	})
}

// Print writes a result: as JSON, a message as the HTTP API does, or as text says. It
// fails if w does.
func (f Format) Print(w io.Writer, result any, text func(w io.Writer)) error {
	var out strings.Builder
	if f.JSON {
		line, err := marshal(result)
		if err != nil {
			return err
		}
		out.Write(line)
		out.WriteByte('\n')
	} else {
		text(&out)
	}
	if _, err := io.WriteString(w, out.String()); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return nil
}

func marshal(result any) ([]byte, error) {
	if m, ok := result.(proto.Message); ok {
		return apijson.Marshal(m)
	}
	return json.Marshal(result)
}

// table writes rows in columns below a title.
func table(w io.Writer, title string, rows [][]string) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, strings.ReplaceAll(title, " | ", "\t")) // to a builder, which never fails
	for _, row := range rows {
		for i := range row {
			row[i] = cell(row[i])
		}
		_, _ = fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	_ = t.Flush()
}

// cell returns a text as it can stand in a table. Ids may contain anything.
func cell(text string) string {
	switch {
	case text == "":
		return "-"
	case strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }):
		return strconv.Quote(text)
	}
	return text
}

// at is a time in this machine's zone; "-" for none.
func at(t *timestamppb.Timestamp) string {
	if t == nil {
		return "-"
	}
	return t.AsTime().Local().Format(time.DateTime)
}

// ago says how long ago something was, or in how long it will be.
func ago(t *timestamppb.Timestamp, now time.Time) string {
	switch d := now.Sub(t.AsTime()); {
	case t == nil:
		return "never"
	case d < -time.Second:
		return "in " + short(-d)
	case d < time.Second:
		return "now"
	default:
		return short(d) + " ago"
	}
}

// short is a duration in its largest unit.
func short(d time.Duration) string {
	for _, unit := range []struct {
		size time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "min"}} {
		if n := d / unit.size; n > 0 {
			return fmt.Sprintf("%d %s", n, unit.name)
		}
	}
	return fmt.Sprintf("%d s", d/time.Second)
}

// past parses a time of the past: a duration ago, a date or a time; empty is none.
func past(flag, text string, now time.Time) (*timestamppb.Timestamp, error) {
	if text == "" {
		return nil, nil //nolint:nilnil // which means "not set" to the API
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return timestamppb.New(now.Add(-d)), nil
	}
	for _, form := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(form, text); err == nil {
			return timestamppb.New(t), nil
		}
	}
	return nil, &config.Error{Setting: flag, Problem: fmt.Sprintf("is %q; it must be a duration such as 24h, or a date "+
		"or a time such as 2030-01-31 or 2030-01-31T12:00:00Z", text)}
}

// page is an answer to a list.
type page interface {
	proto.Message
	GetNextPageToken() string
}

// maxPage is the most that the service returns at once.
const maxPage = 500

// collect reads pages of a list until there are limit items, and returns them as one
// answer; a limit of 0 reads all.
func collect[P page](ctx context.Context, limit int, items func(P) int,
	read func(ctx context.Context, size int32, token string) (P, error),
) (all P, err error) {
	get := func(size int32, token string) (P, error) {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		return read(ctx, size, token)
	}
	size := func(have int) int32 {
		if limit == 0 {
			return maxPage
		}
		return int32(min(limit-have, maxPage)) //nolint:gosec // at most maxPage
	}
	if all, err = get(size(0), ""); err != nil {
		return all, err
	}
	token := all.ProtoReflect().Descriptor().Fields().ByName("next_page_token")
	for all.GetNextPageToken() != "" && (limit == 0 || items(all) < limit) {
		next, err := get(size(items(all)), all.GetNextPageToken())
		if err != nil {
			return all, err
		}
		all.ProtoReflect().Clear(token)
		proto.Merge(all, next)
	}
	return all, nil
}

// more tells that a list goes on.
func more(std Streams, p page) {
	if p.GetNextPageToken() != "" {
		_, _ = fmt.Fprintln(std.Err, "there are more; --limit 0 shows all")
	}
}

// enumOf returns the value of an enum that a flag names by its word; none by default.
func enumOf[E enum](flag string, none E, text string) (E, error) {
	if text == "" {
		return none, nil
	}
	value, ok := apijson.ParseEnum(none.Descriptor(), text)
	if !ok {
		return none, &config.Error{Setting: flag, Problem: fmt.Sprintf("is %q; it must be one of %s", text,
			strings.Join(apijson.Words(none.Descriptor()), ", "))}
	}
	return E(value.Number()), nil
}

type enum interface {
	~int32
	protoreflect.Enum
}
