package verify

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/derive"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/rawjson"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/memory"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/sync/listing"
)

// roomCheck compares one room and everything in it once.
type roomCheck struct {
	comparison

	room mirror.Resource
	// listed is the room as listed; nil if it must be fetched.
	listed *mirror.RoomContent
	// known means that the room is mirrored; mirrored is its copy.
	known    bool
	mirrored mirror.Room
}

// check returns the differences, at most one for each resource.
func (c *roomCheck) check(ctx context.Context) (map[mirror.Resource]finding, []skipped) {
	c.found = make(map[mirror.Resource]finding)
	switch err := c.all(ctx); {
	case errors.Is(err, errGone):
		clear(c.found)
		if c.known {
			c.add(c.room, mirror.DifferenceSurplus, "Liveblocks has no such room")
		}
	case err != nil:
		c.skip(c.room, err)
	}
	return c.found, append(c.skipped, c.tasks(ctx, c.found)...)
}

// child returns a resource in the room.
func (c *roomCheck) child(kind mirror.Kind, id string) mirror.Resource {
	return mirror.Resource{Project: c.room.Project, Room: c.room.Room, Kind: kind, ID: id}
}

// comparisons compare with Liveblocks what of a kind is in a room. Items have one for all
// kinds.
var comparisons = map[mirror.Kind]func(*roomCheck, context.Context) error{
	mirror.KindRoom:    (*roomCheck).compareRoom,
	mirror.KindStorage: (*roomCheck).compareStorage,
	mirror.KindYdoc:    (*roomCheck).compareYdocs,
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
		err := c.fetch(ctx, c.room, func() (err error) {
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
		c.addMissing(c.room)
		return nil
	}
	for _, kind := range mirror.Kinds() {
		if t := kind.Traits(); !t.Verified || t.Scope != mirror.ScopeRoom {
			continue
		}
		compare := comparisons[kind]
		if compare == nil {
			compare = func(c *roomCheck, ctx context.Context) error { return c.compareItems(ctx, c.child(kind, "")) }
		}
		switch err := compare(c, ctx); {
		case errors.Is(err, errGone), ctx.Err() != nil:
			return err
		case err != nil:
			c.skip(c.child(kind, ""), err)
		}
	}
	return nil
}

// stored returns the stored columns of a resource; ok is false if there are none,
// which counts as a difference.
func (c *roomCheck) stored(ctx context.Context, res mirror.Resource) (stored mirror.Stored, ok bool, err error) {
	stored, err = c.cfg.Store.Stored(ctx, res)
	if errors.Is(err, store.ErrNotFound) {
		c.addMissing(res)
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
	case stored.Data == nil && stored.DataProblem == "":
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
	ctx, end := c.cfg.Memory.Begin(ctx)
	defer end()
	var fetched mirror.Fetched
	err := c.fetch(ctx, c.child(mirror.KindStorage, ""), func() (err error) {
		fetched, err = c.cfg.Fetcher.Storage(ctx, c.room.Room)
		return err
	})
	if err != nil {
		return err
	}
	c.resources++
	// The copy is about as long.
	if err := memory.ForDecoding(ctx, 2*derive.StorageWeight*int64(len(fetched.Body))); err != nil {
		return err
	}
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
			c.skip(c.child(mirror.KindYdoc, guids[i]), err)
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
	ctx, end := c.cfg.Memory.Begin(ctx)
	defer end()
	var fetched mirror.Fetched
	err = c.fetch(ctx, c.child(mirror.KindYdoc, guid), func() (err error) {
		fetched, err = c.cfg.Fetcher.Ydoc(ctx, c.room.Room, guid)
		return err
	})
	if err != nil {
		return nil, err
	}
	c.resources++
	if err := memory.ForDecoding(ctx, 2*derive.YdocWeight*int64(len(fetched.Body))); err != nil {
		return nil, err
	}
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
