package config

import (
	"context"
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

// Resolver finds settings that no flag gives: in the environment, then in the file
// that the variable with _FILE appended names (container platforms provide secrets
// this way), then in the configuration file.
type Resolver struct {
	// Lookup reads the environment.
	Lookup func(string) (string, bool)
	// values are those of the configuration file, and broken says why it cannot be read.
	values map[string]string
	broken error
	// diagnosis means that a wrong file is no reason not to begin.
	diagnosis bool
}

var _ kong.Resolver = (*Resolver)(nil)

// NewResolver reads the configuration file, an env file with the names of the
// environment variables. The path may be empty. With an error it returns a resolver
// without the file, for a diagnosis.
func NewResolver(lookup func(string) (string, bool), path string) (*Resolver, error) {
	r := &Resolver{Lookup: lookup}
	if path == "" {
		return r, nil
	}
	values, err := godotenv.Read(path)
	if err != nil {
		r.broken = fmt.Errorf(
			"cannot read the configuration file %s; it must exist and contain lines such as MIRROR_WORKERS=8", path)
		return r, r.broken
	}
	r.values = values
	return r, nil
}

// known returns the names of all environment variables that are settings.
func known(app *kong.Application) map[string]bool {
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
	return known
}

// Unknown are the names of environment variables that look like settings and are none.
type Unknown []string

// FindUnknown searches an environment, whose entries have the form name=value. Such a
// variable is no error, because Kubernetes sets some for a service named mirror.
func FindUnknown(app *kong.Application, environ []string) (unknown Unknown) {
	settings := known(app)
	for _, entry := range environ {
		if name, _, _ := strings.Cut(entry, "="); strings.HasPrefix(name, "MIRROR_") && !settings[name] {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	return unknown
}

// Warn logs the names, so that a misspelt setting is not ignored silently.
func (u Unknown) Warn(ctx context.Context, log *slog.Logger) {
	for _, name := range u {
		log.WarnContext(ctx, "an environment variable looks like a setting and is none", slog.String("variable", name))
	}
}

// Diagnose lets a command begin whose task is to say what is wrong.
func (r *Resolver) Diagnose() { r.diagnosis = true }

// Validate refuses a configuration file that cannot be used, unless a command is to say
// so itself.
func (r *Resolver) Validate(app *kong.Application) error {
	if r.diagnosis {
		return nil
	}
	return r.CheckFile(app)
}

// CheckFile reports whether the configuration file can be used. It must not set unknown
// names: a misspelt setting must not be ignored silently.
func (r *Resolver) CheckFile(app *kong.Application) error {
	if r.broken != nil {
		return r.broken
	}
	known := known(app)
	for _, name := range slices.Sorted(maps.Keys(r.values)) {
		if !known[name] {
			return fmt.Errorf("the configuration file sets %s, which is not a setting; `liveblocks-mirror serve --help` "+
				"lists all settings", name)
		}
	}
	return nil
}

// Resolve returns the flag's value, or nil if nothing sets it. An empty variable
// counts as not set: compose files and charts pass on values that they were not
// given in this form.
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
					return nil, wrong(source, "is %s, which cannot be read; it must be a file that this user may read", path)
				}
				if v = strings.TrimRight(string(b), "\r\n"); v == "" {
					return nil, wrong(source, "is %s, which is empty; the file must contain the value of %s", path, name)
				}
			}
			return value(flag, source, v)
		}
	}
	switch {
	case !empty:
		return nil, nil //nolint:nilnil // which means "not set here" to kong
	case flag.IsBool():
		return "false", nil
	default:
		return flag.Default, nil
	}
}

// Read sets the settings in target, a pointer to a struct of flags, as far as they can be
// used, and returns what is wrong with the others, by the name of the variable. Those keep
// their defaults.
func (r *Resolver) Read(target any) map[string]error {
	wrong := make(map[string]error)
	for _, flag := range flags(target) {
		found, err := r.Resolve(nil, nil, flag)
		if err != nil {
			wrong[flag.Envs[0]] = err
		}
		text := flag.Default
		if found != nil {
			text = fmt.Sprint(found)
		}
		if text == "" {
			continue
		}
		if err := flag.Parse(kong.ScanFromTokens(kong.Token{Type: kong.FlagValueToken, Value: text}),
			flag.Target); err != nil {
			wrong[flag.Envs[0]] = &Error{Setting: flag.Envs[0], Problem: fmt.Sprintf("cannot be used: %v", err)}
		}
	}
	return wrong
}

// value checks that flag accepts v; its errors name the source. A [Secret] accepts
// everything, so no secret is ever quoted.
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
		return nil, wrong(source, "is %q; it must be %s", v, form(flag))
	}
	return v, nil
}

// form describes the values of the flag.
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
	case Networks:
		return networksForm
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
