package access

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/clock"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// A key is its prefix, the id, an underscore and the secret. Liveblocks' own packages
// accept secret keys that begin with sk_ only.
const (
	keyPrefix   = "sk_mirror_"
	keyIDLen    = 8
	keySecret   = 32 // bytes
	keyLen      = len(keyPrefix) + keyIDLen + 1 + 43
	keyAlphabet = "abcdefghijklmnopqrstuvwxyz234567"
)

// maxPrefixes is how many room prefixes a key may have: a page of a list costs a statement
// for each.
const maxPrefixes = 50

// keyForm is how keys look, wherever they are in a text.
var keyForm = regexp.MustCompile(keyPrefix + `[A-Za-z0-9]{8}_[A-Za-z0-9_-]{43}`)

// idForm is how the ids of keys look.
var idForm = regexp.MustCompile(`^[A-Za-z0-9]{8}$`)

// HasKey reports whether a text contains something that looks like a key.
func HasKey(text string) bool { return strings.Contains(text, keyPrefix) && keyForm.MatchString(text) }

// NewKey returns a new key and its id.
func NewKey() (key, id string) {
	random := make([]byte, keyIDLen+keySecret)
	_, _ = rand.Read(random) // it never fails
	for _, b := range random[:keyIDLen] {
		id += string(keyAlphabet[int(b)%len(keyAlphabet)])
	}
	return keyPrefix + id + "_" + base64.RawURLEncoding.EncodeToString(random[keyIDLen:]), id
}

// keyID returns the id in a key.
func keyID(key string) (id string, ok bool) {
	rest, ok := strings.CutPrefix(key, keyPrefix)
	if !ok || len(key) != keyLen || rest[keyIDLen] != '_' {
		return "", false
	}
	return rest[:keyIDLen], true
}

// KeyEntry is a key in the keys file. The file has no secrets.
type KeyEntry struct {
	// ID is the part of the key that names it.
	ID string `yaml:"id"`
	// Name says whose key it is, for people.
	Name string `yaml:"name"`
	// SHA256 is that of the whole key, in hexadecimal. It may be absent if there are
	// certificates.
	SHA256 string `yaml:"sha256,omitempty"`
	// Certificates are names in client certificates that stand for the key, such as
	// DNS:reports.example.com; see [certificateNames].
	Certificates []string `yaml:"certificates,flow,omitempty"`
	// Scopes are the words of [ScopeNames].
	Scopes []string `yaml:"scopes,flow"`
	// Projects are the ids of projects, or "*" for all.
	Projects []mirror.ProjectID `yaml:"projects,flow"`
	// RoomPrefixes limit the key to the rooms whose id begins with one of them. Absent
	// means all rooms.
	RoomPrefixes []string `yaml:"room_prefixes,flow,omitempty"`
	// Expires is when the key ends; absent means never.
	Expires *time.Time `yaml:"expires,omitempty"`
}

// NewEntry returns the entry for a key, with nothing that it may do.
func NewEntry(key string) KeyEntry {
	id, _ := keyID(key)
	sum := sha256.Sum256([]byte(key))
	return KeyEntry{ID: id, SHA256: hex.EncodeToString(sum[:])}
}

// Matches reports whether the key is that of the entry.
func (e *KeyEntry) Matches(key string) bool {
	sum := sha256.Sum256([]byte(key))
	want, err := hex.DecodeString(e.SHA256)
	return err == nil && subtle.ConstantTimeCompare(sum[:], want) == 1
}

