package sweep

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/derive"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/rawjson"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/thread"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// look compares one room and what is in it once.
type look struct {
	*round
	room mirror.Resource
	// listed is the room as listed; nil if it has to be fetched.
	listed *mirror.RoomContent

	found map[mirror.Resource]finding
	// known says that the room is mirrored.
	known     bool
	resources int
	// skipped are the reasons for which resources could not be compared.
	skipped []string
}

// errGone says that Liveblocks does not have the room any more.
var errGone = errors.New("sweep: the room is gone")

// look returns what differs, at most one difference for each resource.
func (l *look) look(ctx context.Context) map[mirror.Resource]finding {
	l.found = make(map[mirror.Resource]finding)
	switch err := l.all(ctx); {
	case errors.Is(err, errGone):
		clear(l.found)
		if l.known {
			l.add(l.room, mirror.DriftSurplus, "Liveblocks does not have the room")
		}
	case err != nil:
		l.skip(err)
	}
	for res, f := range l.found {
		task, err := l.cfg.Store.Task(ctx, res, l.cfg.Now())
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			delete(l.found, res)
			l.skip(err)
			continue
		}
		f.task = task
		l.found[res] = f
	}
	return l.found
}

func (l *look) add(res mirror.Resource, kind mirror.DriftKind, detail string) {
	if _, ok := l.found[res]; !ok {
		l.found[res] = finding{resource: res, kind: kind, detail: detail}
	}
}

// skip notes that something could not be compared.
func (l *look) skip(err error) { l.skipped = append(l.skipped, fault.Of(err).Public) }

// child is a resource in the room.
func (l *look) child(kind mirror.Kind, id string) mirror.Resource {
	return mirror.Resource{Project: l.room.Project, Room: l.room.Room, Kind: kind, ID: id}
}

// fetch makes a call about the room; errGone if the room is not there.
func (l *look) fetch(ctx context.Context, call func() error) error {
	err := l.call(ctx, call)
	if fault.Is(err, fault.ReasonUpstreamNotFound) && fault.Of(err).Meta["code"] == codeRoomNotFound {
		return errGone
	}
	return err
}

// codeRoomNotFound is Liveblocks' word for a room that is not there.
const codeRoomNotFound = "ROOM_NOT_FOUND"

func (l *look) all(ctx context.Context) error {
	room, err := l.cfg.Store.Room(ctx, l.room, false)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	l.known = err == nil
	if l.listed == nil {
		var content mirror.RoomContent
		err := l.fetch(ctx, func() (err error) {
			content, err = l.cfg.Fetcher.Room(ctx, l.room.Room)
			return err
		})
		if err != nil {
			return err
		}
		l.listed = &content
	}
	l.resources++
	if !l.known {
		l.add(l.room, mirror.DriftMissing, "the room is not mirrored")
		return nil
	}
	for _, compare := range []func(context.Context) error{
		func(ctx context.Context) error { return l.compareRoom(ctx, room) },
		l.compareStorage, l.compareYdocs, l.compareThreads,
	} {
		switch err := compare(ctx); {
		case errors.Is(err, errGone), ctx.Err() != nil:
			return err
		case err != nil:
			l.skip(err)
		}
	}
	return nil
}

// stored returns what is stored of a resource; ok is false if nothing is, which
// counts as a difference.
func (l *look) stored(ctx context.Context, res mirror.Resource) (stored mirror.Stored, ok bool, err error) {
	stored, err = l.cfg.Store.Stored(ctx, res)
	if errors.Is(err, store.ErrNotFound) {
		l.add(res, mirror.DriftMissing, "the "+res.Kind.String()+" is not mirrored")
		return stored, false, nil
	}
	return stored, err == nil, err
}

// data compares the queryable JSON with what it is made from. An engine may leave
// out more than others do, if it says so.
func (l *look) data(res mirror.Resource, stored mirror.Stored, want []byte) {
	switch {
	case stored.Data == nil && stored.DataProblem == "" && want != nil:
		l.add(res, mirror.DriftDerived, "the queryable JSON is missing and nothing says why")
	case stored.Data == nil && stored.DataProblem == "" && res.Kind != mirror.KindThread:
		l.add(res, mirror.DriftDerived, "nothing says why there is no queryable JSON")
	case stored.Data != nil && want == nil:
		l.add(res, mirror.DriftDerived, "there is queryable JSON where none can be made")
	case stored.Data != nil && !sameValue(want, stored.Data):
		l.add(res, mirror.DriftDerived, "the queryable JSON is not that of the copy")
	}
}

