// Package access decides who may call what: which callers there are, how they show who
// they are, and what each of them may do and see.
//
// A [Guard] turns the credential of a call into a [Caller]. The interceptors of the API
// compare the caller with the [Rule] of the method, and the services ask the caller which
// projects and rooms it sees. Nothing else decides about access.
package access

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// Scope is one thing that a caller may be allowed to do.
type Scope uint8

// The scopes. The zero value is no scope; no caller has it.
const (
	// Read reads rooms, documents, threads, comments, sessions, notifications and groups.
	Read Scope = iota + 1
	// Watch follows changes.
	Watch
	// Search searches texts.
	Search
	// Events reads recorded webhook events, with their payloads.
	Events
	// AdminRead reads the status of the service and its tasks.
	AdminRead
	// AdminWrite starts work and decides what an operator has to decide.
	AdminWrite
	// Erase deletes data for good.
	Erase
	// RESTUpstream passes reads of Liveblocks' REST API on to Liveblocks.
	RESTUpstream
	// RESTWrite passes writes of Liveblocks' REST API on to Liveblocks.
	RESTWrite
	// Metrics reads the metrics.
	Metrics
)

// scopeNames are the words for the scopes in files and on the command line.
var scopeNames = [...]string{
	Read: "read", Watch: "watch", Search: "search", Events: "events", AdminRead: "admin.read", AdminWrite: "admin.write",
	Erase: "erase", RESTUpstream: "rest.upstream", RESTWrite: "rest.write", Metrics: "metrics",
}

// String returns the word for the scope.
func (s Scope) String() string {
	if s == 0 || int(s) >= len(scopeNames) {
		return fmt.Sprintf("scope %d", uint8(s))
	}
	return scopeNames[s]
}

// ScopeNames returns the words for all scopes.
func ScopeNames() []string { return slices.Clone(scopeNames[1:]) }

// ParseScope returns the scope with that word.
func ParseScope(word string) (Scope, error) {
	if i := slices.Index(scopeNames[1:], word); i >= 0 {
		return Scope(i + 1), nil //nolint:gosec // ten of them
	}
	return 0, fmt.Errorf("there is no scope %q; the scopes are %s", word, strings.Join(scopeNames[1:], ", "))
}

// Scopes is a set of scopes.
type Scopes uint32

// ScopesOf returns the set of these scopes.
func ScopesOf(scopes ...Scope) (set Scopes) {
	for _, s := range scopes {
		set |= 1 << s
	}
	return set
}

// AllScopes is the set of all scopes.
const AllScopes = Scopes(1<<(Metrics+1) - 2)

// Has reports whether the set has the scope.
func (s Scopes) Has(scope Scope) bool { return scope != 0 && s&(1<<scope) != 0 }

// Names returns the words for the scopes of the set.
func (s Scopes) Names() (names []string) {
	for scope := Read; scope <= Metrics; scope++ {
		if s.Has(scope) {
			names = append(names, scope.String())
		}
	}
	return names
}

// AnyProject in [Caller.Projects] stands for every project.
const AnyProject mirror.ProjectID = "*"

// Caller is who calls, with what it may do. The zero Caller may do and see nothing.
type Caller struct {
	// Name tells callers apart in the log, such as the id of a key. It is no secret.
	Name string
	// Scopes are what it may do.
	Scopes Scopes
	// Projects are those that it sees; AnyProject stands for all.
	Projects []mirror.ProjectID
	// Rooms are the prefixes of the ids of the rooms that it sees. Every id has the empty
	// prefix.
	Rooms []string
	// Address is where the call comes from; the zero address if that is unknown.
	Address netip.Addr
	// Expires is when it stops being valid; zero for never.
	Expires time.Time
}

// Everything returns a caller that may do and see everything.
func Everything(name string) Caller {
	return Caller{Name: name, Scopes: AllScopes, Projects: []mirror.ProjectID{AnyProject}, Rooms: []string{""}}
}

// Allows reports whether the caller may do what needs the scope.
func (c *Caller) Allows(scope Scope) bool { return c.Scopes.Has(scope) }

// SeesProject reports whether the caller sees anything of the project.
func (c *Caller) SeesProject(project mirror.ProjectID) bool {
	return slices.Contains(c.Projects, project) || slices.Contains(c.Projects, AnyProject)
}

// SeesRoom reports whether the caller sees the room and everything in it. What is in no
// room, such as a group, is in the room with the empty id: only callers that see all
// rooms see it.
func (c *Caller) SeesRoom(project mirror.ProjectID, room mirror.RoomID) bool {
	return c.SeesProject(project) && slices.ContainsFunc(c.Rooms, func(prefix string) bool {
		return strings.HasPrefix(string(room), prefix)
	})
}

// Limited reports whether there are rooms that the caller does not see.
func (c *Caller) Limited() bool { return !slices.Contains(c.Rooms, "") }

// Prefixes returns what lists of rows have to be limited to: the prefixes of the rooms
// that the caller sees, in order and without those that others include, or nil if it sees
// all rooms. A caller that sees none gets an empty list, not nil.
func (c *Caller) Prefixes() []string {
	if !c.Limited() {
		return nil
	}
	list := make([]string, 0, len(c.Rooms))
	for _, prefix := range slices.Sorted(slices.Values(c.Rooms)) {
		if n := len(list); n == 0 || !strings.HasPrefix(prefix, list[n-1]) {
			list = append(list, prefix)
		}
	}
	return list
}

type callerKey struct{}

// Into returns a context that says who calls. Only who has checked a credential may say
// so.
func Into(ctx context.Context, caller Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, &caller)
}

// From returns who calls, and whether that is known.
func From(ctx context.Context) (*Caller, bool) {
	caller, ok := ctx.Value(callerKey{}).(*Caller)
	return caller, ok
}

// Carry returns to with the caller of from, if it has one: for calls within the process.
func Carry(from, to context.Context) context.Context {
	if caller, ok := From(from); ok {
		return context.WithValue(to, callerKey{}, caller)
	}
	return to
}
