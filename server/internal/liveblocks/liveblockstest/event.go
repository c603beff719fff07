package liveblockstest

import (
	"bytes"
	"encoding/json"
	"time"
)

// Types of the events that the fake's changes lead to.
const (
	RoomCreated    = "roomCreated"
	RoomDeleted    = "roomDeleted"
	StorageUpdated = "storageUpdated"
	YdocUpdated    = "ydocUpdated"
)

// Event is something that Liveblocks would send a webhook for.
type Event struct {
	Type   string
	RoomID string
	// Time is when it happened.
	Time time.Time
}

// OnEvent lets f be told of every change, after it was made and before the
// method or call that made it returns. Nil ends it. f may be called
// concurrently, and then in any order, as webhooks arrive.
func (s *Server) OnEvent(f func(Event)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onEvent = f
}

// unlockAndTell releases s.mu, which is held, and tells of the events.
func (s *Server) unlockAndTell(events ...Event) {
	tell := s.onEvent
	s.mu.Unlock()
	if tell == nil {
		return
	}
	for _, ev := range events {
		tell(ev)
	}
}

// Payload returns the body of the webhook that tells of an event, in the
// published form. It is not signed.
func Payload(ev Event, projectID string) []byte {
	timeKeys := map[string]string{
		RoomCreated:    "createdAt",
		RoomDeleted:    "deletedAt",
		StorageUpdated: "updatedAt",
		YdocUpdated:    "updatedAt",
	}
	data := map[string]string{"projectId": projectID, "roomId": ev.RoomID}
	if key, ok := timeKeys[ev.Type]; ok {
		data[key] = moment(ev.Time)
	}
	// Strings can always be encoded.
	body, _ := marshal(struct {
		Type string            `json:"type"`
		Data map[string]string `json:"data"`
	}{ev.Type, data})
	return body
}

// plainJSON reduces plain-lson to what format=json serves: live nodes without
// their wrapping. What it cannot read it leaves as it is.
func plainJSON(lson []byte) []byte {
	var out bytes.Buffer
	if writePlain(&out, lson) != nil {
		return lson
	}
	return out.Bytes()
}

func writePlain(out *bytes.Buffer, node json.RawMessage) error {
	data, plain := unwrap(bytes.TrimSpace(node))
	if plain {
		out.Write(data)
		return nil
	}
	// Members are read one by one, to keep their order.
	dec := json.NewDecoder(bytes.NewReader(data))
	open, err := dec.Token()
	if err != nil {
		return err
	}
	object := open == json.Delim('{')
	if _, nested := open.(json.Delim); !nested {
		out.Write(data)
		return nil
	}
	out.WriteByte(data[0])
	for first := true; dec.More(); first = false {
		if !first {
			out.WriteByte(',')
		}
		if object {
			key, err := dec.Token()
			if err != nil {
				return err
			}
			name, err := marshal(key)
			if err != nil {
				return err
			}
			out.Write(name)
			out.WriteByte(':')
		}
		var member json.RawMessage
		if err := dec.Decode(&member); err != nil {
			return err
		}
		if err := writePlain(out, member); err != nil {
			return err
		}
	}
	out.WriteByte(data[len(data)-1])
	return nil
}

// unwrap returns what a live node holds, or node itself if it is none, and
// whether that is plain JSON all the way down.
func unwrap(node []byte) (data []byte, plain bool) {
	var live struct {
		Type string          `json:"liveblocksType"`
		Data json.RawMessage `json:"data"`
	}
	if !bytes.HasPrefix(node, []byte("{")) || json.Unmarshal(node, &live) != nil || live.Data == nil {
		return node, true
	}
	switch live.Type {
	case "LiveObject", "LiveMap", "LiveList":
		return live.Data, false
	case "LiveText", "LiveFile":
		return live.Data, true
	default:
		return node, true
	}
}
