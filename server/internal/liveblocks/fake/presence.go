package fake

import (
	"encoding/json"
	"fmt"
	"slices"
)

// Connection is one connection of a user to a room.
type Connection struct {
	ID int64
	// UserID is empty for an anonymous user.
	UserID string
	// Info is JSON; nil if there is none.
	Info json.RawMessage
}

// Enter lets a user enter a room.
func (s *Server) Enter(id string, c Connection) error {
	s.mu.Lock()
	r, err := s.existing(id)
	if err == nil && r.connection(c.ID) >= 0 {
		err = fmt.Errorf("connection %d is in room %q already", c.ID, id)
	}
	if err != nil {
		s.mu.Unlock()
		return err
	}
	c.Info = slices.Clone(c.Info)
	r.connections = append(r.connections, c)
	r.renderUsers()
	s.unlockAndTell(r.presence(UserEntered, c, s))
	return nil
}

// Leave lets a connection leave a room.
func (s *Server) Leave(id string, connection int64) error {
	s.mu.Lock()
	r, err := s.existing(id)
	i := -1
	if err == nil {
		if i = r.connection(connection); i < 0 {
			err = fmt.Errorf("connection %d is not in room %q", connection, id)
		}
	}
	if err != nil {
		s.mu.Unlock()
		return err
	}
	c := r.connections[i]
	r.connections = slices.Delete(r.connections, i, i+1)
	r.renderUsers()
	s.unlockAndTell(r.presence(UserLeft, c, s))
	return nil
}

// ActiveUsers returns who is in a room as the API serves it, and whether the room
// exists.
func (s *Server) ActiveUsers(id string) ([]byte, bool) {
	return s.look(id, func(r *room) []byte { return r.users.now })
}

// Connections returns who is in a room, in the order in which they came.
func (s *Server) Connections(id string) []Connection {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.existing(id)
	if err != nil {
		return nil
	}
	return slices.Clone(r.connections)
}

// connection is where a connection stands in r.connections, or -1.
func (r *room) connection(id int64) int {
	return slices.IndexFunc(r.connections, func(c Connection) bool { return c.ID == id })
}

// presence returns the event of a user who has entered or left. s.mu is held.
func (r *room) presence(kind string, c Connection, s *Server) Event {
	return Event{
		Type: kind, RoomID: r.id, Time: s.now(), UserID: c.UserID, UserInfo: string(c.Info),
		ConnectionID: c.ID, ActiveUsers: len(r.connections),
	}
}

// renderUsers makes the list of who is in a room. As on the real server, what an
// anonymous user does not have is left out. s.mu is held.
func (r *room) renderUsers() {
	type user struct {
		Type         string          `json:"type"`
		ConnectionID int64           `json:"connectionId"`
		ID           string          `json:"id,omitempty"`
		Info         json.RawMessage `json:"info,omitempty"`
	}
	list := struct {
		Data []user `json:"data"`
	}{Data: []user{}}
	for _, c := range r.connections {
		list.Data = append(list.Data, user{"user", c.ID, c.UserID, c.Info})
	}
	b, err := marshal(list)
	if err != nil { // an info that is not JSON
		b = []byte("{}")
	}
	r.users.set(b)
}
