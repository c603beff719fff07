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
		var raw json.RawMessage
		if err := in.Decode(&raw); err != nil {
			return data, nil //nolint:nilerr // for protojson to refuse
		}
		name, _ := key.(string)
		field := message.Fields().ByJSONName(name)
		if field == nil {
			field = message.Fields().ByTextName(name)
		}
		if field == nil || field.Enum() == nil {
			continue
		}
		value, err := spellOutValue(raw, field, field.IsList())
		if err != nil {
			return nil, err
		}
		out = append(out, data[copied:in.InputOffset()-int64(len(raw))]...)
		out = append(out, value...)
		copied = in.InputOffset()
	}
	return append(out, data[copied:]...), nil
}

// spellOutValue returns a value of an enum, or a list of them, with names for words. What
// is neither stays as it is, for protojson to refuse.
func spellOutValue(raw json.RawMessage, field protoreflect.FieldDescriptor, list bool) (json.RawMessage, error) {
	var values []json.RawMessage
	if list && raw[0] == '[' && json.Unmarshal(raw, &values) == nil {
		for i := range values {
			var err error
			if values[i], err = spellOutValue(values[i], field, false); err != nil {
				return nil, err
			}
		}
		return json.Marshal(values)
	}
	var word string
	if list || raw[0] != '"' || json.Unmarshal(raw, &word) != nil {
		return raw, nil //nolint:nilerr // for protojson to refuse
	}
	value, ok := ParseEnum(field.Enum(), word)
	if !ok {
		return nil, UnknownWord(field.JSONName(), Words(field.Enum()))
	}
	return strconv.AppendQuote(nil, string(value.Name())), nil
}

// UnknownWord is the error of a field whose value is none of the words of its enum.
func UnknownWord(field string, words []string) error {
	return fmt.Errorf("%s is one of %s", field, strings.Join(words, ", "))
}
