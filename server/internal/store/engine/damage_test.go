package engine_test

import (
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// A document that cannot be unpacked, because its row is damaged or a newer version has packed
// it, leaves those that are read with it alone. It is no outage, which waiting ends.
func TestDamagedDocument(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		r := newRace(t, e, "")
		r.mirrorRoom(t)
		ydoc := r.lease.Resource
		ydoc.Kind = mirror.KindYdoc
		if _, err := r.store.Request(t.Context(), requestsFor(ydoc), r.now); err != nil {
			t.Fatalf("Request = %v", err)
		}
		other, err := r.store.Claim(t.Context(), ydoc, [16]byte{4}, r.now, time.Minute)
		if err != nil {
			t.Fatalf("Claim = %v", err)
		}
		for content, lease := range map[string]mirror.Lease{"damaged": r.lease, "whole": other} {
			if _, err := r.apply(t.Context(), lease, content, r.now, 0); err != nil {
				t.Fatalf("ApplyDocument = %v", err)
			}
		}
		before, err := r.store.Document(t.Context(), r.lease.Resource, false)
		if err != nil || before.Damage != nil {
			t.Fatalf("Document = %v, %v", err, before.Damage)
		}
		mustExec(t, r.db, "update mirror_document set content = 'nonsense' where kind = 2")

		got, err := r.store.ReadDocuments(t.Context(),
			[]store.DocumentRead{{Resource: r.lease.Resource}, {Resource: ydoc}}, 1<<20)
		if err != nil {
			t.Fatalf("ReadDocuments = %v; want both", err)
		}
		if d := got[0]; d.Content != nil || d.Damage == nil || d.SHA256 != before.SHA256 || d.Size != before.Size ||
			d.Freshness.Revision != before.Freshness.Revision {
			t.Errorf("ReadDocuments = %+v; want its description, and that it is damaged", d)
		}
		if d := got[1]; string(d.Content) != "whole" || d.Damage != nil {
			t.Errorf("ReadDocuments = %+v; want the other whole", d)
		}
		got, err = r.store.ReadDocuments(t.Context(), []store.DocumentRead{{Resource: r.lease.Resource}}, -1)
		if err != nil || got[0].Damage != nil {
			t.Errorf("ReadDocuments of the description = %v; want it, since no content was read", err)
		}
		_, err = r.store.Document(t.Context(), r.lease.Resource, false)
		if err == nil || fault.Of(err).Kind != fault.Internal {
			t.Errorf("Document = %v; want a defect, not an outage", err)
		}
	})
}