// caller checks the entry, and returns what its key may do.
func (e *KeyEntry) caller() (c Caller, digest [sha256.Size]byte, err error) {
	if !idForm.MatchString(e.ID) {
		return c, digest, errors.New("the id of a key is not 8 letters and digits")
	}
	if e.SHA256 != "" || len(e.Certificates) == 0 {
		sum, err := hex.DecodeString(e.SHA256)
		if err != nil || len(sum) != len(digest) {
			return c, digest, fmt.Errorf("key %s: sha256 is not 64 hexadecimal digits; `keys new` prints it", e.ID)
		}
		digest = [sha256.Size]byte(sum)
	}
	for _, name := range e.Certificates {
		if err := checkCertificateName(name); err != nil {
			return c, digest, fmt.Errorf("key %s: %w", e.ID, err)
		}
	}
	c, err = e.permissions("key " + e.ID)
	return c, digest, err
}

// permissions checks what an entry allows, and returns it. what names the entry in errors.
func (e *KeyEntry) permissions(what string) (c Caller, err error) {
	c = Caller{Name: e.ID, Projects: e.Projects, Rooms: []string{""}}
	if len(e.Scopes) == 0 {
		return c, fmt.Errorf("%s has no scopes; give it some of %s", what, strings.Join(ScopeNames(), ", "))
	}
	for _, word := range e.Scopes {
		scope, err := ParseScope(word)
		if err != nil {
			return c, fmt.Errorf("%s: %w", what, err)
		}
		c.Scopes |= ScopesOf(scope)
	}
	if len(e.Projects) == 0 {
		return c, fmt.Errorf(`%s has no projects; name some, or write ["*"] for all`, what)
	}
	for _, p := range e.Projects {
		if p != AnyProject && !mirror.ValidProjectID(string(p)) {
			return c, fmt.Errorf("%s: the project %q is not 1 to 64 lower-case letters, digits and dashes", what, p)
		}
	}
	if e.RoomPrefixes != nil {
		c.Rooms = e.RoomPrefixes
		if len(c.Rooms) == 0 || slices.Contains(c.Rooms, "") {
			return c, fmt.Errorf("%s: room_prefixes is empty or has an empty prefix; leave it out for all rooms", what)
		}
		if len(c.Rooms) > maxPrefixes {
			return c, fmt.Errorf("%s: there are more than %d room prefixes", what, maxPrefixes)
		}
		for _, prefix := range c.Rooms {
			if !mirror.ValidID(prefix, mirror.MaxRoomID) {
				return c, fmt.Errorf("%s: the room prefix %q cannot begin the id of a room", what, prefix)
			}
		}
	}
	if e.Expires != nil {
		c.Expires = *e.Expires
	}
	return c, nil
}

// keysFile is what a keys file contains.
type keysFile struct {
	Keys []KeyEntry    `yaml:"keys"`
	OIDC []IssuerEntry `yaml:"oidc,omitempty"`
}

// ParseKeys parses a keys file and checks all entries.
func ParseKeys(data []byte) ([]KeyEntry, error) {
	file, _, err := parseKeys(data)
	return file.Keys, err
}

func parseKeys(data []byte) (file keysFile, all everybody, err error) {
	if HasKey(string(data)) {
		return file, all, errors.New(
			"it contains a key; only the SHA-256 of a key belongs there, and that key is to be replaced",
		)
	}
	var text yaml.Node
	if err := yaml.Unmarshal(data, &text); err != nil {
		return file, all, err
	}
	for _, root := range text.Content {
		for _, section := range root.Content {
			if err := checkValues(section); err != nil {
				return file, all, err
			}
		}
	}
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	if err := d.Decode(&file); err != nil && !errors.Is(err, io.EOF) { // EOF: nothing but comments
		return file, all, err
	}
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		return file, all, errors.New("it has more than one YAML document")
	}
	if all.keys, err = newKeySet(file.Keys); err != nil {
		return file, all, err
	}
	if all.certificates, err = newCertificates(file.Keys, all.keys); err != nil {
		return file, all, err
	}
	all.issuers, err = newIssuers(file.OIDC)
	return file, all, err
}

