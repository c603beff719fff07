package config

import (
	"fmt"
	"log/slog"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

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
		return nil, fmt.Errorf(
			"cannot read the configuration file %s: it must exist and hold lines such as MIRROR_WORKERS=8", path)
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
	for _, name := range slices.Sorted(maps.Keys(r.values)) {
		if !known[name] {
			return fmt.Errorf("the configuration file sets %s, which is no setting; see `liveblocks-mirror serve --help`", name)
		}
	}
	return nil
}

// Resolve returns the flag's value, or nil if nothing sets it. A variable that
// is set to nothing counts as not set, since that is how compose files and
// charts pass on what they were not given.
func (r *Resolver) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	empty := false
	for _, name := range flag.Envs {
		for _, lookup := range []func(string) (string, bool){r.Lookup, r.file} {
			v, ok := lookup(name)
			empty = empty || ok && v == ""
			source := name
			if v == "" {
				source = name + "_FILE"
				path, _ := lookup(source)
				if path == "" {
					continue
				}
				b, err := os.ReadFile(path)
				if err != nil {
					return nil, fmt.Errorf("%s names %s, which cannot be read; it must be a file that this user may read", source,
						path)
				}
				if v = strings.TrimRight(string(b), "\r\n"); v == "" {
					return nil, fmt.Errorf("%s names %s, which is empty; it must hold the value of %s", source, path, name)
				}
			}
			return value(flag, source, v)
		}
	}
	switch {
	case !empty:
		return nil, nil //nolint:nilnil // the interface's word for "not set here"
	case flag.IsBool():
		return "false", nil
	default:
		return flag.Default, nil
	}
}

// value makes sure that v is what flag takes, and says so in the words of where
// it stands. A secret is a string, takes anything, and so is never quoted.
func value(flag *kong.Flag, source, v string) (any, error) {
	if flag.IsSlice() {
		items := strings.Split(v, ",")
		for i := range items {
			items[i] = strings.TrimSpace(items[i])
		}
		return strings.Join(items, ","), nil
	}
	trial := reflect.New(flag.Target.Type()).Elem()
	err := flag.Mapper.Decode(&kong.DecodeContext{Value: flag.Value, Scan: kong.Scan().PushTyped(v, kong.FlagValueToken)},
		trial)
	if err != nil || flag.Enum != "" && !flag.EnumMap()[v] {
		return nil, fmt.Errorf("%s is %q and should be %s", source, v, form(flag))
	}
	return v, nil
}

// form says what a value of the flag looks like.
func form(flag *kong.Flag) string {
	switch flag.Target.Interface().(type) {
	case bool:
		return "true or false"
	case int, int64:
		return "a whole number"
	case float64:
		return "a number"
	case time.Duration:
		return "a duration such as 500ms, 30s or 5m"
	case slog.Level:
		return "debug, info, warn or error"
	default:
		return strings.Join(flag.EnumSlice(), " or ")
	}
}

func (r *Resolver) file(name string) (string, bool) {
	v, ok := r.values[name]
	return v, ok
}
