package demo

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
)

// people are the users. Each has one connection.
var people = []string{"alice", "bob", "carol"}

func user(i int) fake.Connection {
	return fake.Connection{
		ID: int64(i + 1), UserID: people[i], Info: fmt.Appendf(nil, `{"name":%q,"color":"#%06x"}`, people[i],
			0x3355aa*(i+1)&0xffffff),
	}
}

// change makes one edit, as a team would. The first ones show every feature; the
// others are random.
func (d *demo) change(n int) error {
	rooms := d.upstream.Rooms()
	switch n {
	case 0:
		return d.upstream.CreateRoom(firstRoom, fake.RoomOptions{
			Metadata: map[string]any{"name": "Team whiteboard", "tags": []string{"demo"}}, Storage: board(1),
		})
	case 1:
		return d.upstream.Enter(firstRoom, user(0))
	case 2:
		return d.discuss(firstRoom, n)
	case 3:
		d.notify(firstRoom)
		return nil
	}
	id := rooms[rand.N(len(rooms))]
	switch pick := rand.N(12); {
	case len(rooms) < 4 || pick == 0 && len(rooms) < 12:
		id = fmt.Sprintf("doc:%d", n)
		return d.upstream.CreateRoom(id, fake.RoomOptions{
			Metadata: map[string]any{"name": "Document " + strconv.Itoa(n)},
			Storage:  board(n),
		})
	case pick == 1 && id != firstRoom:
		return d.upstream.DeleteRoom(id)
	case pick <= 3:
		return d.enterOrLeave(id)
	case pick <= 7:
		return d.discuss(id, n)
	case pick == 8 && len(d.upstream.Threads(id)) > 0:
		d.notify(id)
		return nil
	default:
		return d.upstream.SetStorage(id, board(n+1))
	}
}

// enterOrLeave makes a user enter a room, or leave it.
func (d *demo) enterOrLeave(room string) error {
	who := user(rand.N(len(people)))
	if slices.ContainsFunc(d.upstream.Connections(room), func(c fake.Connection) bool { return c.ID == who.ID }) {
		return d.upstream.Leave(room, who.ID)
	}
	return d.upstream.Enter(room, who)
}

// discuss starts a thread in a room, or continues one.
func (d *demo) discuss(room string, n int) error {
	author, other := people[n%len(people)], people[(n+1)%len(people)]
	threads := d.upstream.Threads(room)
	if len(threads) < 2 {
		_, err := d.upstream.CreateThread(room, fake.ThreadOptions{
			Metadata: map[string]any{"x": rand.N(800), "y": rand.N(600), "color": "blue"},
			Comment:  fake.Comment{UserID: author, Body: question(n, other)},
		})
		return err
	}
	thread := threads[rand.N(len(threads))]
	comments := d.upstream.Comments(room, thread)
	comment := comments[rand.N(len(comments))]
	switch rand.N(6) {
	case 0:
		return d.upstream.AddReaction(room, thread, comment, "👍", other)
	case 1:
		return d.upstream.SetResolved(room, thread, rand.N(2) == 0, author)
	case 2:
		return d.upstream.EditComment(room, thread, comment, fmt.Sprintf("on second thoughts %d", n))
	case 3:
		if len(comments) == 1 { // the last comment takes its thread along
			return d.upstream.DeleteThread(room, thread)
		}
		return d.upstream.DeleteComment(room, thread, comment)
	default:
		_, err := d.upstream.CreateComment(room, thread, fake.Comment{UserID: author, Text: fmt.Sprintf("answer %d", n)})
		return err
	}
}

// notify sends a user a notification about a thread in a room.
func (d *demo) notify(room string) {
	threads := d.upstream.Threads(room)
	d.upstream.Notify(fake.Notification{
		UserID: people[rand.N(len(people))], RoomID: room, SubjectID: threads[rand.N(len(threads))],
	})
}

// question is the body of a comment that mentions a user.
func question(n int, other string) json.RawMessage {
	return fmt.Appendf(nil, `{"version":1,"content":[{"type":"paragraph","children":[{"text":"What about note %d, "},`+
		`{"type":"mention","kind":"user","id":%q},{"text":"? It is "},{"text":"important","bold":true},{"text":"."}]}]}`, n,
		other)
}

// board is a Storage document with n mod 8 notes on it, and a diagram of a step
// for each as React Flow keeps it.
func board(n int) []byte {
	var notes, nodes, edges bytes.Buffer
	count := n%8 + 1
	for i := range count {
		if i > 0 {
			notes.WriteByte(',')
			nodes.WriteByte(',')
		}
		x, y := rand.N(800), rand.N(600)
		fmt.Fprintf(&notes, `{"liveblocksType":"LiveObject","data":{"text":"note %d of edit %d","x":%d,"y":%d}}`, i, n, x, y)
		fmt.Fprintf(&nodes, `"step%[1]d":{"liveblocksType":"LiveObject","data":{"id":"step%[1]d","type":"default","position":{"x":%[2]d,"y":%[3]d},`+
			`"data":{"liveblocksType":"LiveObject","data":{"label":"Step %[1]d"}}}}`, i, x, y)
		if i == 0 {
			continue
		}
		if i > 1 {
			edges.WriteByte(',')
		}
		fmt.Fprintf(&edges, `"e%[1]d":{"liveblocksType":"LiveObject","data":{"id":"e%[1]d","source":"step%[2]d","target":"step%[1]d"}}`, i, i-1)
	}
	return fmt.Appendf(nil, `{"liveblocksType":"LiveObject","data":{"edits":%d,"title":"Plan %d",`+
		`"flow":{"liveblocksType":"LiveObject","data":{"edges":{"liveblocksType":"LiveMap","data":{%s}},"nodes":{"liveblocksType":"LiveMap","data":{%s}}}},`+
		`"notes":{"liveblocksType":"LiveList","data":[%s]}}}`, n, n, edges.Bytes(), nodes.Bytes(), notes.Bytes())
}
