package verify

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
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
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/sync/listing"
)

// roomCheck compares one room and everything in it once.
type roomCheck struct {
	*run
	room mirror.Resource
	// listed is the room as listed; nil if it must be fetched.
	listed *mirror.RoomContent

	found map[mirror.Resource]finding
	// known means that the room is mirrored; mirrored is its copy.
	known     bool
	mirrored  mirror.Room
	resources int
	// skipped holds the reasons why resources could not be compared.
	skipped []string
}

// errGone means that Liveblocks no longer has the room.
var errGone = errors.New("verify: the room is gone")

// check returns the differences, at most one for each resource.
func (c *roomCheck) check(ctx context.Context) (map[mirror.Resource]finding, []string) {
	c.found = make(map[mirror.Resource]finding)
	switch err := c.all(ctx); {
	case errors.Is(err, errGone):
		clear(c.found)
		if c.known {
			c.add(c.room, mirror.DifferenceSurplus, "Liveblocks has no such room")
		}
	case err != nil:
		c.skip(err)
	}
	return c.found, append(c.skipped, c.tasks(ctx, c.found)...)
}

// tasks adds to each finding its task, and leaves out those whose task cannot be
// read, for the reasons it returns.
func (r *run) tasks(ctx context.Context, found map[mirror.Resource]finding) (skipped []string) {
	for res, f := range found {
		task, err := r.cfg.Store.Task(ctx, res, r.cfg.Now())
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			delete(found, res)
			skipped = append(skipped, fault.Of(err).Public)
			continue
		}
		f.task = task
		found[res] = f
	}
	return skipped
}

func (c *roomCheck) add(res mirror.Resource, kind mirror.DifferenceKind, detail string) {
	if _, ok := c.found[res]; !ok {
		c.found[res] = finding{resource: res, kind: kind, detail: detail}
	}
}

// skip records that something could not be compared.
func (c *roomCheck) skip(err error) { c.skipped = append(c.skipped, fault.Of(err).Public) }

// child returns a resource in the room.
func (c *roomCheck) child(kind mirror.Kind, id string) mirror.Resource {
	return mirror.Resource{Project: c.room.Project, Room: c.room.Room, Kind: kind, ID: id}
}

// fetch makes a call about the room. It returns errGone if the room does not exist.
func (c *roomCheck) fetch(ctx context.Context, call func() error) error {
	err := c.call(ctx, call)
	if fault.Is(err, fault.ReasonUpstreamRoomNotFound) {
		return errGone
	}
	return err
}

// comparisons compare the resources of each verified kind in a room with Liveblocks.
var comparisons = map[mirror.Kind]func(*roomCheck, context.Context) error{
	mirror.KindRoom:    (*roomCheck).compareRoom,
	mirror.KindStorage: (*roomCheck).compareStorage,
	mirror.KindYdoc:    (*roomCheck).compareYdocs,
	mirror.KindThread:  (*roomCheck).compareThreads,
}

func (c *roomCheck) all(ctx context.Context) error {
	var err error
	c.mirrored, err = c.cfg.Store.Room(ctx, c.room, false)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	c.known = err == nil
	if c.listed == nil {
		var content mirror.RoomContent
		err := c.fetch(ctx, func() (err error) {
			content, err = c.cfg.Fetcher.Room(ctx, c.room.Room)
			return err
		})
		if err != nil {
			return err
		}
		c.listed = &content
	}
	c.resources++
	if !c.known {
		c.add(c.room, mirror.DifferenceMissing, "the room is not mirrored")
		return nil
	}
	for _, kind := range mirror.Kinds() {
		compare := comparisons[kind]
		if compare == nil {
			continue
		}
		switch err := compare(c, ctx); {
		case errors.Is(err, errGone), ctx.Err() != nil:
			return err
		case err != nil:
			c.skip(err)
		}
	}
	return nil
}

// stored returns the stored columns of a resource; ok is false if there are none,
// which counts as a difference.
func (c *roomCheck) stored(ctx context.Context, res mirror.Resource) (stored mirror.Stored, ok bool, err error) {
	stored, err = c.cfg.Store.Stored(ctx, res)
	if errors.Is(err, store.ErrNotFound) {
		c.add(res, mirror.DifferenceMissing, "the "+res.Kind.String()+" is not mirrored")
		return stored, false, nil
	}
	return stored, err == nil, err
}