// checkValues refuses a field without a value. It would count as one that is left out, and
// so give a key all rooms, or no end.
func checkValues(n *yaml.Node) error {
	for i, child := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 1 && child.ShortTag() == "!!null" {
			return fmt.Errorf("line %d: %s has no value; leave it out", child.Line, n.Content[i-1].Value)
		}
		if err := checkValues(child); err != nil {
			return err
		}
	}
	return nil
}

// everybody is whom a keys file knows.
type everybody struct {
	keys keySet
	// certificates are the keys by the names of certificates.
	certificates map[string]*storedKey
	issuers      []Issuer
}

// FormatKeys returns the text of entries, as they stand below "keys:".
func FormatKeys(entries []KeyEntry) (string, error) {
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	err := e.Encode(keysFile{Keys: entries})
	text, _ := strings.CutPrefix(b.String(), "keys:\n")
	return text, err
}

// keySet are the keys of a file by id.
type keySet map[string]*storedKey

type storedKey struct {
	digest [sha256.Size]byte
	caller Caller
}

func newKeySet(entries []KeyEntry) (keySet, error) {
	set := make(keySet, len(entries))
	for i := range entries {
		caller, digest, err := entries[i].caller()
		if err != nil {
			return nil, err
		}
		if set[entries[i].ID] != nil {
			return nil, fmt.Errorf("the id %s is there twice", entries[i].ID)
		}
		set[entries[i].ID] = &storedKey{digest, caller}
	}
	return set, nil
}

// keysEvery is how often the file is checked.
const keysEvery = 10 * time.Second

// Keys are the keys of a file that is read again when it changes.
type Keys struct {
	path string
	log  *slog.Logger
	all  atomic.Pointer[everybody]
	// read is what was last read, valid or not.
	read []byte
	// lost means that the file could not be read.
	lost bool
}

// OpenKeys reads a keys file.
func OpenKeys(path string, log *slog.Logger) (*Keys, error) {
	k := &Keys{path: path, log: log}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if err := k.take(data); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return k, nil
}

func (k *Keys) take(data []byte) error {
	k.read = data
	_, all, err := parseKeys(data)
	if err == nil {
		k.all.Store(&all)
	}
	return err
}

// Run reads the file again when it has changed. Without a valid new one, the old keys
// stay.
func (k *Keys) Run(ctx context.Context) error {
	for clock.Sleep(ctx, keysEvery) == nil {
		k.reread(ctx)
	}
	return nil
}

// reread compares the contents: the time of a file says less, and it is short.
func (k *Keys) reread(ctx context.Context) {
	data, err := os.ReadFile(k.path)
	switch {
	case err == nil && bytes.Equal(data, k.read):
		k.lost = false
		return
	case err == nil:
		k.lost = false
		if err = k.take(data); err == nil {
			k.log.InfoContext(ctx, "the keys file was read again", slog.Int("keys", len(k.all.Load().keys)))
			return
		}
	case k.lost:
		return
	default:
		k.lost = true
	}
	k.log.WarnContext(ctx, "the keys file cannot be used; the keys that were read before stay",
		slog.String("file", k.path), slog.Any("error", err))
}

// noKey is compared with what no key has, so that unknown ids take as long as wrong
// secrets. Its digest is that of nothing that anybody can send.
var noKey storedKey

// Authenticate is an [Authenticator]. The look-up by id takes the same time for every id
// as far as ids are unknown to who asks, and ids are no secrets. What follows does not
// depend on whether there is such an id: one digest, which was computed before, is
// compared in constant time.
func (k *Keys) Authenticate(_ context.Context, c Credential) (Caller, error) {
	id, ok := keyID(c.Bearer)
	if !ok {
		return Caller{}, ErrUnknown
	}
	key := k.all.Load().keys[id]
	known := 1
	if key == nil || key.digest == noKey.digest { // for certificates alone
		key, known = &noKey, 0
	}
	if subtle.ConstantTimeCompare(key.digest[:], c.Digest[:])&known == 0 {
		return Caller{}, ErrUnknown
	}
	return key.caller, nil
}
