package follow

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Store keeps a token.
type Store interface {
	// Load returns the token, or an empty one if none was saved.
	Load(ctx context.Context) (token string, err error)
	// Save replaces the token.
	Save(ctx context.Context, token string) error
}

// Memory keeps a token as long as the program runs. The zero Memory has none. It serves one
// [Run] at a time.
type Memory struct{ token string }

// Load returns the token.
func (m *Memory) Load(context.Context) (string, error) { return m.token, nil }

// Save replaces the token.
func (m *Memory) Save(_ context.Context, token string) error {
	m.token = token
	return nil
}

// File is the path of a file that keeps a token. Its folder must exist.
type File string

// Load returns the token, which is empty if there is no file.
func (f File) Load(context.Context) (string, error) {
	token, err := os.ReadFile(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(string(token)), err
}

// Save replaces the file as a whole, so that after a crash it holds this token or the one
// before.
func (f File) Save(_ context.Context, token string) (err error) {
	temporary, err := os.CreateTemp(filepath.Dir(string(f)), "."+filepath.Base(string(f))+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(temporary.Name()) // the error says more
		}
	}()
	_, err = fmt.Fprintln(temporary, token)
	if err == nil {
		err = temporary.Sync()
	}
	if err = errors.Join(err, temporary.Close()); err != nil {
		return err
	}
	return os.Rename(temporary.Name(), string(f))
}
