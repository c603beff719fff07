package gateway

import (
	"bytes"
	"fmt"
	"maps"
	"strings"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
)

// receipts holds the JSON of every possible response to a delivery, without the
// event id. It is marshaled once: reflection on each delivery would cost more than
// everything else that the gateway does for it.
type receipts struct {
	marshaler marshaler
	around    map[receiptKey][2]string // the JSON before and after the id
}

type receiptKey struct {
	duplicate bool
	outcome   mirrorv1.EventOutcome
}

func newReceipts(m marshaler) (receipts, error) {
	rs := receipts{marshaler: m, around: make(map[receiptKey][2]string)}
	for number := range maps.Keys(mirrorv1.EventOutcome_name) {
		for _, duplicate := range []bool{false, true} {
			key := receiptKey{duplicate, mirrorv1.EventOutcome(number)}
			data, err := m.Marshal(&mirrorv1.ReceiveWebhookResponse{
				EventId: "the id", Duplicate: key.duplicate,
				Outcome: key.outcome,
			})
			if err != nil {
				return receipts{}, fmt.Errorf("write the answers to webhooks: %w", err)
			}
			before, behind, ok := bytes.Cut(data, []byte("the id"))
			if !ok {
				return receipts{}, fmt.Errorf("write the answers to webhooks: no id in %s", data)
			}
			rs.around[key] = [2]string{string(before), string(behind)}
		}
	}
	return rs, nil
}

// json returns the JSON that the marshaler would write for resp.
func (rs receipts) json(resp *mirrorv1.ReceiveWebhookResponse) ([]byte, error) {
	id := resp.GetEventId()
	around, ok := rs.around[receiptKey{resp.GetDuplicate(), resp.GetOutcome()}]
	// An outcome of a newer service, or an id that needs JSON escapes.
	if !ok || !printable(id) || strings.ContainsAny(id, `"\`) {
		return rs.marshaler.Marshal(resp)
	}
	data := make([]byte, 0, len(around[0])+len(id)+len(around[1]))
	data = append(data, around[0]...)
	data = append(data, id...)
	return append(data, around[1]...), nil
}
