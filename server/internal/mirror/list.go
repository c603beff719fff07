package mirror

import "time"

// Listed is one resource of a list as fetched, such as a thread or a group.
type Listed struct {
	ID string
	// SHA256 is the hash of its source in canonical form.
	SHA256 [32]byte
	// Source is its JSON, byte for byte; nil if the list was too long to keep it.
	Source []byte
}

// List is a list of resources as fetched, without duplicates.
type List struct {
	FetchTime time.Time
	Items     []Listed
	// Confirmed is how many mirrored items may be missing from the list because an
	// operator has confirmed it.
	Confirmed int64
}
