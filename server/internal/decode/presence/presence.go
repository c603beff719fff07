// Package presence reads the active users of a room, and folds userEntered and
// userLeft events into sessions.
package presence

import (
	"cmp"
	"errors"
	"slices"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/rawjson"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// ErrList means that a response has no list of users, which is not the same as an
// empty list.
var ErrList = errors.New("not a list of active users")

// ParseUsers reads a response of the form {"data":[…]} and returns its connections
// by id. They share memory with raw. It leaves out entries without a connection id,
// and keeps the last of entries with the same one. A user id that cannot be stored
// reads as absent. The errors are [rawjson.ErrSyntax] and [ErrList].
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

// info returns the info of a user, or nil if there is none.
func info(v rawjson.Value) []byte {
	if v.IsNull() {
		return nil
	}
	return v
}
