// Package group reads groups of users as Liveblocks' REST API answers them.
//
// It is lenient: a group must have an id, and anything else that is missing or
// odd reads as absent.
package group

import (
	"crypto/sha256"
	"errors"
	"slices"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/rawjson"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// ErrID means that a group has no id that can be stored, or is not a JSON object.
// Parse also returns [rawjson.ErrSyntax].
var ErrID = errors.New("not a group with an id that can be stored")

// maxScope bounds the name of a scope in bytes.
const maxScope = 64

// Parse reads a group. Project and Freshness are the caller's to set. The result
// shares memory with raw.
func Parse(raw []byte) (mirror.Group, error) {
	v, err := rawjson.Parse(raw)
	if err != nil {
		return mirror.Group{}, err
	}
	g := mirror.Group{
		ID: v.Get("id").ID(mirror.MaxResourceID), Source: v, SHA256: sha256.Sum256(v.AppendCanonical(nil)),
		OrganizationID: v.Get("organizationId").ID(mirror.MaxResourceID),
		CreateTime:     v.Get("createdAt").Time(), UpdateTime: v.Get("updatedAt").Time(),
	}
	if g.ID == "" {
		return mirror.Group{}, ErrID
	}
	for name, granted := range v.Get("scopes").Members() {
		if granted.IsTrue() && mirror.ValidID(name, maxScope) {
			g.Scopes = append(g.Scopes, name)
		}
	}
	slices.Sort(g.Scopes)
	g.Scopes = slices.Compact(g.Scopes)
	for member := range v.Get("members").Elements() {
		id := member.Get("id").ID(mirror.MaxUserID)
		known := slices.ContainsFunc(g.Members, func(m mirror.GroupMember) bool { return m.UserID == id })
		if id != "" && !known {
			g.Members = append(g.Members, mirror.GroupMember{UserID: id, AddTime: member.Get("addedAt").Time()})
		}
	}
	return g, nil
}
