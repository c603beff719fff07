// Package presence reads the active users of a room, and folds userEntered and
// userLeft events into sessions.
package presence

import (
	"errors"
	"slices"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/rawjson"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// ErrList means that a response has no list of users, which is not the same as an
// empty list.
var ErrList = errors.New("not a list of active users")

// ParseUsers reads a response of the form {"data":[…]} and returns its connections
// in order. They share memory with raw. A user without a connection id has
// [mirror.NoConnection]. It leaves out entries that have neither, and keeps the last
// of entries with the same ones. A user id that cannot be stored reads as absent. The
// errors are [rawjson.ErrSyntax] and [ErrList].
func ParseUsers(raw []byte) ([]mirror.ActiveUser, error) {
	v, err := rawjson.Parse(raw)
	if err != nil {
		return nil, err
	}
	data := v.Get("data")
	if !data.IsArray() {
		return nil, ErrList
	}
	users := []mirror.ActiveUser{}
	for element := range data.Elements() {
		if who, ok := userOf(element, "id"); ok {
			users = append(users, mirror.ActiveUser{
				ConnectionID: who.connection, UserID: who.id, Info: info(element.Get("info")),
			})
		}
	}
	slices.Reverse(users) // the last of equals goes first
	slices.SortStableFunc(users, mirror.ActiveUser.Compare)
	return slices.CompactFunc(users, func(a, b mirror.ActiveUser) bool { return a.Compare(b) == 0 }), nil
}

// userOf returns the connection and the user in an object whose member name is the
// user's id, and whether it has either.
func userOf(v rawjson.Value, name string) (user, bool) {
	who := user{connection: mirror.NoConnection, id: v.Get(name).ID(mirror.MaxUserID)}
	connection := v.Get("connectionId")
	if connection.IsNull() {
		return who, who.id != ""
	}
	n, ok := connection.Int()
	if ok {
		who.connection = n
	}
	return who, ok
}

// info returns the info of a user, or nil if there is none.
func info(v rawjson.Value) []byte {
	if v.IsNull() {
		return nil
	}
	return v
}
