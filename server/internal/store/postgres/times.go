package postgres

import (
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// timeSetter takes a time that was scanned; the zero time stands for null.
type timeSetter interface{ SetTime(t time.Time) }

// times scans into a timeSetter directly. A driver calls a [database/sql.Scanner] with a
// boxed copy of each value, which cost a quarter of all allocations of a read.
type times struct{ *pgtype.TimestamptzCodec }

// readTimes makes the connection of a type map scan by times.
func readTimes(m *pgtype.Map) {
	m.RegisterType(&pgtype.Type{
		Name: "timestamptz", OID: pgtype.TimestamptzOID, Codec: times{&pgtype.TimestamptzCodec{}},
	})
}

// PlanScan implements [pgtype.Codec].
func (c times) PlanScan(m *pgtype.Map, oid uint32, format int16, target any) pgtype.ScanPlan {
	if _, ok := target.(timeSetter); !ok {
		return c.TimestamptzCodec.PlanScan(m, oid, format, target)
	}
	p := &timePlan{}
	p.next = c.TimestamptzCodec.PlanScan(m, oid, format, &p.value)
	return p
}

type timePlan struct {
	next  pgtype.ScanPlan
	value pgtype.Timestamptz // of the latest Scan
}

// Scan implements [pgtype.ScanPlan].
func (p *timePlan) Scan(src []byte, dst any) error {
	into, ok := dst.(timeSetter)
	if !ok {
		return fmt.Errorf("%T takes no time", dst)
	}
	if err := p.next.Scan(src, &p.value); err != nil {
		return err
	}
	if p.value.InfinityModifier != pgtype.Finite {
		return errors.New("a time is stored as infinity")
	}
	into.SetTime(p.value.Time)
	return nil
}
