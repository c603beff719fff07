package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"regexp"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/config"
)

// Every command begins with it.
func TestRunTunesMemory(t *testing.T) {
	t.Setenv("GOGC", "")
	before := debug.SetGCPercent(77)
	if code := run(t.Context(), []string{"version"}); code != exitOK {
		t.Errorf("version = %d; want %d", code, exitOK)
	}
	if got := debug.SetGCPercent(before); got == 77 {
		t.Error("the garbage collector is set up as Go does it")
	}
}

// Docker knows 0 and 1 from a health check, whatever is wrong.
func TestHealthcheckExitsWithOne(t *testing.T) {
	t.Setenv("MIRROR_SERVER", "localhost")
	for _, args := range [][]string{{"healthcheck"}, {"healthcheck", "--nothing"}} {
		if code := run(t.Context(), args); code != exitFailure {
			t.Errorf("%q = %d; want %d", args, code, exitFailure)
		}
	}
}

// A program that was built without make still tells its version.
func TestBuiltFrom(t *testing.T) {
	t.Parallel()
	info := func(version string) *debug.BuildInfo { return &debug.BuildInfo{Main: debug.Module{Version: version}} }
	for _, c := range []struct {
		info *debug.BuildInfo
		ok   bool
		want string
	}{
		{info("v1.2.3"), true, "v1.2.3"}, // by go install
		{info("v0.0.0-20261129074151-022faf369f84+dirty"), true, "v0.0.0-20261129074151-022faf369f84+dirty"}, // by go build
		{info("(devel)"), true, "unknown"}, // by go run
		{info(""), true, "unknown"},
		{nil, false, "unknown"},
	} {
		if got := builtFrom(c.info, c.ok); got != c.want {
			t.Errorf("builtFrom(%+v) = %q; want %q", c.info, got, c.want)
		}
	}
}

// settings returns the flags of every command that have an environment variable.
func settings(t *testing.T, cli *commands) []*kong.Flag {
	t.Helper()
	parser, err := kong.New(cli)
	if err != nil {
		t.Fatal(err)
	}
	var found []*kong.Flag
	for _, node := range append([]*kong.Node{parser.Model.Node}, parser.Model.Leaves(false)...) {
		for _, f := range node.Flags {
			if len(f.Envs) > 0 {
				found = append(found, f)
			}
		}
	}
	return found
}

// Invariant 14: every setting that may hold a credential is a [config.Secret], and
// nothing that holds settings prints one.
func TestSecretsAreNeverPrinted(t *testing.T) {
	t.Parallel()
	const mark = "HIDDENMARK"
	credential := regexp.MustCompile(`secret|key|token|password|credential|url|headers`)
	// A base or public URL with a password in it is refused, and so is a keys file with a key
	// in it.
	public := map[string]bool{"liveblocks-base-url": true, "public-url": true, "keys-file": true}
	cli, secrets := &commands{}, 0
	for _, f := range settings(t, cli) {
		typ := f.Target.Type()
		if typ.Kind() == reflect.Slice {
			typ = typ.Elem()
		}
		secret := typ == reflect.TypeFor[config.Secret]()
		// A file that holds a credential is none itself.
		if named := credential.MatchString(f.Name) && !public[f.Name] && f.PlaceHolder != "FILE"; named != secret {
			t.Errorf("--%s is a %s; named like a credential = %t", f.Name, typ, named)
		}
		if !secret {
			continue
		}
		secrets++
		value := kong.ScanFromTokens(kong.Token{Type: kong.FlagValueToken, Value: mark})
		if err := f.Parse(value, f.Target); err != nil || fmt.Sprint(f.Target) == "" {
			t.Fatalf("--%s cannot be set: %v", f.Name, err)
		}
	}
	if secrets != 40 {
		t.Errorf("secrets = %d; want 7 of serve, 2 each of migrate, purge and feed, 4 of projects, and 1 of each command "+
			"that calls the service", secrets)
	}
	groups := 0
	var visit func(v reflect.Value)
	visit = func(v reflect.Value) {
		groups++
		for _, v := range []any{v.Interface(), v.Addr().Interface(), []any{v.Interface()}, struct{ Cfg any }{v.Interface()}} {
			var out bytes.Buffer
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
				fmt.Fprintf(&out, verb+"\n", v)
			}
			slog.New(slog.NewTextHandler(&out, nil)).Info("x", slog.Any("v", v))
			slog.New(slog.NewJSONHandler(&out, nil)).Info("x", slog.Any("v", v))
			if err := json.NewEncoder(&out).Encode(v); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(out.String(), mark) || strings.Contains(out.String(), fmt.Sprintf("%x", mark)) {
				t.Errorf("a secret is in %s", &out)
			}
		}
		for i := range v.NumField() {
			if f := v.Field(i); f.Kind() == reflect.Struct && f.Type() != reflect.TypeFor[config.Secret]() {
				visit(f)
			}
		}
	}
	visit(reflect.ValueOf(cli).Elem())
	if groups < 20 {
		t.Errorf("groups = %d; want every command and every group of settings", groups)
	}
}
