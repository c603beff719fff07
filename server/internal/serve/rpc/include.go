package rpc

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"

	"golang.org/x/sync/semaphore"
	"google.golang.org/protobuf/proto"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/thread"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/documents"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/feed"
)

// Resources come with changes on request. They are read after the changes, so each is at least
// as new as the change that it stands beside, and all of a kind with one statement. A response
// holds as many as fit; f returns behind the last change of it, and the next one goes on there.

const (
	// includeChanges is how many changes a response with resources has at most.
	includeChanges = 100
	// maxIncluded is the size of the largest resource that comes with a change, and
	// includeBytes that of the changes of a response, unless the first alone is larger.
	maxIncluded, includeBytes = 256 << 10, 1 << 20
	// includeFull is how many changes with whole resources are looked at at once at most: what is
	// read for them counts, each with its source and its form.
	includeFull = 8
	// maxBasicSource is the size of the largest source of a thread that is read for its metadata.
	maxBasicSource = 16 << 10
	// includeReads is what is read at once at most.
	includeReads = max(includeFull*2*maxIncluded, includeChanges*maxBasicSource)
	// callerMemory is which part of the memory for responses with resources one caller has at
	// most, so that none has to wait for all that another does not take.
	callerMemory = 2
	// defaultChangeMemory is how many bytes of responses with resources are on their way at once
	// unless it is configured.
	defaultChangeMemory = 64 << 20
)

// IncludeStore reads resources by their keys.
type IncludeStore interface {
	documents.Store
	RoomsByID(ctx context.Context, project mirror.ProjectID, ids []mirror.RoomID, source bool) ([]mirror.Room, error)
	ThreadsByID(ctx context.Context, project mirror.ProjectID, threads []mirror.Resource, inline int64) (
		[]mirror.Thread, error)
	GroupsByID(ctx context.Context, project mirror.ProjectID, groups []mirror.Resource) ([]mirror.Group, error)
	ActiveUsersByRoom(ctx context.Context, project mirror.ProjectID, rooms []mirror.Resource) ([]mirror.ActiveUsers, error)
}

// included are changes of a response, perhaps with resources.
type included struct {
	changes []*mirrorv1.Change
	// newest are the revisions of the resources.
	newest mirror.Position
	// memory is what they take.
	memory *includedMemory
}

// release is to be called once the changes were sent.
func (i *included) release() { i.memory.keep(0) }

// includedMemory is memory for a response with resources; nil if it has none.
type includedMemory struct {
	// of are whom it is given back to: all, and one caller.
	of   []*semaphore.Weighted
	held int64
}

// keep gives back all but n bytes.
func (m *includedMemory) keep(n int64) {
	if m == nil || m.held <= n {
		return
	}
	for _, of := range m.of {
		of.Release(m.held - n)
	}
	m.held = n
}

// reserve waits for the memory that the next response for f takes until it is sent, together with
// what is read for it. It is for those who have no turn to read: whoever waits must not keep
// others from reading.
func (s *changeService) reserve(ctx context.Context, f *following) (*includedMemory, error) {
	if !f.includes() {
		return nil, nil //nolint:nilnil // it takes none
	}
	n := min(includeReads+includeBytes+maxIncluded, callerShare(s.Memory))
	m := &includedMemory{held: n}
	for _, of := range []*semaphore.Weighted{f.memory, s.memory} { // who waits for others has its share
		if err := of.Acquire(ctx, n); err != nil {
			m.keep(0)
			return nil, fmt.Errorf("wait for memory: %w", err)
		}
		m.of = append(m.of, of)
	}
	return m, nil
}

// callerShare is how many bytes of the memory for responses with resources one caller has.
func callerShare(all int64) int64 { return max(all/callerMemory, 1) }

