package config

import (
	"fmt"
	"io"
	"log/slog"
)

// Secret is a credential. However it is printed, logged or encoded, it tells only
// whether it is set. The text is behind a pointer, which fmt does not follow even
// in unexported fields, where it cannot call these methods.
type Secret struct{ text *string }

// NewSecret returns a Secret that holds text.
func NewSecret(text string) Secret { return Secret{&text} }

// Reveal returns the text; empty if it is not set.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// Reveal returns the texts of secrets.
func Reveal(secrets []Secret) []string {
	texts := make([]string, len(secrets))
	for i, s := range secrets {
		texts[i] = s.Reveal()
	}
	return texts
}

// UnmarshalText takes the text from a setting.
func (s *Secret) UnmarshalText(text []byte) error { *s = NewSecret(string(text)); return nil }

// String is "set" or "not set".
func (s Secret) String() string {
	if s.Reveal() == "" {
		return "not set"
	}
	return "set"
}

// Format prints String, whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// MarshalText returns String.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue returns String.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }
