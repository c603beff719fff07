package gateway

import (
	"bytes"
	"fmt"
	"maps"
	"strings"

	"github.com/liveblocks-mirror/liveblocks-mirror/gateway/apijson"
	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
)

// receipts holds the JSON of every possible response to a delivery, without the
// event id. It is marshaled once: reflection on each delivery would cost more than
// everything else that the gateway does for it.
type receipts map[receiptKey][2]string // the JSON before and after the id

type receiptKey struct {
	duplicate bool
	outcome   mirrorv1.EventOutcome
}

func newReceipts() (receipts, error) {
	rs := make(receipts)
	for number := range maps.Keys(mirrorv1.EventOutcome_name) {
		for _, duplicate := range []bool{false, true} {
			key := receiptKey{duplicate, mirrorv1.EventOutcome(number)}
			data, err := apijson.Marshal(&mirrorv1.ReceiveWebhookResponse{
				EventId: "the id", Duplicate: key.duplicate,
				Outcome: key.outcome,
			})
			if err != nil {
				return nil, fmt.Errorf("write the answers to webhooks: %w", err)
			}
			before, behind, ok := bytes.Cut(data, []byte("the id"))
			if !ok {
				return nil, fmt.Errorf("write the answers to webhooks: no id in %s", data)
			}
			rs[key] = [2]string{string(before), string(behind)}
		}
	}
	return rs, nil
}

// json returns the JSON of resp.
func (rs receipts) json(resp *mirrorv1.ReceiveWebhookResponse) ([]byte, error) {
	id := resp.GetEventId()
	around, ok := rs[receiptKey{resp.GetDuplicate(), resp.GetOutcome()}]
	// An outcome of a newer service, or an id that needs JSON escapes.
	if !ok || !printable(id) || strings.ContainsAny(id, `"\`) {
		return apijson.Marshal(resp)
	}
	data := make([]byte, 0, len(around[0])+len(id)+len(around[1]))
	data = append(data, around[0]...)
	data = append(data, id...)
	return append(data, around[1]...), nil
}
