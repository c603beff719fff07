package main

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/lson"
)

// The Storage documents that all others are made of: a board, a text and a
// flow chart, as Liveblocks' dev server answered them.
var (
	//go:embed testdata/board.json
	boardFixture []byte
	//go:embed testdata/text.json
	textFixture []byte
	//go:embed testdata/flow.json
	flowFixture []byte
)

// words fill texts. Their number and lengths make prose compress as prose does.
var words = strings.Fields(`the of and to in is that it for was on are as with they at be this from have or by one had
not but what all were when we there can an your which their said if do will each about how up out them then she many
some so these would other into has more her two like him see time could no make than first been its who now people my
made over did down only way find use may water long little very after words called just where most know get through
back much before go good new write our used me man too any day same right look think also around another came come work
three word must because does part even place well such here take why things help put years different away again off went
old number great tell men say small every found still between name should home big give air line set own under read last
never us left end along while might next sound below saw something thought both few those always looked show large often
together asked house world going want school important until form food keep children feet land side without boy once
animals life enough took sometimes four head above kind began almost live page got earth need far hand high year mother
light parts country father let night following picture being study second eyes soon times story boys since white days
ever paper hard near sentence better best across during today others however sure means knew try told young miles sun
ways thing whole hear example heard several change answer room sea against top turned learn point city play toward five
using himself usually money seen car morning given ten drawing quarterly milestone review backlog estimate sprint`)

// firstRevision is the least revision of a document: microseconds since 1970 in 2001.
// All have as many digits, so that all versions of a document are of one length.
const firstRevision = 1_000_000_000_000_000

// document is one document in both forms. The versions of a document differ in
// one number near its begin.
type document struct {
	lsonTail, jsonTail []byte
}

const (
	lsonHead = `{"liveblocksType":"LiveObject","data":{"revision":`
	jsonHead = `{"revision":`
)

func (d *document) lson(revision int64) []byte { return version(lsonHead, d.lsonTail, revision) }
func (d *document) json(revision int64) []byte { return version(jsonHead, d.jsonTail, revision) }

func version(head string, tail []byte, revision int64) []byte {
	b := make([]byte, 0, len(head)+len(tail)+20)
	b = append(b, head...)
	b = strconv.AppendInt(b, revision, 10)
	return append(b, tail...)
}

// newDocument makes a document whose plain JSON has exactly size bytes, out of
// fixtures whose texts and numbers are replaced, and of prose for the rest.
func newDocument(size int, seed uint64) (*document, error) {
	return newDocumentOf(size, size, seed)
}

// newDocumentOf makes the document that newDocument(size, seed) makes, except
// that it ends with more or less prose and so has length bytes.
func newDocumentOf(size, length int, seed uint64) (*document, error) {
	r := rand.New(rand.NewPCG(seed, uint64(size)))
	fixtures := [][]byte{boardFixture, textFixture, flowFixture}
	d := &document{}
	const notes, end = `,"notes":"`, `"}`
	room := func(size int) int {
		return size - len(jsonHead) - len(strconv.Itoa(firstRevision)) - len(d.jsonTail) - len(notes) - len(end)
	}
	forParts := size * 6 / 7 // prose makes up at least the blanks that jsonb adds
	for n, misses := 0, 0; misses < len(fixtures); n++ {
		name := `,"part` + strconv.Itoa(n) + `":`
		part := vary(fixtures[(n+misses)%len(fixtures)], r)
		plain, _, err := lson.JSON(nil, part)
		if err != nil {
			return nil, fmt.Errorf("make a document: %w", err)
		}
		if len(name)+len(plain) > room(forParts) {
			misses++
			n--
			continue
		}
		d.lsonTail = append(append(d.lsonTail, name...), part...)
		d.jsonTail = append(append(d.jsonTail, name...), plain...)
	}
	left := room(length)
	if left < 0 {
		return nil, errors.New("make a document: too small a size")
	}
	var prose []byte
	for len(prose) < left {
		prose = append(append(prose, phrase(r, 12)...), ". "...)
	}
	rest := notes + string(prose[:left]) + end
	d.jsonTail = append(d.jsonTail, rest...)
	d.lsonTail = append(append(d.lsonTail, rest...), '}')
	return d, nil
}

// vary replaces the texts and numbers in plain-lson. Keys stay, and what says
// the types of nodes.
func vary(src []byte, r *rand.Rand) []byte {
	dst := make([]byte, 0, 2*len(src))
	for i := 0; i < len(src); {
		end := i + 1
		switch c := src[i]; {
		case c == '"':
			for ; src[end] != '"'; end++ {
				if src[end] == '\\' {
					end++
				}
			}
			end++
			isType := bytes.HasSuffix(dst, []byte(`"liveblocksType":`)) || bytes.HasSuffix(dst, []byte(`"type":`))
			if isType || end < len(src) && src[end] == ':' {
				break
			}
			dst = strconv.AppendQuote(dst, phrase(r, len(bytes.Fields(src[i:end]))))
			i = end
			continue
		case '0' <= c && c <= '9':
			for end < len(src) && ('0' <= src[end] && src[end] <= '9' || src[end] == '.') {
				end++
			}
			dst = append(dst, byte('1'+r.IntN(9)))
			for _, c := range src[i+1 : end] {
				if c != '.' {
					c = byte('0' + r.IntN(10))
				}
				dst = append(dst, c)
			}
			i = end
			continue
		}
		dst = append(dst, src[i:end]...)
		i = end
	}
	return dst
}

// phrase is n to 2n words.
func phrase(r *rand.Rand, n int) string {
	picked := make([]string, n+r.IntN(n+1))
	for i := range picked {
		picked[i] = words[r.IntN(len(words))]
	}
	return strings.Join(picked, " ")
}

// roomID names a room whose document the fake knows how to make: the size of its
// plain JSON, and which of the documents of that size it is.
func roomID(size, n int) string { return fmt.Sprintf("bench:%d:%05d", size, n) }

func parseRoomID(id string) (size, n int, ok bool) {
	rest, ok := strings.CutPrefix(id, "bench:")
	if !ok {
		return 0, 0, false
	}
	a, b, _ := strings.Cut(rest, ":")
	size, err := strconv.Atoi(a)
	if err != nil || size < 64 || size > 64<<20 {
		return 0, 0, false
	}
	n, err = strconv.Atoi(b)
	return size, n, err == nil && n >= 0
}

// variants is how many different documents of a size there are; rooms share
// them in turn. 4 MiB of each size are more than any cache of a processor core.
func variants(size int) int { return min(max(4<<20/size, 4), 64) }

// library makes documents when they are first asked for. It is not for
// concurrent use.
type library map[string]*document

func (l library) get(size, n int) (*document, error) {
	n %= variants(size)
	key := roomID(size, n)
	if d, ok := l[key]; ok {
		return d, nil
	}
	d, err := newDocument(size, uint64(n))
	if err != nil {
		return nil, err
	}
	l[key] = d
	return d, nil
}
