package store

// Shares are the connections reserved for each use of a database, so that reads keep
// neither workers nor leases nor deliveries waiting. A use without connections of its
// own shares those of Work.
type Shares struct {
	// Accept is for recording deliveries: one for those that wait for no row, the
	// other for those that do. On a sharded server, buckets of one batch use both.
	Accept int
	// Renew is for renewing leases, which are lost if that takes too long.
	Renew int
	// Read is for reads on behalf of callers, which may be slow.
	Read int
	// Work is for everything else.
	Work int
}

// ShareConns divides a number of connections, at least one.
func ShareConns(conns int) Shares {
	var s Shares
	switch {
	case conns >= 8:
		s.Accept = 2
	case conns >= 2:
		s.Accept = 1
	}
	if conns >= 4 {
		s.Renew = 1
	}
	s.Read = (conns - s.Accept - s.Renew) / 2
	s.Work = conns - s.Accept - s.Renew - s.Read
	return s
}