func (l *look) compareRoom(ctx context.Context, room mirror.Room) error {
	stored, ok, err := l.stored(ctx, l.room)
	if !ok {
		return err
	}
	if !sameJSON(l.listed.Source, stored.Content) {
		l.add(l.room, mirror.DriftContent, "the copy of the room is not what Liveblocks has")
	}
	if stored.SHA256 != sha256.Sum256(stored.Content) {
		l.add(l.room, mirror.DriftDerived, "the hash is not that of the copy")
	}
	if _, problem := derive.JSON(stored.Content); problem == "" {
		l.data(l.room, stored, stored.Content)
	} else {
		l.data(l.room, stored, nil)
	}
	if !sameTime(room.CreateTime, l.listed.CreateTime) ||
		!sameTime(room.LastConnectionTime, l.listed.LastConnectionTime) ||
		room.OrganizationID != l.listed.OrganizationID {
		l.add(l.room, mirror.DriftDerived, "a time or the organization is not that of the copy")
	}
	return nil
}

// sameTime compares times as far as they are kept.
func sameTime(a, b time.Time) bool {
	return a.Truncate(time.Microsecond).Equal(b.Truncate(time.Microsecond))
}

func (l *look) compareStorage(ctx context.Context) error {
	var fetched mirror.Fetched
	err := l.fetch(ctx, func() (err error) {
		fetched, err = l.cfg.Fetcher.Storage(ctx, l.room.Room)
		return err
	})
	if err != nil {
		return err
	}
	l.resources++
	res := l.child(mirror.KindStorage, "")
	stored, ok, err := l.stored(ctx, res)
	if ok {
		if !sameJSON(fetched.Body, stored.Content) {
			l.add(res, mirror.DriftContent, "the copy of the Storage document is not what Liveblocks has")
		}
		l.document(res, stored, derive.Storage(stored.Content, l.cfg.MaxData))
	}
	return err
}

// document compares what is kept beside a document with what is made from it.
func (l *look) document(res mirror.Resource, stored mirror.Stored, want mirror.DocumentContent) {
	if stored.SHA256 != sha256.Sum256(stored.Content) {
		l.add(res, mirror.DriftDerived, "the hash is not that of the copy")
	}
	l.data(res, stored, want.Data)
	if stored.Text != rawjson.Clean(want.Text) {
		l.add(res, mirror.DriftDerived, "the plain text is not that of the copy")
	}
	if stored.DeriveVersion != want.DeriveVersion {
		l.add(res, mirror.DriftDerived, "what is kept for queries was made by another version")
	}
}

// compareYdocs compares the room's Yjs document, those inside it, and those that
// are mirrored.
func (l *look) compareYdocs(ctx context.Context) error {
	guids := []string{""}
	err := l.eachDocument(ctx, func(d mirror.Document) {
		if d.Kind == mirror.KindYdoc && d.ID != "" {
			guids = append(guids, d.ID)
		}
	})
	if err != nil {
		return err
	}
	known := make(map[string]bool, len(guids))
	for _, guid := range guids {
		known[guid] = true
	}
	for i := 0; i < len(guids); i++ { // it grows
		inside, err := l.compareYdoc(ctx, guids[i])
		if errors.Is(err, errGone) || ctx.Err() != nil {
			return err
		}
		if err != nil {
			l.skip(err)
		}
		if guids[i] != "" {
			continue // what is deeper down is compared if it is mirrored
		}
		for _, guid := range inside[:min(len(inside), mirror.MaxSubdocuments)] {
			if !known[guid] && mirror.ValidID(guid, mirror.MaxResourceID) {
				known[guid] = true
				guids = append(guids, guid)
			}
		}
	}
	return nil
}

