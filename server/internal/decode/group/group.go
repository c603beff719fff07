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

// The errors of Parse and ParseList, besides [rawjson.ErrSyntax].
var (
	// ErrID reports that a group has no id that can be stored, or is no JSON object.
	ErrID = errors.New("not a group with an id that can be stored")
	// ErrList reports that an answer holds no list of groups. It is not an empty list.
	ErrList = errors.New("not a list of groups")
)

// maxScope bounds the name of a scope in bytes.
const maxScope = 64

// Parse reads a group. Project and Freshness are the caller's to set. The result
// shares memory with raw.
func Parse(raw []byte) (mirror.Group, error) {
	v, err := rawjson.Parse(raw)
	if err != nil {
		return mirror.Group{}, err
	}
	g, ok := parse(v)
	if !ok {
		return mirror.Group{}, ErrID
	}
	return g, nil
}

// ParseList reads an answer of the form {"data":[…]}. What is no group that can
// be stored is left out; of groups with one id the last one counts.
func ParseList(raw []byte) ([]mirror.Group, error) {
	v, err := rawjson.Parse(raw)
	if err != nil {
		return nil, err
	}
	data := v.Get("data")
	if !data.IsArray() {
		return nil, ErrList
	}
	groups := []mirror.Group{}
	for element := range data.Elements() {
		if g, ok := parse(element); ok {
			groups = slices.DeleteFunc(groups, func(o mirror.Group) bool { return o.ID == g.ID })
			groups = append(groups, g)
		}
	}
	return groups, nil
}

func parse(v rawjson.Value) (mirror.Group, bool) {
	g := mirror.Group{
		ID: v.Get("id").ID(mirror.MaxResourceID), Source: v, SHA256: sha256.Sum256(v.AppendCanonical(nil)),
		OrganizationID: v.Get("organizationId").ID(mirror.MaxResourceID),
		CreateTime:     v.Get("createdAt").Time(), UpdateTime: v.Get("updatedAt").Time(),
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
	return g, g.ID != ""
}