// bring returns the changes of a page that fit one response, with what the request includes, and
// leaves f behind them. before is where the page was read from. They are to be released.
func (s *changeService) bring(ctx context.Context, f *following, before *feed.Mark, changes []mirror.Change,
	p patience,
) (out included, err error) {
	if !f.includes() {
		return included{changes: changesToProto(changes)}, nil
	}
	behind := f.Mark()
	f.Return(before, nil) // a heartbeat meanwhile has no token behind what was not sent
	var memory *includedMemory
	err = s.await(ctx, f, p, func(ctx context.Context) (err error) {
		if memory, err = s.reserve(ctx, f); err != nil {
			return err
		}
		leave, err := s.turn(ctx, f)
		if err != nil {
			return err
		}
		defer leave()
		out, err = s.include(ctx, f, changes, memory)
		return err
	})
	if err != nil {
		memory.keep(0)
		return included{}, err
	}
	if n := len(out.changes); n < len(changes) {
		f.Return(before, changes[:n])
	} else {
		f.Return(&behind, nil)
	}
	for bucket, n := range out.newest {
		f.seen[bucket] = max(f.seen[bucket], n)
	}
	return out, nil
}

// include returns the first of some changes, as many as fit one response, with what the request
// of f includes. It keeps of the memory what they take.
func (s *changeService) include(ctx context.Context, f *following, changes []mirror.Change, memory *includedMemory,
) (out included, err error) {
	out.memory = memory
	if !f.includes() || len(changes) == 0 {
		memory.keep(0)
		out.changes = changesToProto(changes)
		return out, nil
	}
	limit := min(includeBytes, s.pageBudget())
	largest := min(maxIncluded, limit)
	bearers := bearersOf(changes)
	total := 0
	for begin, fits := 0, true; fits && begin < len(changes); {
		some := changes[begin:min(begin+f.chunk(limit-total), len(changes))]
		found, err := s.find(ctx, f, some, begin, bearers)
		if err != nil {
			return out, err
		}
		for i, message := range changesToProto(some) {
			if err := attach(message, found, &some[i], bearers[some[i].Resource].at, begin+i, largest); err != nil {
				s.log.WarnContext(ctx, "a resource is damaged, or a defect keeps it from being read; its change comes without it",
					slog.String("project", string(f.scope.project)), slog.String("kind", some[i].Resource.Kind.String()),
					slog.Any("error", err))
			}
			size := proto.Size(message)
			if total+size > limit && len(out.changes) > 0 {
				fits = false // the rest comes with the next response
				break
			}
			total += size
			out.changes = append(out.changes, message)
			if c := found[some[i].Resource]; message.GetResource() != nil {
				out.newest[some[i].Bucket] = max(out.newest[some[i].Bucket], c.revision)
			}
		}
		begin += len(some)
		f.mean = total / len(out.changes)
		fits = fits && f.mean <= limit-total
	}
	memory.keep(int64(total))
	return out, nil
}

// chunk is how many changes are looked at at once while left bytes of a response are left: not
// many more than fit, or the same resources would be read again for the next response.
func (f *following) chunk(left int) int {
	if f.include != mirrorv1.ChangeInclude_CHANGE_INCLUDE_FULL {
		return includeChanges
	}
	if f.mean == 0 {
		return includeFull
	}
	return max(1, min(left/f.mean, includeFull))
}

// bearer says which of some changes bears a resource.
type bearer struct {
	// at is the change; negative if the resource was deleted since.
	at int
	// epoch is that of the last change, and last its number.
	epoch, last int64
}

// bearersOf returns for each resource which of some changes bears it: the first since it was
// last deleted or created again. So whoever handles the changes in order, and goes by their
// kinds and epochs, has it in the end.
func bearersOf(changes []mirror.Change) map[mirror.Resource]bearer {
	bearers := make(map[mirror.Resource]bearer)
	for i, c := range changes {
		b, known := bearers[c.Resource]
		switch {
		case c.Kind == mirror.ChangeDeleted:
			b.at = -1
		case !known || b.at < 0 || b.epoch != c.Epoch:
			b.at = i
		}
		b.epoch, b.last = c.Epoch, c.Number
		bearers[c.Resource] = b
	}
	return bearers
}

// resource is a resource as it comes with a change.
type resource struct {
	revision int64
	// attach sets it in a change, unless it has no such form.
	attach func(*mirrorv1.Change) error
	// tooLarge and unreadable say why there is nothing to attach, and damage why it is
	// unreadable if that is a defect.
	tooLarge, unreadable bool
	damage               error
}