func (l *look) compareYdoc(ctx context.Context, guid string) (inside []string, err error) {
	var fetched mirror.Fetched
	err = l.fetch(ctx, func() (err error) {
		fetched, err = l.cfg.Fetcher.Ydoc(ctx, l.room.Room, guid)
		return err
	})
	if err != nil {
		return nil, err
	}
	l.resources++
	res := l.child(mirror.KindYdoc, guid)
	stored, ok, err := l.stored(ctx, res)
	if err != nil {
		return nil, err
	}
	if !ok {
		_, inside = derive.Ydoc(fetched.Body, l.cfg.MaxData)
		return inside, nil
	}
	if !bytes.Equal(fetched.Body, stored.Content) {
		l.add(res, mirror.DriftContent, "the copy of the Yjs document is not what Liveblocks has")
	}
	want, inside := derive.Ydoc(stored.Content, l.cfg.MaxData)
	l.document(res, stored, want)
	return inside, nil
}

// eachDocument goes through the room's mirrored documents.
func (l *look) eachDocument(ctx context.Context, do func(mirror.Document)) error {
	// Of all ids that begin with the room's, its own comes first.
	filter := store.DocumentFilter{Project: l.room.Project, Prefix: string(l.room.Room), Limit: batch}
	for {
		documents, err := l.cfg.Store.Documents(ctx, filter)
		if err != nil {
			return fmt.Errorf("list mirrored documents: %w", err)
		}
		for _, d := range documents {
			if d.Room != l.room.Room {
				return nil
			}
			do(d)
		}
		if len(documents) < filter.Limit {
			return nil
		}
		last := documents[len(documents)-1]
		filter.AfterRoom, filter.AfterKind, filter.AfterID = last.Room, last.Kind, last.ID
	}
}

func (l *look) compareThreads(ctx context.Context) error {
	var fetched mirror.Fetched
	err := l.fetch(ctx, func() (err error) {
		fetched, err = l.cfg.Fetcher.Threads(ctx, l.room.Room)
		return err
	})
	if err != nil {
		return err
	}
	listed, err := thread.ParseList(fetched.Body)
	if err != nil {
		return fault.Wrap(err, fault.Unavailable, fault.ReasonUpstreamAnswerInvalid,
			"the answer of Liveblocks cannot be used")
	}
	has := make(map[string]bool, len(listed))
	for _, t := range listed {
		has[t.ID] = true
		l.resources++
		if err := l.compareThread(ctx, t); err != nil {
			return err
		}
	}
	filter := store.ThreadFilter{Project: l.room.Project, Room: l.room.Room, Limit: batch}
	for {
		mirrored, err := l.cfg.Store.Threads(ctx, filter)
		if err != nil {
			return fmt.Errorf("list mirrored threads: %w", err)
		}
		for _, t := range mirrored {
			if !has[t.ID] {
				l.resources++
				l.add(l.child(mirror.KindThread, t.ID), mirror.DriftSurplus, "Liveblocks does not have the thread")
			}
		}
		if len(mirrored) < filter.Limit {
			return nil
		}
		filter.AfterRoom, filter.AfterID = l.room.Room, mirrored[len(mirrored)-1].ID
	}
}

func (l *look) compareThread(ctx context.Context, listed mirror.Thread) error {
	res := l.child(mirror.KindThread, listed.ID)
	shown, err := l.cfg.Store.Thread(ctx, res, false)
	if errors.Is(err, store.ErrNotFound) {
		l.add(res, mirror.DriftMissing, "the thread is not mirrored")
		return nil
	}
	if err != nil {
		return err
	}
	stored, ok, err := l.stored(ctx, res)
	if !ok {
		return err
	}
	want, err := thread.Parse(stored.Content)
	if same := err == nil && want.ID == listed.ID && want.SHA256 == listed.SHA256; !same {
		l.add(res, mirror.DriftContent, "the copy of the thread is not what Liveblocks has")
		return nil
	}
	if stored.SHA256 != want.SHA256 {
		l.add(res, mirror.DriftDerived, "the hash is not that of the copy")
	}
	l.data(res, stored, want.Metadata)
	if !sameTime(shown.CreateTime, want.CreateTime) || !sameTime(shown.UpdateTime, want.UpdateTime) ||
		shown.Resolved != want.Resolved || shown.Visibility != want.Visibility {
		l.add(res, mirror.DriftDerived, "a time, whether it is resolved or the visibility is not that of the copy")
	}
	if rows := store.RowsOf(want); rows.CommentCount != stored.CommentCount || stored.Data != nil &&
		!sameColumn(rows.MetadataText, stored.MetadataText) {
		l.add(res, mirror.DriftDerived, "the number of comments, or the metadata as text, is not that of the copy")
	}
	if what := commentsDiffer(want.Comments, stored.Comments); what != "" {
		l.add(res, mirror.DriftDerived, what)
	}
	return nil
}

