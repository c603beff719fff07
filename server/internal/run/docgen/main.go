// The program eventdoc prints docs/EVENTS.md: what each event makes stale, as
// the decoder says, and which rows change once that was brought up to date.
package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/ingest/webhook"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

func main() {
	if _, err := io.WriteString(os.Stdout, document()); err != nil {
		fmt.Fprintln(os.Stderr, "eventdoc:", err)
		os.Exit(1)
	}
}

// deleted are the tables whose rows change when a deletion is confirmed: the
// tombstone hides what is in it, and nobody stays in a room that is gone.
var deleted = map[mirror.Kind][]string{
	mirror.KindRoom:   {"mirror_room", "mirror_user_session"},
	mirror.KindThread: {"mirror_thread"},
}

// sample is an event with the ids it may hold spelled as the fields they stand in.
type sample struct{ name, body string }

func samples() []sample {
	const data = `"roomId":"roomId","threadId":"threadId","inboxNotificationId":"inboxNotificationId"`
	of := func(typ, data string) string { return fmt.Sprintf(`{"type":%q,"data":{%s}}`, typ, data) }
	var out []sample
	for _, typ := range webhook.Types() {
		out = append(out, sample{"`" + typ + "`", of(typ, data)})
	}
	return append(
		out,
		sample{"`notification` without a room", of("notification", `"inboxNotificationId":"inboxNotificationId"`)},
		sample{"`notification` without `inboxNotificationId`", of("notification", `"roomId":"roomId"`)},
		sample{"`comment…`, `thread…` without `threadId`", of("threadDeleted", `"roomId":"roomId"`)},
		sample{"any other type, with a room", of("aTypeThatIsNew", data)},
		sample{"any other type, without a room", of("aTypeThatIsNew", "")},
		sample{"an id that cannot be stored", of("threadCreated", `"roomId":"roomId","threadId":"\u0000"`)},
		sample{"no JSON, or a known type without its room", of("roomCreated", "")},
	)
}

func document() string {
	var out strings.Builder
	out.WriteString(`# What each event changes

Printed from the code by ` + "`make gen`" + `; do not edit.

An event says that something has changed, and never what it is now. It makes resources stale; what is stored of them is always
what Liveblocks answers when asked, except for sessions and notifications, which no question brings back: they are
folded from the events themselves.

| event | what becomes stale | whose rows change |
|---|---|---|
`)
	for _, s := range samples() {
		a := webhook.Decode("default", "eventID", []byte(s.body), time.Time{}, time.Time{})
		stale, changed := describe(a.Invalidations)
		fmt.Fprintf(&out, "| %s | %s | %s |\n", s.name, cmp.Or(stale, "nothing: recorded as `"+string(a.Event.Outcome)+"`"),
			cmp.Or(changed, "none"))
	}
	out.WriteString(`
"If unknown" means: only if the mirror has never heard of the room. It is fetched first, and everything in it after it, as with ` + "`roomCreated`" + `.

Beside the rows named here, every event is a row of ` + "`mirror_event`" + `, and of ` + "`mirror_unfolded_event`" + ` while it waits to be folded. What becomes stale is
noted in ` + "`mirror_resource_state`" + `. A row that does change gets an entry in ` + "`mirror_change`" + `, with a number from ` + "`mirror_feed_head`" + `. The first event of a project
pins Liveblocks' own id of it in ` + "`mirror_project`" + `.

## What is fetched, and where it is kept

| resource | Liveblocks' API | tables |
|---|---|---|
`)
	for _, k := range mirror.Kinds() {
		t := k.Traits()
		title := t.Title
		if t.List != "" {
			title += ", or the " + t.List
		}
		fmt.Fprintf(&out, "| %s | %s | %s |\n", title, t.Source, quoted(t.Tables))
	}
	return out.String()
}

// describe says in words what an event makes stale, and the rows that change
// with that. What is only made known is no change that the event tells of.
func describe(invalidations []mirror.Invalidation) (stale, changed string) {
	var words, rows []string
	for _, h := range invalidations {
		traits := h.Resource.Kind.Traits()
		what := traits.Title
		switch id := h.Resource.ID; {
		case id == "":
			what = cmp.Or(traits.List, what)
		case id == "eventID":
			what += " of its own"
		default:
			what += " `" + id + "`"
		}
		if h.IfUnknown {
			what += " if unknown"
		}
		if h.Deleted {
			what += ", and a 404 now means deleted"
		}
		if h.Fold {
			what += ", folded"
		}
		if h.MinInterval > 0 {
			what += fmt.Sprintf(", at most every %g s", h.MinInterval.Seconds())
		}
		words = append(words, what)
		of := traits.Tables
		if h.Deleted {
			of = deleted[h.Resource.Kind]
		}
		for _, table := range of {
			if !h.IfUnknown && !slices.Contains(rows, table) {
				rows = append(rows, table)
			}
		}
	}
	return strings.Join(words, "; "), quoted(rows)
}

func quoted(tables []string) string {
	if len(tables) == 0 {
		return ""
	}
	return "`" + strings.Join(tables, "`, `") + "`"
}