// data compares the queryable JSON with its source. An engine may leave out more
// than others if it says so.
func (c *roomCheck) data(res mirror.Resource, stored mirror.Stored, want []byte) {
	switch {
	case stored.Data == nil && stored.DataProblem == "" && want != nil:
		c.add(res, mirror.DifferenceDerived, "the queryable JSON is missing without a reason")
	case stored.Data == nil && stored.DataProblem == "" && res.Kind != mirror.KindThread:
		c.add(res, mirror.DifferenceDerived, "there is no reason for the missing queryable JSON")
	case stored.Data != nil && want == nil:
		c.add(res, mirror.DifferenceDerived, "there is queryable JSON, but none can be derived")
	case stored.Data != nil && !rawjson.SameStored(want, stored.Data):
		c.add(res, mirror.DifferenceDerived, "the queryable JSON does not match the copy")
	}
}

// sameRoom reports whether two rooms are equal but for the time of the last connection.
// It changes whenever somebody enters the room, and sweeps follow it.
func sameRoom(a, b []byte) bool {
	return rawjson.Same(a, b) || rawjson.Same(withoutConnection(a), withoutConnection(b))
}

// withoutConnection returns the JSON of a room without the time of the last connection.
func withoutConnection(room []byte) []byte {
	v, err := rawjson.Parse(room)
	if err != nil || !v.IsObject() {
		return room
	}
	out := []byte{'{'}
	for name, value := range v.Members() {
		if name == "lastConnectionAt" {
			continue
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		key, err := json.Marshal(name)
		if err != nil {
			return room
		}
		out = append(append(append(out, key...), ':'), value...)
	}
	return append(out, '}')
}

func (c *roomCheck) compareRoom(ctx context.Context) error {
	stored, ok, err := c.stored(ctx, c.room)
	if !ok {
		return err
	}
	if !sameRoom(c.listed.Source, stored.Content) {
		c.add(c.room, mirror.DifferenceContent, "the copy of the room differs from Liveblocks")
	}
	if stored.SHA256 != sha256.Sum256(stored.Content) {
		c.add(c.room, mirror.DifferenceDerived, "the hash does not match the copy")
	}
	if _, problem := derive.JSON(stored.Content); problem == "" {
		c.data(c.room, stored, stored.Content)
	} else {
		c.data(c.room, stored, nil)
	}
	if !sameTime(c.mirrored.CreateTime, c.listed.CreateTime) ||
		!sameTime(c.mirrored.LastConnectionTime, c.listed.LastConnectionTime) ||
		c.mirrored.OrganizationID != c.listed.OrganizationID {
		c.add(c.room, mirror.DifferenceDerived, "a time or the organization does not match the copy")
	}
	return nil
}

// sameTime compares times with the precision of the store.
func sameTime(a, b time.Time) bool {
	return a.Truncate(time.Microsecond).Equal(b.Truncate(time.Microsecond))
}

func (c *roomCheck) compareStorage(ctx context.Context) error {
	var fetched mirror.Fetched
	err := c.fetch(ctx, func() (err error) {
		fetched, err = c.cfg.Fetcher.Storage(ctx, c.room.Room)
		return err
	})
	if err != nil {
		return err
	}
	c.resources++
	res := c.child(mirror.KindStorage, "")
	stored, ok, err := c.stored(ctx, res)
	if ok {
		if !rawjson.Same(fetched.Body, stored.Content) {
			c.add(res, mirror.DifferenceContent, "the copy of the Storage document differs from Liveblocks")
		}
		c.document(res, stored, derive.Storage(stored.Content, c.cfg.MaxData))
	}
	return err
}

// document compares the derived columns of a document with a fresh derivation.
func (c *roomCheck) document(res mirror.Resource, stored mirror.Stored, want mirror.DocumentContent) {
	if stored.SHA256 != sha256.Sum256(stored.Content) {
		c.add(res, mirror.DifferenceDerived, "the hash does not match the copy")
	}
	c.data(res, stored, want.Data)
	if stored.Text != rawjson.Clean(want.Text) {
		c.add(res, mirror.DifferenceDerived, "the plain text does not match the copy")
	}
	if stored.DeriveVersion != want.DeriveVersion {
		c.add(res, mirror.DifferenceDerived, "the columns were derived by another version")
	}
}

// compareYdocs compares the room's Yjs document, its subdocuments, and all mirrored
// ones.
func (c *roomCheck) compareYdocs(ctx context.Context) error {
	guids := []string{""}
	err := c.eachDocument(ctx, func(d mirror.Document) {
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
		inside, err := c.compareYdoc(ctx, guids[i])
		if errors.Is(err, errGone) || ctx.Err() != nil {
			return err
		}
		if err != nil {
			c.skip(err)
		}
		if guids[i] != "" {
			continue // nested subdocuments are compared if they are mirrored
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

func (c *roomCheck) compareYdoc(ctx context.Context, guid string) (inside []string, err error) {
	var fetched mirror.Fetched
	err = c.fetch(ctx, func() (err error) {
		fetched, err = c.cfg.Fetcher.Ydoc(ctx, c.room.Room, guid)
		return err
	})
	if err != nil {
		return nil, err
	}
	c.resources++
	res := c.child(mirror.KindYdoc, guid)
	stored, ok, err := c.stored(ctx, res)
	if err != nil {
		return nil, err
	}
	if !ok {
		_, inside = derive.Ydoc(fetched.Body, c.cfg.MaxData)
		return inside, nil
	}
	want, inside := derive.Ydoc(stored.Content, c.cfg.MaxData)
	if !bytes.Equal(fetched.Body, stored.Content) {
		// Equal operations can be encoded differently.
		fresh, _ := derive.Ydoc(fetched.Body, c.cfg.MaxData)
		if want.StateSHA256 != fresh.StateSHA256 || want.StateSHA256 == [32]byte{} {
			c.add(res, mirror.DifferenceContent, "the copy of the Yjs document differs from Liveblocks")
		}
	}
	c.document(res, stored, want)
	return inside, nil
}

// eachDocument iterates over the room's mirrored documents.
func (c *roomCheck) eachDocument(ctx context.Context, do func(mirror.Document)) error {
	// Of all ids that start with the room's id, the room's own comes first.
	filter := store.DocumentFilter{Project: c.room.Project, Prefix: string(c.room.Room), Limit: listing.Batch}
	for {
		documents, err := c.cfg.Store.Documents(ctx, filter)
		if err != nil {
			return fmt.Errorf("list mirrored documents: %w", err)
		}
		for _, d := range documents {
			if d.Room != c.room.Room {
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

func (c *roomCheck) compareThreads(ctx context.Context) error {
	var list mirror.List
	err := c.fetch(ctx, func() (err error) {
		list, err = c.cfg.Fetcher.Threads(ctx, c.room.Room)
		return err
	})
	if err != nil {
		return err
	}
	has := make(map[string]bool, len(list.Items))
	for _, t := range list.Items {
		has[t.ID] = true
		c.resources++
		if err := c.compareThread(ctx, t); err != nil {
			return err
		}
	}
	filter := store.ThreadFilter{Project: c.room.Project, Room: c.room.Room, Limit: listing.Batch}
	for {
		mirrored, err := c.cfg.Store.Threads(ctx, filter)
		if err != nil {
			return fmt.Errorf("list mirrored threads: %w", err)
		}
		for _, t := range mirrored {
			if !has[t.ID] {
				c.resources++
				c.add(c.child(mirror.KindThread, t.ID), mirror.DifferenceSurplus, "Liveblocks has no such thread")
			}
		}
		if len(mirrored) < filter.Limit {
			return nil
		}
		filter.AfterRoom, filter.AfterID = c.room.Room, mirrored[len(mirrored)-1].ID
	}
}

func (c *roomCheck) compareThread(ctx context.Context, listed mirror.Listed) error {
	res := c.child(mirror.KindThread, listed.ID)
	shown, err := c.cfg.Store.Thread(ctx, res, false)
	if errors.Is(err, store.ErrNotFound) {
		c.add(res, mirror.DifferenceMissing, "the thread is not mirrored")
		return nil
	}
	if err != nil {
		return err
	}
	stored, ok, err := c.stored(ctx, res)
	if !ok {
		return err
	}
	want, err := thread.Parse(stored.Content)
	if same := err == nil && want.ID == listed.ID && want.SHA256 == listed.SHA256; !same {
		c.add(res, mirror.DifferenceContent, "the copy of the thread differs from Liveblocks")
		return nil
	}
	if stored.SHA256 != want.SHA256 {
		c.add(res, mirror.DifferenceDerived, "the hash does not match the copy")
	}
	c.data(res, stored, want.Metadata)
	if !sameTime(shown.CreateTime, want.CreateTime) || !sameTime(shown.UpdateTime, want.UpdateTime) ||
		shown.Resolved != want.Resolved || shown.Visibility != want.Visibility {
		c.add(res, mirror.DifferenceDerived, "a time, the resolved flag or the visibility does not match the copy")
	}
	if store.CommentCount(want) != stored.CommentCount || stored.Data != nil &&
		!sameColumn(store.MetadataText(want.Metadata), stored.MetadataText) {
		c.add(res, mirror.DifferenceDerived, "the number of comments or the metadata as text does not match the copy")
	}
	if what := commentsDiffer(want.Comments, stored.Comments); what != "" {
		c.add(res, mirror.DifferenceDerived, what)
	}
	return nil
}

// commentsDiffer returns how the rows of comments differ from the thread, or "" if
// they do not.
func commentsDiffer(want, got []mirror.Comment) string {
	byID := func(a, b mirror.Comment) int { return cmp.Compare(a.ID, b.ID) }
	want, got = slices.SortedFunc(slices.Values(want), byID), slices.SortedFunc(slices.Values(got), byID)
	if !slices.EqualFunc(want, got, func(a, b mirror.Comment) bool { return a.ID == b.ID }) {
		return "the rows of comments do not match the thread"
	}
	for i, w := range want {
		g := got[i]
		switch {
		case w.UserID != g.UserID || !bytes.Equal(w.Source, g.Source) ||
			!sameTime(written(w.CreateTime), g.CreateTime) || !sameTime(w.EditTime, g.EditTime) ||
			!sameTime(w.DeleteTime, g.DeleteTime):
			return "the row of a comment does not match the thread"
		case w.Text != g.Text || w.Markdown != g.Markdown:
			return "the text of a comment does not match the thread"
		case !sameColumn(w.Body, g.Body) || !sameColumn(w.Metadata, g.Metadata):
			return "the queryable JSON of a comment does not match the thread"
		case !sameSet(w.Reactions, g.Reactions, compareReactions):
			return "the reactions to a comment do not match the thread"
		case !sameSet(w.Attachments, g.Attachments, func(a, b mirror.Attachment) int {
			return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Name, b.Name), cmp.Compare(a.MIMEType, b.MIMEType),
				cmp.Compare(a.Size, b.Size))
		}):
			return "the attachments of a comment do not match the thread"
		case !sameSet(mentioned(w.Mentions), mentioned(g.Mentions),
			func(a, b [3]string) int { return slices.Compare(a[:], b[:]) }):
			return "the mentions in a comment do not match the thread"
		}
	}
	return ""
}

// written returns the creation time of a comment as stored. Lists are ordered by
// it.
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
	return rawjson.SameStored(want, stored)
}

func compareReactions(a, b mirror.Reaction) int {
	return cmp.Or(cmp.Compare(a.Emoji, b.Emoji), cmp.Compare(a.UserID, b.UserID),
		a.CreateTime.Truncate(time.Microsecond).Compare(b.CreateTime.Truncate(time.Microsecond)))
}

// mentioned lists the mentioned users and groups: kind, id, and the group they are
// mentioned through.
func mentioned(mentions []mirror.Mention) (all [][3]string) {
	for _, m := range mentions {
		all = append(all, [3]string{m.Kind, m.ID, ""})
		for _, user := range m.UserIDs {
			all = append(all, [3]string{"user", user, m.ID})
		}
	}
	return all
}

// sameSet reports whether two lists contain the same elements, ignoring order and
// repetition.
func sameSet[T any](a, b []T, compare func(T, T) int) bool {
	set := func(all []T) []T {
		sorted := slices.SortedFunc(slices.Values(all), compare)
		return slices.CompactFunc(sorted, func(x, y T) bool { return compare(x, y) == 0 })
	}
	return slices.EqualFunc(set(a), set(b), func(x, y T) bool { return compare(x, y) == 0 })
}