// commentsDiffer tells how the rows of comments differ from the thread's; empty if
// they do not.
func commentsDiffer(want, got []mirror.Comment) string {
	byID := func(a, b mirror.Comment) int { return cmp.Compare(a.ID, b.ID) }
	want, got = slices.SortedFunc(slices.Values(want), byID), slices.SortedFunc(slices.Values(got), byID)
	if !slices.EqualFunc(want, got, func(a, b mirror.Comment) bool { return a.ID == b.ID }) {
		return "the rows of comments are not those of the thread"
	}
	for i, w := range want {
		g := got[i]
		switch {
		case w.UserID != g.UserID || !bytes.Equal(w.Source, g.Source) ||
			!sameTime(written(w.CreateTime), g.CreateTime) || !sameTime(w.EditTime, g.EditTime) ||
			!sameTime(w.DeleteTime, g.DeleteTime):
			return "the row of a comment is not that of the thread"
		case w.Text != g.Text || w.Markdown != g.Markdown:
			return "the text of a comment is not that of the thread"
		case !sameColumn(w.Body, g.Body) || !sameColumn(w.Metadata, g.Metadata):
			return "the queryable JSON of a comment is not that of the thread"
		case !sameSet(w.Reactions, g.Reactions, compareReactions):
			return "the reactions to a comment are not those of the thread"
		case !sameSet(w.Attachments, g.Attachments, func(a, b mirror.Attachment) int {
			return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Name, b.Name), cmp.Compare(a.MIMEType, b.MIMEType),
				cmp.Compare(a.Size, b.Size))
		}):
			return "the attachments of a comment are not those of the thread"
		case !sameSet(mentioned(w.Mentions), mentioned(g.Mentions),
			func(a, b [3]string) int { return slices.Compare(a[:], b[:]) }):
			return "the mentions in a comment are not those of the thread"
		}
	}
	return ""
}

// written is the creation of a comment as it is kept: they are listed by it.
func written(t time.Time) time.Time {
	if t.IsZero() {
		return time.Unix(0, 0)
	}
	return t
}

func sameColumn(want, stored []byte) bool {
	if want == nil || stored == nil {
		return want == nil && stored == nil
	}
	return sameValue(want, stored)
}

func compareReactions(a, b mirror.Reaction) int {
	return cmp.Or(cmp.Compare(a.Emoji, b.Emoji), cmp.Compare(a.UserID, b.UserID),
		a.CreateTime.Truncate(time.Microsecond).Compare(b.CreateTime.Truncate(time.Microsecond)))
}

// mentioned lists whom mentions mean: kind, id, and the group by which.
func mentioned(mentions []mirror.Mention) (all [][3]string) {
	for _, m := range mentions {
		all = append(all, [3]string{m.Kind, m.ID, ""})
		for _, user := range m.UserIDs {
			all = append(all, [3]string{"user", user, m.ID})
		}
	}
	return all
}

// sameSet reports whether two lists hold the same, in whatever order and however
// often.
func sameSet[T any](a, b []T, compare func(T, T) int) bool {
	set := func(all []T) []T {
		sorted := slices.SortedFunc(slices.Values(all), compare)
		return slices.CompactFunc(sorted, func(x, y T) bool { return compare(x, y) == 0 })
	}
	return slices.EqualFunc(set(a), set(b), func(x, y T) bool { return compare(x, y) == 0 })
}
