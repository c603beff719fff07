package store

// Roles are the accounts of a database, none with more rights than it needs.
type Roles struct {
	// Owner owns the tables and views, and runs migrations. Service is what the service
	// runs as: it reads and writes rows. Reader reads the views.
	Owner, Service, Reader string
}
