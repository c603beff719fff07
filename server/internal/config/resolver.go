package config

import (
	"fmt"
	"os"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/joho/godotenv"
)

// Resolver finds settings that no flag gave: in the environment first, then in
// the file whose name stands in the variable with _FILE added (as container
// platforms hand out secrets), then in the configuration file.
type Resolver struct {
	// Lookup reads the environment.
	Lookup func(string) (string, bool)
	// values are those of the configuration file.
	values map[string]string
}

var _ kong.Resolver = (*Resolver)(nil)

// NewResolver reads the configuration file, which has the form of an env file
// with the names of the environment variables; path may be empty.
func NewResolver(lookup func(string) (string, bool), path string) (*Resolver, error) {
	r := &Resolver{Lookup: lookup}
	if path == "" {
		return r, nil
	}
	values, err := godotenv.Read(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the configuration file %s: it must exist and hold lines such as MIRROR_WORKERS=8", path)
	}
	r.values = values
	return r, nil
}

// Validate refuses a configuration file with names that no setting has: a
// misspelt setting that is silently ignored is the worst of both.
func (r *Resolver) Validate(app *kong.Application) error {
	known := map[string]bool{}
	for _, node := range append([]*kong.Node{app.Node}, app.Leaves(false)...) {
		for _, group := range node.AllFlags(false) {
			for _, flag := range group {
				for _, env := range flag.Envs {
					known[env], known[env+"_FILE"] = true, true
				}
			}
		}
	}
	for name := range r.values {
		if !known[name] {
			return fmt.Errorf("the configuration file sets %s, which is no setting; see `liveblocks-mirror serve --help`", name)
		}
	}
	return nil
}

// Resolve returns the flag's value, or nil if nothing sets it.
func (r *Resolver) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	for _, name := range flag.Envs {
		for _, lookup := range []func(string) (string, bool){r.Lookup, r.file} {
			if v, ok := lookup(name); ok && v != "" {
				return v, nil
			}
			path, ok := lookup(name + "_FILE")
			if !ok || path == "" {
				continue
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return nil, fmt.Errorf("%s_FILE names %s, which cannot be read", name, path)
			}
			return strings.TrimRight(string(b), "\r\n"), nil
		}
	}
	return nil, nil //nolint:nilnil // the interface's word for "not set here"
}

func (r *Resolver) file(name string) (string, bool) {
	v, ok := r.values[name]
	return v, ok
}
