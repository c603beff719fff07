package mirror

import "time"

// Retention says what became of the old rows of a table, as far as this process knows.
type Retention struct {
	// Table is the table; Keep is how long its rows stay, zero for ever.
	Table string
	Keep  time.Duration
	// RunTime is when this process last looked at the table; zero if it has not yet.
	RunTime time.Time
	// OldestTime is the time of the oldest row by then; zero if there was none.
	OldestTime time.Time
	// Deleted is how many rows this process has deleted.
	Deleted int64
	// Behind is how much older than Keep the oldest row is that is left to delete; zero if
	// none is.
	Behind time.Duration
	// Problem is why rows could not be deleted; empty if they could.
	Problem string
}
