package apijson

import (
	"slices"
	"strings"
	"sync"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// spelling is how HTTP spells the values of an enum.
type spelling struct {
	words  map[protoreflect.EnumNumber]string
	values map[string]protoreflect.EnumValueDescriptor // by word and by the name in the .proto file
	list   []string                                    // the words but that of the zero value, sorted
}

var spellings sync.Map // of protoreflect.FullName to *spelling

func spellingOf(enum protoreflect.EnumDescriptor) *spelling {
	if known, ok := spellings.Load(enum.FullName()); ok {
		s, _ := known.(*spelling)
		return s
	}
	values := enum.Values()
	s := &spelling{
		words:  make(map[protoreflect.EnumNumber]string, values.Len()),
		values: make(map[string]protoreflect.EnumValueDescriptor, 2*values.Len()),
	}
	prefix := strings.TrimSuffix(string(values.ByNumber(0).Name()), "UNSPECIFIED")
	for i := range values.Len() {
		value := values.Get(i)
		name := string(value.Name())
		word := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(name, prefix), "_", "-"))
		s.words[value.Number()] = word
		s.values[word], s.values[name] = value, value
		if value.Number() != 0 {
			s.list = append(s.list, word)
		}
	}
	slices.Sort(s.list)
	spellings.Store(enum.FullName(), s)
	return s
}

// Word returns the word for a value of an enum: its name without the prefix of the
// enum, in lower case, with hyphens. DOCUMENT_FORMAT_PLAIN_LSON is plain-lson.
func Word(value protoreflect.EnumValueDescriptor) string {
	enum, _ := value.Parent().(protoreflect.EnumDescriptor)
	return spellingOf(enum).words[value.Number()]
}

// Words lists the words of an enum, except that of the unspecified value.
func Words(enum protoreflect.EnumDescriptor) []string { return spellingOf(enum).list }

// ParseEnum returns the value that s names: by its word, or as in the .proto file.
func ParseEnum(enum protoreflect.EnumDescriptor, s string) (protoreflect.EnumValueDescriptor, bool) {
	value, ok := spellingOf(enum).values[s]
	return value, ok
}
