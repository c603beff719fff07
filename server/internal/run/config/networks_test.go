package config

import "testing"

// What names no address is refused: empty means everywhere, or nowhere.
func TestNetworks(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                          "",
		"10.1.2.3/8, 2001:db8::1":   "10.0.0.0/8,2001:db8::1/128",
		"::ffff:10.0.0.1":           "10.0.0.1/32",
		",":                         "refused",
		" ":                         "refused",
		"::ffff:10.0.0.0/104":       "refused",
		"10.0.0.0/33":               "refused",
		"10.0.0.0/8,proxy.internal": "refused",
	} {
		var n Networks
		err := n.UnmarshalText([]byte(text))
		got, _ := n.MarshalText()
		if err != nil {
			got = []byte("refused")
		}
		if string(got) != want {
			t.Errorf("UnmarshalText(%q) = %s, %v; want %s", text, got, err, want)
		}
	}
}
