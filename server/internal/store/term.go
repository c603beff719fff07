package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/rawjson"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// TermKind says what a [Term] is about. The values are in stored hashes.
type TermKind byte

// The kinds of term.
const (
	// TermRoom is the one term that every room has.
	TermRoom TermKind = 1
	// TermMetadata is a string in a room's metadata, or any value in a thread's as
	// [MetadataText] has it. Lists of strings are none: Liveblocks' queries do not find them.
	TermMetadata TermKind = 2
	// TermUser and TermGroup are a user or a group with access of its own to a room. What
	// everybody may do is not counted, and neither is an empty list, which takes access away.
	TermUser  TermKind = 3
	TermGroup TermKind = 4
	// TermOrganization is the organization of a room.
	TermOrganization TermKind = 5
)

// Term is a property by which lists select rooms or threads.
type Term struct {
	Kind TermKind
	// Name is the key in the metadata; empty for other kinds.
	Name  string
	Value string
}

// termHash identifies a term in mirror_room_term and mirror_thread_term. Terms can be of any
// length, keys of indexes cannot.
const termHash = 16

// Hash returns what is stored of a term.
func (t Term) Hash() []byte {
	h := sha256.New()
	h.Write([]byte{byte(t.Kind)})
	name := sha256.Sum256([]byte(t.Name))
	h.Write(name[:])
	h.Write([]byte(t.Value))
	return h.Sum(nil)[:termHash]
}

// ThreadTerm returns what is stored of a term of threads: a value in their metadata, as
// [MetadataText] has it.
func ThreadTerm(name, value string) string {
	return hex.EncodeToString(Term{Kind: TermMetadata, Name: name, Value: value}.Hash())
}

// ThreadTerms returns what is stored of the terms of a thread, in order and without
// duplicates, given its [MetadataText].
func ThreadTerms(metadataText []byte) []string {
	metadata, err := rawjson.Parse(metadataText)
	if err != nil {
		return nil // none is stored
	}
	var terms []string
	for name, v := range metadata.Members() {
		terms = append(terms, ThreadTerm(name, v.Exact()))
	}
	slices.Sort(terms)
	return slices.Compact(terms)
}

// RoomTerms returns the terms of a room, without duplicates. They depend on its source
// alone.
func RoomTerms(source []byte) []Term {
	terms := []Term{{Kind: TermRoom}}
	room, err := rawjson.Parse(source)
	if err != nil {
		return terms
	}
	organization := room.Get("organizationId").Exact()
	if organization == "" {
		organization = room.Get("tenantId").Exact() // its old name
	}
	if organization != "" {
		terms = append(terms, Term{Kind: TermOrganization, Value: organization})
	}
	for name, v := range last(room.Get("metadata")) {
		if v.IsString() {
			terms = append(terms, Term{Kind: TermMetadata, Name: name, Value: v.Exact()})
		}
	}
	for kind, accesses := range map[TermKind]string{TermUser: "usersAccesses", TermGroup: "groupsAccesses"} {
		for id, scopes := range last(room.Get(accesses)) {
			for range scopes.Elements() {
				terms = append(terms, Term{Kind: kind, Value: id})
				break
			}
		}
	}
	return terms
}

// last returns the members of an object, of duplicates the last.
func last(v rawjson.Value) map[string]rawjson.Value {
	members := make(map[string]rawjson.Value)
	for name, member := range v.Members() {
		members[name] = member
	}
	return members
}

// RoomTermHashes returns what is stored of the terms of a room, in order.
func RoomTermHashes(source []byte) [][]byte {
	terms := RoomTerms(source)
	hashes := make([][]byte, len(terms))
	for i, t := range terms {
		hashes[i] = t.Hash()
	}
	slices.SortFunc(hashes, slices.Compare[[]byte])
	return hashes
}

// ListTime is the time by which lists order a room: those without a time of creation come
// last.
func ListTime(created time.Time) time.Time {
	if created.IsZero() {
		return time.Unix(0, 0).UTC()
	}
	return created
}

// LatestRoomFilter selects rooms.
type LatestRoomFilter struct {
	Project mirror.ProjectID
	Rooms   Prefixes
	Prefix  string
	// Terms select rooms that have at least one of each list.
	Terms [][]Term
	// AfterTime and AfterID are the ListTime and the id of the last room of the previous page.
	AfterTime time.Time
	AfterID   mirror.RoomID
	Limit     int
}

// Within reports whether a room with this id can be selected.
func (f LatestRoomFilter) Within(id mirror.RoomID) bool {
	return f.Rooms.Select(id) && strings.HasPrefix(string(id), f.Prefix)
}

