package rpc

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// A task id is taskIDVersion, the kind, the length of the room id, the room id
// and the resource's own id. The project is not in it: it comes from the
// request, so an id from one project names nothing in another.
const (
	taskIDVersion = 1
	taskIDHeader  = 2 + 2
)

var errTaskID = errors.New("task id is not one of ours")

// formatTaskID returns the id of the task that keeps the resource in step.
func formatTaskID(r mirror.Resource) string {
	raw := make([]byte, 0, taskIDHeader+len(r.Room)+len(r.ID))
	raw = append(raw, taskIDVersion, byte(r.Kind))
	raw = binary.BigEndian.AppendUint16(raw, uint16(len(r.Room)))
	raw = append(raw, r.Room...)
	raw = append(raw, r.ID...)
	return base64.RawURLEncoding.EncodeToString(raw)
}

// parseTaskID reads what formatTaskID wrote, and only that: every task has one
// id.
func parseTaskID(project mirror.ProjectID, id string) (mirror.Resource, error) {
	raw, err := decodeBase64(id)
	if err != nil || len(raw) < taskIDHeader || raw[0] != taskIDVersion {
		return mirror.Resource{}, errTaskID
	}
	length := int(binary.BigEndian.Uint16(raw[2:]))
	rest := raw[taskIDHeader:]
	if length > len(rest) {
		return mirror.Resource{}, errTaskID
	}
	r := mirror.Resource{
		Project: project,
		Kind:    mirror.Kind(raw[1]),
		Room:    mirror.RoomID(rest[:length]),
		ID:      string(rest[length:]),
	}
	if !validResource(r.Room, r.Kind, r.ID) {
		return mirror.Resource{}, errTaskID
	}
	return r, nil
}

// validResource reports whether there can be such a resource. Rooms and their
// Storage are one of a kind in a room and have no id of their own.
func validResource(room mirror.RoomID, kind mirror.Kind, id string) bool {
	return mirror.ValidID(string(room), mirror.MaxRoomID) && slices.Contains(mirror.Kinds(), kind) && id == ""
}
