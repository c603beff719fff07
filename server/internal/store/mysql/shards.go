package mysql

import (
	"context"
	"fmt"
	"strings"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// layout says where a server keeps the rows of different buckets.
type layout int32

const (
	unknown  layout = iota // before the first connection
	whole                  // in one place, for good
	oneShard               // in one place, until it is resharded
	manyShards
	forced // anywhere, by configuration
)

// lookForShards finds out whether the server is a Vitess whose keyspace has several
// shards, and keeps the transactions of the session to one of them. A keyspace can be
// resharded while the service runs, so every connection asks.
func (c *connector) lookForShards(ctx context.Context, s *session) error {
	if layout(c.layout.Load()) == whole {
		return nil
	}
	version, err := firstColumn(ctx, s, "select version()")
	if err != nil {
		return err
	}
	found := whole
	s.vitess = strings.Contains(strings.ToLower(strings.Join(version, "")), "vitess")
	if layout(c.layout.Load()) == forced {
		return nil
	}
	if s.vitess {
		keyspace, err := firstColumn(ctx, s, "select database()")
		if err != nil {
			return err
		}
		shards, err := firstColumn(ctx, s, "show vitess_shards")
		if err != nil && number(err) == 0 {
			return err
		}
		found = oneShard
		if err != nil || severalShards(strings.Join(keyspace, ""), shards) {
			found = manyShards // also of a server that does not say
		}
	}
	c.layout.Store(int32(found))
	if found != manyShards {
		return nil
	}
	// Where transactions may span shards, one that is cut off can be committed in some of
	// them. None of ours does, so one that would is a defect, which has to be refused.
	_, err = s.ExecContext(ctx, "set transaction_mode = 'single'", nil)
	if number(err) != 0 {
		return nil // a server that does not know it has a mode of its own
	}
	return err
}

// severalShards reports whether a keyspace is divided. Shards are named after their
// keyspace, such as mirror/-80. If none is that of the keyspace, all count: the name of a
// database can be another than that of its keyspace.
func severalShards(keyspace string, shards []string) bool {
	keyspace, _, _ = strings.Cut(keyspace, "@") // the type of its tablets
	if _, _, one := strings.Cut(keyspace, ":"); one {
		return false // the session is aimed at one shard
	}
	counts := make(map[string]int)
	most := 0
	for _, shard := range shards {
		of, _, _ := strings.Cut(shard, "/")
		counts[of]++
		most = max(most, counts[of])
	}
	if n := counts[keyspace]; n > 0 {
		return n > 1
	}
	return most != 1
}

// sharded reports whether rows of different buckets can be on different servers, so that
// no transaction may hold several.
func (s *Store) sharded(ctx context.Context) (bool, error) {
	if layout(s.connector.layout.Load()) == unknown {
		conn, err := s.accepting.Conn(ctx)
		if err != nil {
			return false, classify(ctx, fmt.Errorf("look for shards: %w", err))
		}
		_ = conn.Close() // back to the pool
	}
	return layout(s.connector.layout.Load()) >= manyShards, nil
}

// transactions divides what is sorted by bucket into the parts that one transaction each
// may write: all of it, or on a sharded server one for each bucket.
func transactions[E any](ctx context.Context, s *Store, sorted []E, bucket func(E) int16) ([][]E, error) {
	sharded, err := s.sharded(ctx)
	switch {
	case err != nil || len(sorted) == 0:
		return nil, err
	case sharded:
		return store.ByBucket(sorted, bucket), nil
	}
	return [][]E{sorted}, nil
}
