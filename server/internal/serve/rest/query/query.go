// Package query reads the query language of Liveblocks' REST API, in which clients filter
// lists of rooms and threads: `resolved:true metadata["color"]:"red"`. That of inboxes goes to
// Liveblocks, as inboxes do.
//
// It accepts and refuses what Liveblocks' published parser does, character by character.
package query

import (
	"encoding/json"
	"strconv"
	"strings"
)

// Type is the type of a field: which operators and values go with it.
type Type uint8

// The types.
const (
	// Token is a string that can only be compared as a whole.
	Token Type = iota + 1
	// String can be compared as a whole and by its beginning.
	String
	// Boolean is true or false.
	Boolean
	// Mixed is a string, a number or a boolean.
	Mixed
)

var typeNames = [...]string{Token: "token", String: "string", Boolean: "boolean", Mixed: "mixed"}

// Language is which fields a query may name.
type Language struct {
	// Fields are those that stand for themselves, Maps those that need a key.
	Fields, Maps map[string]Type
	// Null means that a value may be null: the field is absent.
	Null bool
}

// The languages of the lists. Source: Liveblocks' dev server (rooms) and guides.
var (
	Rooms = &Language{Fields: map[string]Type{"roomId": String}, Maps: map[string]Type{"metadata": Token}}

	Threads = &Language{
		Fields: map[string]Type{"resolved": Boolean, "visibility": String}, Maps: map[string]Type{"metadata": Mixed},
		Null: true,
	}
)

// Op is an operator.
type Op string

// The operators.
const (
	Equal          Op = ":"
	Prefix         Op = "^"
	Less           Op = "<"
	LessOrEqual    Op = "<="
	Greater        Op = ">"
	GreaterOrEqual Op = ">="
)

// Query is a parsed query: all terms must hold.
type Query []Term

// Term is a condition on one field.
type Term struct {
	// Field is the name; Key is that of a map, nil for other fields.
	Field string
	Key   *string
	Op    Op
	// Value is a string, a float64, a bool or nil.
	Value any
}

// Error says why a query is refused, and where.
type Error struct {
	Message string
	// Line and Column count from 1; the column in UTF-16 code units, as clients do.
	Line, Column int
}

// Error returns the message with its place, as Liveblocks words it.
func (e *Error) Error() string {
	return e.Message + " (at " + strconv.Itoa(e.Line) + ":" + strconv.Itoa(e.Column) + ")"
}

// Parse reads a query. It fails with an [Error].
func (l *Language) Parse(text string) (Query, error) {
	p := &parser{text: text}
	q, ok := p.query()
	if !ok {
		return nil, p.refuse("Expected "+p.expected+" but "+found(text[p.failed:])+" found", p.failed)
	}
	for _, t := range q {
		if message, at := l.check(t); message != "" {
			return nil, p.refuse(message, at)
		}
	}
	out := make(Query, len(q))
	for i, t := range q {
		out[i] = t.Term
	}
	return out, nil
}

func found(rest string) string {
	for _, r := range rest {
		return strconv.Quote(string(r))
	}
	return "end of input"
}

// refuse returns an error at an offset.
func (p *parser) refuse(message string, at int) error {
	line := strings.Count(p.text[:at], "\n")
	start := strings.LastIndexByte(p.text[:at], '\n') + 1
	column := 1
	for _, r := range p.text[start:at] {
		if column++; r > 0xffff {
			column++
		}
	}
	return &Error{Message: message, Line: line + 1, Column: column}
}

// located is a term with the places of its parts.
type located struct {
	Term

	at, valueAt int
	// negated and several are what the grammar knows and no list allows.
	negated, several bool
}

// check returns why a term is not of the language, and where; an empty message if it is.
func (l *Language) check(t located) (message string, at int) {
	switch {
	case t.several:
		return "OR-expressions are not allowed for this query", t.at
	case t.negated:
		return "Negation of conditions not allowed for this query", t.at
	}
	of := l.Fields
	name := t.Field
	if t.Key != nil {
		of = l.Maps
		name += "[" + jsonOf(*t.Key) + "]"
	}
	kind, known := of[t.Field]
	switch {
	case known && !kind.takesOp(t.Op):
		return "Invalid operator for field " + quote(name), t.at
	case known && !kind.takesValue(t.Value):
		return "Invalid value " + quote(jsonOf(t.Value)) + " for field " + quote(name) + ": should be " + typeNames[kind],
			t.valueAt
	case t.Op == Prefix && t.Value == "":
		return "Prefix matches cannot be empty", t.valueAt
	case !known && t.Key != nil && l.Fields[t.Field] != 0:
		return "Cannot index field " + quote(t.Field), t.at
	case !known && t.Key == nil && l.Maps[t.Field] != 0:
		return "Field " + quote(name) + " must be indexed", t.at
	case !known:
		return "Invalid field: " + quote(t.Field), t.at
	case t.Key != nil && *t.Key == "":
		return "Key of " + quote(t.Field) + " cannot be empty", t.at
	case t.Value == nil && !l.Null:
		return "Null not allowed in this query", t.valueAt
	}
	return "", 0
}

// quote and jsonOf write names and values as Liveblocks' messages do.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `\'`) + "'" }

func jsonOf(value any) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(value); err != nil {
		return "null" // infinity, as in JavaScript
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func (t Type) takesOp(op Op) bool {
	switch op {
	case Equal:
		return true
	case Prefix:
		return t == String || t == Mixed
	default:
		return t == Mixed
	}
}

func (t Type) takesValue(value any) bool {
	switch value.(type) {
	case nil:
		return true
	case string:
		return t != Boolean
	case bool:
		return t == Boolean || t == Mixed
	default:
		return t == Mixed
	}
}

// Match reports whether all terms hold. get returns the value of a field, or of a key in a
// map: a string, float64 or bool, and nil or anything else for what equals nothing but null.
func (q Query) Match(get func(field string, key *string) any) bool {
	for _, t := range q {
		if !t.holds(get(t.Field, t.Key)) {
			return false
		}
	}
	return true
}

func (t Term) holds(have any) bool {
	switch t.Op {
	case Equal:
		return have == t.Value
	case Prefix:
		s, ok := have.(string)
		prefix, _ := t.Value.(string) // the language allows nothing else
		return ok && strings.HasPrefix(s, prefix)
	case Less, LessOrEqual, Greater, GreaterOrEqual:
	}
	n, ok := have.(float64)
	than, _ := t.Value.(float64) // the grammar allows nothing else
	if !ok {
		return false
	}
	switch t.Op {
	case Less:
		return n < than
	case LessOrEqual:
		return n <= than
	case Greater:
		return n > than
	default:
		return n >= than
	}
}
