package query

import (
	"regexp"
	"strconv"
	"strings"
)

// parser reads a query from left to right. Its methods return false and go back to where
// they began if what they read is not there.
//
//	query     = group { [ "AND" | "and" ] group }
//	group     = "(" condition { ( "OR" | "or" ) condition } ")" | condition
//	condition = [ "-" ] field ( ":" literal | "^" string | ( "<=" | ">=" | "<" | ">" ) number )
//	field     = identifier [ "[" string "]" ]
//	literal   = string | number | "true" | "false" | "null"
//
// There may be white space around operators, brackets and words.
type parser struct {
	text string
	at   int
	// failed is the furthest place where something else was expected, and expected what.
	failed   int
	expected string
}

// expect notes what was not there.
func (p *parser) expect(what string) bool {
	if p.at >= p.failed {
		p.failed, p.expected = p.at, what
	}
	return false
}

func (p *parser) query() ([]located, bool) {
	var terms []located
	p.space()
	for {
		before := p.at
		if len(terms) > 0 {
			p.word("and", "AND")
		}
		if !p.group(&terms) {
			p.at = before
			break
		}
		p.space()
	}
	p.space()
	if len(terms) == 0 || p.at < len(p.text) {
		return nil, p.expect("a condition")
	}
	return terms, true
}

func (p *parser) group(into *[]located) bool {
	begin := p.at
	if p.symbol("(") {
		at := p.at - 1
		t, ok := p.condition()
		for ok && p.word("or", "OR") {
			_, ok = p.condition()
		}
		if ok && p.symbol(")") {
			t.several, t.at = true, at
			*into = append(*into, t)
			return true
		}
		p.at = begin
		return false
	}
	t, ok := p.condition()
	if ok {
		*into = append(*into, t)
	}
	return ok
}

func (p *parser) condition() (t located, ok bool) {
	begin := p.at
	t.at = begin
	t.negated = p.symbol("-")
	if !t.negated {
		t.at = p.at
	}
	if !p.field(&t) || !p.comparison(&t) {
		p.at = begin
		return t, false
	}
	return t, true
}

func (p *parser) field(t *located) bool {
	if !p.identifier(&t.Field) {
		return false
	}
	before := p.at
	if p.symbol("[") {
		var key string
		if p.quoted(&key) && p.symbol("]") {
			t.Key = &key
			return true
		}
	}
	p.at = before
	return true
}

func (p *parser) comparison(t *located) bool {
	switch {
	case p.symbol(":"):
		t.Op, t.valueAt = Equal, p.at
		return p.literal(&t.Value)
	case p.symbol("^"):
		t.Op, t.valueAt = Prefix, p.at
		var s string
		ok := p.quoted(&s)
		t.Value = s
		return ok
	}
	for _, op := range []Op{LessOrEqual, GreaterOrEqual, Less, Greater} {
		if p.symbol(string(op)) {
			t.Op, t.valueAt = op, p.at
			return p.number(&t.Value)
		}
	}
	return p.expect("an operator")
}

func (p *parser) literal(value *any) bool {
	var s string
	switch {
	case p.quoted(&s):
		*value = s
	case p.number(value):
	case p.word("true"):
		*value = true
	case p.word("false"):
		*value = false
	case p.word("null"):
		*value = nil
	default:
		return p.expect("a value")
	}
	return true
}

var identifiers = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*`)

// identifier reads a name that is no keyword; null is one.
func (p *parser) identifier(name *string) bool {
	found := identifiers.FindString(p.text[p.at:])
	switch found {
	case "", "and", "AND", "or", "OR", "true", "false":
		return p.expect("a field")
	}
	*name = found
	p.at += len(found)
	p.space()
	return true
}

// quotes are strings without raw line breaks, but for those after a backslash.
var quotes = regexp.MustCompile(`^(?s:"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')`)

func (p *parser) quoted(value *string) bool {
	found := quotes.FindString(p.text[p.at:])
	if found == "" {
		return p.expect("a string")
	}
	p.at += len(found)
	*value = unescape(found[1 : len(found)-1])
	return true
}

var anyEscape = regexp.MustCompile(`\\([^\n\r\x{2028}\x{2029}])`)

// unescape replaces escapes in the order in which the published parser does: an escaped
// backslash before an n ends as a backslash and a line break. There are no code points.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	for _, e := range []struct{ from, to string }{{`\n`, "\n"}, {`\t`, "\t"}, {`\r`, "\r"}} {
		s = strings.ReplaceAll(s, e.from, e.to)
	}
	return anyEscape.ReplaceAllString(s, "$1")
}

var numbers = regexp.MustCompile(`^(?:[ \r\n\t]*-[ \r\n\t]*)?(?:[0-9]*\.)?[0-9]+`)

// number reads digits, with a minus and a point perhaps. What follows does not matter.
func (p *parser) number(value *any) bool {
	found := numbers.FindString(p.text[p.at:])
	// Digits before a point belong to it, so a point needs some behind it.
	if found == "" || !strings.Contains(found, ".") && strings.HasPrefix(p.text[p.at+len(found):], ".") {
		return p.expect("a number")
	}
	p.at += len(found)
	p.space()
	n, _ := strconv.ParseFloat(strings.Map(func(r rune) rune { // of what is too large, infinity
		if strings.ContainsRune(" \r\n\t", r) {
			return -1
		}
		return r
	}, found), 64)
	*value = n
	return true
}

// word reads one of the words, after which a word has to end.
func (p *parser) word(words ...string) bool {
	begin := p.at
	p.space()
	for _, w := range words {
		if rest, ok := strings.CutPrefix(p.text[p.at:], w); ok && identifiers.FindString("_"+rest) == "_" {
			p.at += len(w)
			p.space()
			return true
		}
	}
	p.at = begin
	return false
}

func (p *parser) symbol(s string) bool {
	begin := p.at
	p.space()
	if !strings.HasPrefix(p.text[p.at:], s) {
		p.at = begin
		return false
	}
	p.at += len(s)
	p.space()
	return true
}

func (p *parser) space() {
	p.at = len(p.text) - len(strings.TrimLeft(p.text[p.at:], " \r\n\t"))
}