// attachTo calls attach. A panic, as of a decoder, is damage.
func (r *resource) attachTo(message *mirrorv1.Change) (ok bool, damage error) {
	defer func() {
		if v := recover(); v != nil {
			ok, damage = false, fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		}
	}()
	return r.attach(message) == nil, nil
}

// attach adds what was found to a change, or why it does not come with it. It returns the defect
// if it is one.
func attach(message *mirrorv1.Change, found map[mirror.Resource]resource, c *mirror.Change, bearer, index, largest int,
) (damage error) {
	omit := func(why mirrorv1.ResourceOmission) { message.Omission = &why }
	r, ok := found[c.Resource]
	switch {
	case c.Resource.Kind == mirror.KindUserSessions || c.Resource.Kind == mirror.KindNotification:
		omit(mirrorv1.ResourceOmission_RESOURCE_OMISSION_HISTORY)
	case c.Kind == mirror.ChangeDeleted || index < bearer || bearer < 0:
		omit(mirrorv1.ResourceOmission_RESOURCE_OMISSION_DELETED)
	case index > bearer:
		omit(mirrorv1.ResourceOmission_RESOURCE_OMISSION_EARLIER)
	case !ok:
		omit(mirrorv1.ResourceOmission_RESOURCE_OMISSION_DELETED)
	case r.unreadable:
		damage = r.damage
		omit(mirrorv1.ResourceOmission_RESOURCE_OMISSION_UNREADABLE)
	case r.tooLarge:
		omit(mirrorv1.ResourceOmission_RESOURCE_OMISSION_TOO_LARGE)
	default:
		bare := proto.Size(message)
		if ok, damage = r.attachTo(message); !ok {
			message.Resource = nil
			omit(mirrorv1.ResourceOmission_RESOURCE_OMISSION_UNREADABLE)
		} else if proto.Size(message)-bare > largest {
			message.Resource = nil
			omit(mirrorv1.ResourceOmission_RESOURCE_OMISSION_TOO_LARGE)
		}
	}
	return damage
}

// find reads the resources of which some changes are the bearers. The first of them is at begin.
func (s *changeService) find(ctx context.Context, f *following, changes []mirror.Change, begin int,
	bearers map[mirror.Resource]bearer,
) (map[mirror.Resource]resource, error) {
	wanted := make(map[mirror.Kind][]mirror.Resource)
	for i, c := range changes {
		if bearers[c.Resource].at == begin+i {
			kind := c.Resource.Kind
			if kind == mirror.KindYdoc {
				kind = mirror.KindStorage // they are read together
			}
			wanted[kind] = append(wanted[kind], c.Resource)
		}
	}
	found := make(map[mirror.Resource]resource)
	full := f.include == mirrorv1.ChangeInclude_CHANGE_INCLUDE_FULL
	project := f.scope.project
	if list := wanted[mirror.KindRoom]; list != nil {
		ids := make([]mirror.RoomID, len(list))
		for i, r := range list {
			ids[i] = r.Room
		}
		rooms, err := s.Resources.RoomsByID(ctx, project, ids, true)
		if err != nil {
			return nil, fmt.Errorf("read rooms: %w", err)
		}
		for _, room := range rooms {
			if room.Freshness.DeleteTime.IsZero() {
				found[mirror.Resource{Project: project, Room: room.ID, Kind: mirror.KindRoom}] = resource{
					revision: room.Freshness.Revision, attach: func(c *mirrorv1.Change) error {
						c.Resource = &mirrorv1.Change_Room{Room: roomToProto(&room, full)}
						return nil
					},
				}
			}
		}
	}
	if list := wanted[mirror.KindStorage]; list != nil {
		if err := s.findDocuments(ctx, list, full, found); err != nil {
			return nil, err
		}
	}
	if list := wanted[mirror.KindThread]; list != nil {
		inline := int64(maxBasicSource)
		if full {
			inline = maxIncluded
		}
		threads, err := s.Resources.ThreadsByID(ctx, project, list, inline)
		if err != nil {
			return nil, fmt.Errorf("read threads: %w", err)
		}
		for _, row := range threads {
			found[mirror.Resource{Project: project, Room: row.Room, Kind: mirror.KindThread, ID: row.ID}] = threadOfChange(&row,
				full)
		}
	}
	if list := wanted[mirror.KindActiveUsers]; list != nil {
		rooms, err := s.Resources.ActiveUsersByRoom(ctx, project, list)
		if err != nil {
			return nil, fmt.Errorf("read active users: %w", err)
		}
		for _, row := range rooms {
			found[mirror.Resource{Project: project, Room: row.Room, Kind: mirror.KindActiveUsers}] = resource{
				revision: row.Freshness.Revision, attach: func(c *mirrorv1.Change) error {
					c.Resource = &mirrorv1.Change_ActiveUsers{ActiveUsers: activeUsersToProto(&row)}
					return nil
				},
			}
		}
	}
	if list := wanted[mirror.KindGroup]; list != nil {
		groups, err := s.Resources.GroupsByID(ctx, project, list)
		if err != nil {
			return nil, fmt.Errorf("read groups: %w", err)
		}
		for _, row := range groups {
			found[mirror.Resource{Project: project, Kind: mirror.KindGroup, ID: row.ID}] = resource{
				revision: row.Freshness.Revision, attach: func(c *mirrorv1.Change) error {
					c.Resource = &mirrorv1.Change_Group{Group: groupToProto(&row)}
					return nil
				},
			}
		}
	}
	for r, got := range found {
		if got.revision < bearers[r].last {
			return nil, feed.ErrLags()
		}
	}
	return found, nil
}

