package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/config"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/access"
)

// KeyOptions say what a new key may do.
type KeyOptions struct {
	Name         string
	Scopes       []string
	Projects     []string
	RoomPrefixes []string
	// Expires is a date, a time, or for how long the key is valid; empty for ever.
	Expires string
}

// NewKey makes a key and writes it to out: with its entry for the keys file, or, if add is
// set, alone, and adds the entry to the file.
func NewKey(o KeyOptions, file string, add bool, now time.Time, f Format, out, notes io.Writer) error {
	key, _ := access.NewKey()
	e := access.NewEntry(key)
	e.Name, e.Scopes, e.RoomPrefixes = o.Name, o.Scopes, o.RoomPrefixes
	for _, p := range o.Projects {
		e.Projects = append(e.Projects, mirror.ProjectID(p))
	}
	if o.Expires != "" {
		expires, err := expiry(o.Expires, now)
		if err != nil {
			return err
		}
		e.Expires = &expires
	}
	entry, err := access.FormatKeys([]access.KeyEntry{e})
	if err != nil {
		return err
	}
	if _, err := access.ParseKeys([]byte("keys:\n" + entry)); err != nil {
		return err
	}
	if !add {
		return f.Print(out, newKey{e.ID, key, entry}, func(w io.Writer) {
			_, _ = fmt.Fprintf(w,
				"%s\n\n# The key above is shown only now. The keys file gets these lines, below \"keys:\".\n%s", key, entry)
		})
	}
	if err := addKey(file, entry); err != nil {
		return err
	}
	_, _ = fmt.Fprintf(notes, "Added to %s. The key is shown only now; a running service accepts it within ten seconds.\n",
		file)
	return f.Print(out, newKey{e.ID, key, entry}, func(w io.Writer) { _, _ = fmt.Fprintln(w, key) })
}

// newKey is a key that was made, with its lines for the keys file.
type newKey struct {
	ID    string `json:"id"`
	Key   string `json:"key"`
	Entry string `json:"entry"`
}

// expiry parses when a key expires.
func expiry(text string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(text); err == nil && d > 0 {
		return now.Add(d).UTC().Truncate(time.Second), nil
	}
	for _, form := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(form, text); err == nil && t.After(now) {
			return t.UTC(), nil
		}
	}
	return time.Time{}, &config.Error{Setting: "--expires", Problem: fmt.Sprintf("is %q; it must be a date or a time to "+
		"come, such as 2030-01-31 or 2030-01-31T12:00:00Z, or a duration such as 2160h", text)}
}

// addKey adds an entry to a keys file, which may not exist yet, and keeps what is in it.
func addKey(file, entry string) error {
	if file == "" {
		return &config.Error{Setting: "MIRROR_KEYS_FILE", Problem: "is not set; name the file to add the key to"}
	}
	old, err := os.ReadFile(file)
	mode := fs.FileMode(0o600)
	switch info, failed := os.Stat(file); {
	case errors.Is(err, fs.ErrNotExist):
		old = nil
	case err != nil:
		return err
	case failed == nil:
		mode = info.Mode().Perm()
	}
	entries, err := access.ParseKeys(old)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	text := old
	if len(text) > 0 && !bytes.HasSuffix(text, []byte("\n")) {
		text = append(slices.Clone(text), '\n')
	}
	for _, more := range []string{entry, strings.ReplaceAll(entry[2:], "\n  ", "\n"), "keys:\n" + entry} {
		longer := slices.Concat(text, []byte(more))
		if all, err := access.ParseKeys(longer); err == nil && len(all) == len(entries)+1 {
			return replaceFile(file, longer, mode)
		}
	}
	return fmt.Errorf("%s: the key cannot be added at its end; run the command without --add, and put the lines where "+
		"they belong", file)
}

// replaceFile writes a file so that no reader finds half of it.
func replaceFile(file string, data []byte, mode fs.FileMode) error {
	if target, err := filepath.EvalSymlinks(file); err == nil {
		file = target
	}
	tmp, err := os.CreateTemp(filepath.Dir(file), ".keys-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // it is gone after the renaming
	_, err = tmp.Write(data)
	if err := errors.Join(err, tmp.Chmod(mode), tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), file)
}

