package apijson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Unmarshal reads a request. It is proto3 JSON in which enums may be words. Unknown
// fields are refused: ignoring a misspelled filter would return the wrong results.
func Unmarshal(data []byte, m proto.Message) error {
	data, err := spellOut(data, m.ProtoReflect().Descriptor())
	if err == nil {
		err = protojson.Unmarshal(data, m)
	}
	if err != nil {
		// protojson randomises its spaces to keep its errors from being parsed.
		return errors.New(strings.ReplaceAll(err.Error(), "\u00a0", " "))
	}
	return nil
}

// spellOut replaces the words of a message's enums by their names in the .proto file.
// What is not JSON stays as it is, for protojson to refuse.
func spellOut(data []byte, message protoreflect.MessageDescriptor) ([]byte, error) {
	in := json.NewDecoder(bytes.NewReader(data))
	if begin, err := in.Token(); err != nil || begin != json.Delim('{') {
		return data, nil //nolint:nilerr // for protojson to refuse
	}
	var out []byte
	copied := int64(0)
	for in.More() {
		key, err := in.Token()
		if err != nil {
			return data, nil //nolint:nilerr // for protojson to refuse
		}
		keyEnd := in.InputOffset()
		var raw json.RawMessage
		if err := in.Decode(&raw); err != nil {
			return data, nil //nolint:nilerr // for protojson to refuse
		}
		name, _ := key.(string)
		field := message.Fields().ByJSONName(name)
		if field == nil {
			field = message.Fields().ByTextName(name)
		}
		var word string
		if field == nil || field.Enum() == nil || json.Unmarshal(raw, &word) != nil || raw[0] != '"' {
			continue
		}
		value, ok := ParseEnum(field.Enum(), word)
		if !ok {
			return nil, UnknownWord(field.JSONName(), Words(field.Enum()))
		}
		begin := keyEnd + int64(bytes.IndexByte(data[keyEnd:], '"'))
		out = append(out, data[copied:begin]...)
		out = strconv.AppendQuote(out, string(value.Name()))
		copied = in.InputOffset()
	}
	return append(out, data[copied:]...), nil
}

// UnknownWord is the error of a field whose value is none of the words of its enum.
func UnknownWord(field string, words []string) error {
	return fmt.Errorf("%s is one of %s", field, strings.Join(words, ", "))
}
