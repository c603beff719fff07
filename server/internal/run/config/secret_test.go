package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// No way of printing shows a secret, not even within a field that fmt cannot ask.
func TestSecretIsNeverPrinted(t *testing.T) {
	t.Parallel()
	const mark = "HIDDENMARK"
	s := NewSecret(mark)
	hidden := struct {
		one  Secret
		many []Secret
		deep *Client
	}{s, []Secret{s}, &Client{APIToken: []Secret{s}}}
	for _, v := range []any{s, &s, []Secret{s}, map[string]Secret{"x": s}, struct{ S Secret }{s}, hidden, &hidden} {
		var out bytes.Buffer
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", slog.Any("v", v))
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", slog.Any("v", v))
		if err := json.NewEncoder(&out).Encode(v); err != nil {
			t.Fatal(err)
		}
		for _, form := range []string{mark, fmt.Sprintf("%x", mark), fmt.Sprintf("%X", mark)} {
			if strings.Contains(out.String(), form) {
				t.Errorf("a secret is in %s", &out)
			}
		}
	}
	if got := fmt.Sprint(s, Secret{}, NewSecret(""), []Secret{s}); got != "set not set not set [set]" {
		t.Errorf("Sprint = %s; want to see what is set", got)
	}
	if s.Reveal() != mark || (Secret{}).Reveal() != "" {
		t.Error("Reveal is not what was set")
	}
}
