package rpc

import (
	"encoding/base64"
	"encoding/binary"
	"errors"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// A task id is a taskIDHead, the room id and the resource's own id. It does not
// contain the project, which the request names, so an id of one project has no
// meaning in another.
type taskIDHead struct {
	Version byte
	Kind    mirror.Kind
	RoomLen uint16
}

const taskIDVersion = 1

var errTaskID = errors.New("task id is not one of ours")

// formatTaskID returns the id of the resource's task.
func formatTaskID(r mirror.Resource) string {
	head := taskIDHead{
		Version: taskIDVersion, Kind: r.Kind,
		RoomLen: uint16(len(r.Room)), //nolint:gosec // at most mirror.MaxRoomID
	}
	raw, _ := binary.Append(nil, binary.BigEndian, head) // cannot fail: the size is fixed
	raw = append(raw, r.Room...)
	raw = append(raw, r.ID...)
	return base64.RawURLEncoding.EncodeToString(raw)
}

// parseTaskID parses a task id. It accepts only what formatTaskID writes, so every
// task has one id.
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
