package yjs

// As makes the root of that name one of type typ, as a client does that asks
// for it. It returns d.
func (d *Doc) As(name string, typ Type) *Doc {
	for _, r := range d.roots {
		if r.name == name {
			d.types[r.at].kind = typ
		}
	}
	return d
}
