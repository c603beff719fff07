// Package presence reads who is in a room, and folds the events that announce
// comings and goings into the sessions of its users.
package presence

import (
	"cmp"
	"errors"
	"slices"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/rawjson"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// ErrList says that an answer has no list of users. It is not an empty list.
var ErrList = errors.New("not a list of active users")

// ParseUsers reads an answer of the form {"data":[…]} and returns the connections
// in it by their ids, which share memory with raw. One without a connection id is
// left out, and of those with the same one the last counts; a user id that cannot
// be stored reads as absent. Its errors are [rawjson.ErrSyntax] and [ErrList].
func ParseUsers(raw []byte) ([]mirror.ActiveUser, error) {
	v, err := rawjson.Parse(raw)
	if err != nil {
		return nil, err
	}
	data := v.Get("data")
	if !data.IsArray() {
		return nil, ErrList
	}
	byID := map[int64]mirror.ActiveUser{}
	for element := range data.Elements() {
		if id, ok := element.Get("connectionId").Int(); ok {
			byID[id] = mirror.ActiveUser{
				ConnectionID: id, UserID: element.Get("id").ID(mirror.MaxUserID), Info: info(element.Get("info")),
			}
		}
	}
	users := make([]mirror.ActiveUser, 0, len(byID))
	for _, u := range byID {
		users = append(users, u)
	}
	slices.SortFunc(users, func(a, b mirror.ActiveUser) int { return cmp.Compare(a.ConnectionID, b.ConnectionID) })
	return users, nil
}

// info returns what is known about a user, nil if it is nothing.
func info(v rawjson.Value) []byte {
	if v.IsNull() {
		return nil
	}
	return v
}