// Selects reports whether a room is selected, wherever the page begins.
func (f LatestRoomFilter) Selects(id mirror.RoomID, source []byte) bool {
	if !f.Within(id) || len(f.Terms) == 0 {
		return f.Within(id)
	}
	have := RoomTerms(source)
	return !slices.ContainsFunc(f.Terms, func(some []Term) bool {
		return !slices.ContainsFunc(some, func(t Term) bool { return slices.Contains(have, t) })
	})
}

// SelectedBy returns the terms of rooms that have all strings in their metadata, are of an
// organization, and to which a user or one of the groups has access of its own. What is empty
// selects all rooms.
func SelectedBy(metadata map[string]string, organization, user string, groups []string) (terms [][]Term) {
	for _, name := range slices.Sorted(maps.Keys(metadata)) {
		terms = append(terms, []Term{{Kind: TermMetadata, Name: name, Value: metadata[name]}})
	}
	if organization != "" {
		terms = append(terms, []Term{{Kind: TermOrganization, Value: organization}})
	}
	var access []Term
	if user != "" {
		access = append(access, Term{Kind: TermUser, Value: user})
	}
	for _, id := range groups {
		access = append(access, Term{Kind: TermGroup, Value: id})
	}
	if len(access) > 0 {
		terms = append(terms, access)
	}
	return terms
}

// IndexPlace is the place of a room or a thread among those of all projects. The zero one is
// before all of them.
type IndexPlace struct {
	Bucket  int16
	Project mirror.ProjectID
	Room    mirror.RoomID
	Thread  string
}

// Indexer is the part of [Mirror] that indexes rooms and threads.
type Indexer interface {
	IndexRooms(ctx context.Context, project mirror.ProjectID, after IndexPlace, limit int) (last IndexPlace, n int,
		err error)
	IndexThreads(ctx context.Context, project mirror.ProjectID, after IndexPlace, limit int) (last IndexPlace, n int,
		err error)
}

// indexPiece is how many rooms or threads are indexed together.
const indexPiece = 100

// Indexed counts what [IndexAll] has indexed.
type Indexed struct{ Rooms, Threads int }

// IndexAll indexes the rooms and threads of a project that are not, or those of all projects
// if it is empty, some at a time, with pauses, and returns how many they were. It goes through
// them once, so it ends whatever is written meanwhile. told, if set, is called after each
// piece.
func IndexAll(ctx context.Context, m Indexer, project mirror.ProjectID, told func(Indexed)) (Indexed, error) {
	var done Indexed
	var pace pace
	for _, kind := range []struct {
		index func(ctx context.Context, project mirror.ProjectID, after IndexPlace, limit int) (IndexPlace, int, error)
		done  *int
	}{{m.IndexRooms, &done.Rooms}, {m.IndexThreads, &done.Threads}} {
		for after, n := (IndexPlace{}), 1; n > 0; {
			err := pace.pause(ctx)
			if err == nil {
				after, n, err = kind.index(ctx, project, after, indexPiece)
			}
			if *kind.done += n; err != nil {
				return done, err
			}
			if n > 0 && told != nil {
				told(done)
			}
		}
	}
	return done, nil
}

// TermPlace is the place of a term among those of the rooms, or of the threads, in a bucket.
// The zero one is before all of them.
type TermPlace struct {
	Room   mirror.RoomID
	Thread string
	// Term is what is stored of it.
	Term string
}

// CleanedTerms is what was done to a piece of the terms of a bucket.
type CleanedTerms struct {
	// Last is the place of the last term that was looked at, More that others may follow.
	Last TermPlace
	More bool
	// Deleted is how many terms were deleted.
	Deleted int
}

// TermCleaner is the part of [Mirror] that deletes terms of what is gone.
type TermCleaner interface {
	CleanTerms(ctx context.Context, project mirror.ProjectID, of mirror.Kind, bucket int16, after TermPlace, limit int) (
		CleanedTerms, error)
}

// cleanPiece is how many terms are looked at together.
const cleanPiece = 1000

// CleanAllTerms deletes the terms of a project of what is gone, some at a time, with pauses,
// and returns how many they were.
func CleanAllTerms(ctx context.Context, m TermCleaner, project mirror.ProjectID) (deleted int, err error) {
	pace, worked := pace{}, true
	for _, kind := range []mirror.Kind{mirror.KindRoom, mirror.KindThread} {
		for bucket := range int16(mirror.Buckets) {
			for piece := (CleanedTerms{More: true}); piece.More; {
				if worked { // an empty bucket costs next to nothing
					err = pace.pause(ctx)
				}
				after := piece.Last
				if err == nil {
					piece, err = m.CleanTerms(ctx, project, kind, bucket, after, cleanPiece)
				}
				if deleted += piece.Deleted; err != nil {
					return deleted, err
				}
				worked = piece.Last != after
			}
		}
	}
	return deleted, nil
}
