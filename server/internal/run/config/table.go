package config

import (
	"fmt"
	"log/slog"
	"reflect"
	"strings"
)

// Setting is a row of the table of settings.
type Setting struct {
	// Group is the heading it stands under.
	Group string
	// Flag is the name without dashes, Env that of the environment variable.
	Flag, Env string
	// Default is the value if nothing sets it, as it would be written.
	Default string
	Help    string
	// Secret says that the value is never printed.
	Secret bool
}

// Table returns all settings of the service, in order.
func Table() []Setting {
	var table []Setting
	walk(reflect.ValueOf(struct {
		Serve
		Log `group:"Log"`
	}{}), "Start", func(s Setting, _ reflect.Value) { table = append(table, s) })
	return table
}

// walk calls visit for every setting in v, which is a struct of the kind that
// this package declares; group is the heading of settings that name none.
func walk(v reflect.Value, group string, visit func(Setting, reflect.Value)) {
	for i := range v.NumField() {
		field := v.Type().Field(i)
		if field.Anonymous {
			inner := field.Tag.Get("group")
			if inner == "" {
				inner = group
			}
			walk(v.Field(i), inner, visit)
			continue
		}
		_, secret := field.Tag.Lookup("secret")
		visit(Setting{
			Group: group, Flag: field.Tag.Get("name"), Env: field.Tag.Get("env"),
			Default: field.Tag.Get("default"), Help: field.Tag.Get("help"), Secret: secret,
		}, v.Field(i))
	}
}

// attrs are the settings in v with their values, secrets only as whether they
// are set.
func attrs(v any) []slog.Attr {
	var out []slog.Attr
	walk(reflect.ValueOf(v), "", func(s Setting, field reflect.Value) {
		key := strings.ReplaceAll(s.Flag, "-", "_")
		switch {
		case !s.Secret:
			out = append(out, slog.Any(key, field.Interface()))
		case field.Len() == 0:
			out = append(out, slog.String(key, "not set"))
		default:
			out = append(out, slog.String(key, "set"))
		}
	})
	return out
}

// format writes attrs for every verb of package fmt.
func format(f fmt.State, v any) {
	for i, a := range attrs(v) {
		if i > 0 {
			_, _ = fmt.Fprint(f, " ") // the caller of fmt learns of errors by itself
		}
		_, _ = fmt.Fprintf(f, "%s=%v", a.Key, a.Value)
	}
}

// Format prints the settings without secrets, whatever the verb.
func (d Database) Format(f fmt.State, _ rune) { format(f, d) }

// LogValue is the settings without secrets.
func (d Database) LogValue() slog.Value { return slog.GroupValue(attrs(d)...) }

// MarshalText is the settings without secrets.
func (d Database) MarshalText() ([]byte, error) { return []byte(fmt.Sprint(d)), nil }

// Format prints the settings without secrets, whatever the verb.
func (l Liveblocks) Format(f fmt.State, _ rune) { format(f, l) }

// LogValue is the settings without secrets.
func (l Liveblocks) LogValue() slog.Value { return slog.GroupValue(attrs(l)...) }

// MarshalText is the settings without secrets.
func (l Liveblocks) MarshalText() ([]byte, error) { return []byte(fmt.Sprint(l)), nil }

// Format prints the settings without secrets, whatever the verb.
func (a Addresses) Format(f fmt.State, _ rune) { format(f, a) }

// LogValue is the settings without secrets.
func (a Addresses) LogValue() slog.Value { return slog.GroupValue(attrs(a)...) }

// MarshalText is the settings without secrets.
func (a Addresses) MarshalText() ([]byte, error) { return []byte(fmt.Sprint(a)), nil }

// Format prints the settings without secrets, whatever the verb.
func (s Serve) Format(f fmt.State, _ rune) { format(f, s) }

// LogValue is the settings without secrets.
func (s Serve) LogValue() slog.Value { return slog.GroupValue(attrs(s)...) }

// MarshalText is the settings without secrets.
func (s Serve) MarshalText() ([]byte, error) { return []byte(fmt.Sprint(s)), nil }