// readKeys reads a keys file.
func readKeys(file string) ([]access.KeyEntry, error) {
	if file == "" {
		return nil, &config.Error{Setting: "MIRROR_KEYS_FILE", Problem: "is not set; name the keys file"}
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	entries, err := access.ParseKeys(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return entries, nil
}

// ListKeys writes what the keys of a file may do.
func ListKeys(file string, now time.Time, f Format, out io.Writer) error {
	entries, err := readKeys(file)
	if err != nil {
		return err
	}
	return f.Print(out, jsonKeys(entries), func(w io.Writer) {
		rows := make([][]string, len(entries))
		for i, e := range entries {
			rooms, expires := "all", "never"
			if e.RoomPrefixes != nil {
				rooms = strings.Join(quoted(e.RoomPrefixes), " ")
			}
			if e.Expires != nil {
				expires = e.Expires.Format(time.RFC3339)
				if expired(&e, now) {
					expires += " (expired)"
				}
			}
			rows[i] = []string{
				e.ID, strings.Join(strings.Fields(e.Name), " "), strings.Join(e.Scopes, ","), projects(&e), rooms, expires,
			}
		}
		table(w, "ID | NAME | SCOPES | PROJECTS | ROOMS | EXPIRES", rows)
	})
}

func projects(e *access.KeyEntry) string {
	var names []string
	for _, p := range e.Projects {
		names = append(names, string(p))
	}
	return strings.Join(names, ",")
}

func quoted(texts []string) []string {
	list := make([]string, len(texts))
	for i, text := range texts {
		list[i] = fmt.Sprintf("%q", text)
	}
	return list
}

// jsonKey is an entry as JSON.
type jsonKey struct {
	ID           string             `json:"id"`
	Name         string             `json:"name"`
	Scopes       []string           `json:"scopes"`
	Projects     []mirror.ProjectID `json:"projects"`
	RoomPrefixes []string           `json:"roomPrefixes,omitempty"`
	Expires      *time.Time         `json:"expires,omitempty"`
}

func jsonKeys(entries []access.KeyEntry) []jsonKey {
	list := []jsonKey{}
	for _, e := range entries {
		list = append(list, jsonKey{e.ID, e.Name, e.Scopes, e.Projects, e.RoomPrefixes, e.Expires})
	}
	return list
}

// CheckKeys checks a keys file. With a key, it checks that the file has it.
func CheckKeys(file, key string, now time.Time, f Format, out io.Writer) error {
	entries, err := readKeys(file)
	if err != nil {
		return err
	}
	if key == "" {
		old := 0
		for i := range entries {
			if expired(&entries[i], now) {
				old++
			}
		}
		return f.Print(out, checkedKeys{len(entries), old}, func(w io.Writer) {
			_, _ = fmt.Fprintf(w, "%s can be used: %d keys, of which %d have expired.\n", file, len(entries), old)
		})
	}
	i := slices.IndexFunc(entries, func(e access.KeyEntry) bool { return e.Matches(key) })
	switch {
	case i < 0:
		return fmt.Errorf("%s has no entry for this key", file)
	case expired(&entries[i], now):
		return fmt.Errorf("key %s (%s) expired on %s", entries[i].ID, entries[i].Name,
			entries[i].Expires.Format(time.RFC3339))
	}
	return f.Print(out, jsonKeys(entries[i : i+1])[0], func(w io.Writer) {
		_, _ = fmt.Fprintf(w, "Key %s (%s) is valid for %s in the projects %s.\n", entries[i].ID, entries[i].Name,
			strings.Join(entries[i].Scopes, ", "), projects(&entries[i]))
	})
}

// checkedKeys says what a keys file has.
type checkedKeys struct {
	Keys    int `json:"keys"`
	Expired int `json:"expired"`
}

func expired(e *access.KeyEntry, now time.Time) bool {
	return e.Expires != nil && !now.Before(*e.Expires)
}