// findDocuments reads documents, as JSON if they are wanted in full.
func (s *changeService) findDocuments(ctx context.Context, list []mirror.Resource, full bool,
	found map[mirror.Resource]resource,
) error {
	limit := int64(-1)
	if full {
		limit = maxIncluded
	}
	docs, err := s.documents.ReadMany(ctx, list, limit)
	if err != nil {
		return err
	}
	for i, doc := range docs {
		if doc == nil {
			continue
		}
		name, format, err := documents.FormatOf(list[i].Kind, mirrorv1.DocumentFormat_DOCUMENT_FORMAT_UNSPECIFIED)
		if err != nil {
			return err
		}
		found[list[i]] = resource{
			revision: doc.Freshness.Revision, unreadable: doc.Err != nil, damage: doc.Damage,
			tooLarge: full && doc.Body == nil,
			attach: func(c *mirrorv1.Change) error {
				shown := documentToProto(&doc.Document)
				if full {
					shown.Content, shown.Format, shown.ContentType = doc.Body, name, format.MediaType
				}
				c.Resource = &mirrorv1.Change_Document{Document: shown}
				return nil
			},
		}
	}
	return nil
}

func threadOfChange(row *mirror.Thread, full bool) resource {
	r := resource{
		revision: row.Freshness.Revision,
		// Without its source, its metadata is what is stored for queries, if it can be.
		tooLarge: row.Source == nil && (full || row.Metadata == nil && row.DataProblem != ""),
	}
	r.attach = func(c *mirrorv1.Change) (err error) {
		shown := threadToProto(row)
		if full {
			shown.Comments, err = commentsToProto(row)
		}
		c.Resource = &mirrorv1.Change_Thread{Thread: shown}
		return err
	}
	return r
}

// commentsToProto reads the comments of a thread from its source.
func commentsToProto(row *mirror.Thread) ([]*mirrorv1.Comment, error) {
	parsed, err := thread.ParseExact(row.Source)
	if err != nil {
		return nil, err
	}
	var comments []*mirrorv1.Comment
	for i := range parsed.Comments {
		c := &parsed.Comments[i]
		c.Project, c.Room, c.Thread, c.Freshness = row.Project, row.Room, row.ID, row.Freshness
		comments = append(comments, commentToProto(c))
	}
	return comments, nil
}

func activeUsersToProto(row *mirror.ActiveUsers) *mirrorv1.ActiveUserList {
	list := &mirrorv1.ActiveUserList{Freshness: freshnessToProto(row.Freshness, nil)}
	for i := range row.Users {
		list.ActiveUsers = append(list.ActiveUsers, activeUserToProto(&row.Users[i]))
	}
	return list
}

func activeUserToProto(u *mirror.ActiveUser) *mirrorv1.ActiveUser {
	return &mirrorv1.ActiveUser{ConnectionId: u.ConnectionID, UserId: u.UserID, InfoJson: u.Info}
}
