package rpc

import (
	"encoding/base64"
	"encoding/binary"
	"errors"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// A task id is a taskIDHead, the room id and the resource's own id. The project
// is not in it: it comes from the request, so an id from one project names
// nothing in another.
type taskIDHead struct {
	Version byte
	Kind    mirror.Kind
	RoomLen uint16
}

const taskIDVersion = 1

var errTaskID = errors.New("task id is not one of ours")

// formatTaskID returns the id of the task that keeps the resource in step.
func formatTaskID(r mirror.Resource) string {
	head := taskIDHead{
		Version: taskIDVersion, Kind: r.Kind,
		RoomLen: uint16(len(r.Room)), //nolint:gosec // at most mirror.MaxRoomID
	}
	raw, _ := binary.Append(nil, binary.BigEndian, head) // of fixed size, so it cannot fail
	raw = append(raw, r.Room...)
	raw = append(raw, r.ID...)
	return base64.RawURLEncoding.EncodeToString(raw)
}

// parseTaskID reads what formatTaskID wrote, and only that: every task has one
// id.
func parseTaskID(project mirror.ProjectID, id string) (mirror.Resource, error) {
	raw, err := decodeBase64(id)
	if err != nil {
		return mirror.Resource{}, errTaskID
	}
	var head taskIDHead
	n, err := binary.Decode(raw, binary.BigEndian, &head)
	if err != nil || head.Version != taskIDVersion {
		return mirror.Resource{}, errTaskID
	}
	raw = raw[n:]
	room := int(head.RoomLen)
	if room > len(raw) {
		return mirror.Resource{}, errTaskID
	}
	r := mirror.Resource{Project: project, Kind: head.Kind, Room: mirror.RoomID(raw[:room]), ID: string(raw[room:])}
	if !r.Valid() {
		return mirror.Resource{}, errTaskID
	}
	return r, nil
}
