package webhook_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/ingest/webhook"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var (
	sendTime    = time.Unix(1767323045, 0).UTC()
	receiveTime = sendTime.Add(1500 * time.Millisecond)
)

// vector is a delivery signed by the vendor's own code.
type vector struct {
	Name, Secret, ID, Timestamp, Body, Signature string
}

func readVectors(tb testing.TB) []vector {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "signed-vectors.json"))
	if err != nil {
		tb.Fatal(err)
	}
	var vectors []vector
	if err := json.Unmarshal(b, &vectors); err != nil {
		tb.Fatal(err)
	}
	if len(vectors) != 20 {
		tb.Fatalf("%d vectors; want 20", len(vectors))
	}
	return vectors
}

// decoded is an delivery in the form the golden file has.
type decoded struct {
	Type, Room, User, LiveblocksProject string
	Thread                              string `json:",omitempty"`
	SourceTime                          time.Time
	Outcome                             mirror.Outcome
	Invalidations                       []string
}

func describe(a mirror.Delivery) decoded {
	return decoded{
		Type: a.Event.Type, Room: string(a.Event.Room), User: a.Event.User,
		LiveblocksProject: a.Event.LiveblocksProject, Thread: a.Event.Thread,
		SourceTime: a.Event.SourceTime, Outcome: a.Event.Outcome, Invalidations: describeHints(a.Invalidations),
	}
}

// wantOneBucket checks that an event is stored beside all that it makes stale, so that one
// transaction on one shard writes both.
func wantOneBucket(t *testing.T, d mirror.Delivery) {
	t.Helper()
	for _, i := range d.Invalidations {
		if got := i.Resource.Bucket(); got != d.Event.Bucket() {
			t.Errorf("%+v is in bucket %d; want %d, that of its event %s of room %q", i.Resource, got, d.Event.Bucket(),
				d.Event.Type, d.Event.Room)
		}
	}
}

func describeHints(invalidations []mirror.Invalidation) []string {
	var out []string
	for _, h := range invalidations {
		s := fmt.Sprintf("%s of %s", h.Resource.Kind, h.Resource.Room)
		if h.Resource.ID != "" {
			s = fmt.Sprintf("%s %s of %s", h.Resource.Kind, h.Resource.ID, h.Resource.Room)
		}
		if h.IfUnknown {
			s += " if unknown"
		}
		if h.Deleted {
			s += " deleted"
		}
		if h.MinInterval > 0 {
			s += " every " + h.MinInterval.String()
		}
		if h.Fold {
			s += " folded"
		}
		out = append(out, s)
	}
	return out
}

func TestDecodeVectors(t *testing.T) {
	t.Parallel()
	got := map[string]decoded{}
	for _, v := range readVectors(t) {
		a := webhook.Decode("acme", v.ID, []byte(v.Body), sendTime, receiveTime)
		if a.Event.Project != "acme" || a.Event.ID != v.ID || string(a.Event.Payload) != v.Body ||
			!a.Event.SendTime.Equal(sendTime) || !a.Event.ReceiveTime.Equal(receiveTime) {
			t.Errorf("Decode of %s altered what it was given: %+v", v.Name, a.Event)
		}
		for _, h := range a.Invalidations {
			if h.Resource.Project != "acme" {
				t.Errorf("Decode of %s: hint for project %q; want acme", v.Name, h.Resource.Project)
			}
		}
		wantOneBucket(t, a)
		got[v.Name] = describe(a)
	}
	golden := filepath.Join("testdata", "decoded.json")
	if *update {
		b, err := json.MarshalIndent(got, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(golden, append(b, '\n'), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	var want map[string]decoded
	if err := json.Unmarshal(b, &want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Decode differs from %s (-want +got):\n%s", golden, diff)
	}
}

func TestDecode(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("r", mirror.MaxRoomID)
	resync := func(room string) []string {
		return []string{
			"room of " + room + " every 10m0s", "storage of " + room + " every 10m0s", "ydoc of " + room + " every 10m0s",
			"thread of " + room + " every 10m0s", "active_users of " + room + " every 10m0s",
		}
	}
	longID := strings.Repeat("i", mirror.MaxResourceID)
	tests := []struct {
		name string
		body string
		want decoded
	}{
		{"empty", ``, decoded{Outcome: mirror.OutcomeMalformed}},
		{"not JSON", `hello`, decoded{Outcome: mirror.OutcomeMalformed}},
		{"two values", `{"type":"roomCreated","data":{"roomId":"r"}} {}`, decoded{Outcome: mirror.OutcomeMalformed}},
		{
			"byte order mark", "\ufeff" + `{"type":"roomCreated","data":{"roomId":"r"}}`,
			decoded{Outcome: mirror.OutcomeMalformed},
		},
		{"null", `null`, decoded{Outcome: mirror.OutcomeMalformed}},
		{"array", `[{"type":"roomCreated","data":{"roomId":"r"}}]`, decoded{Outcome: mirror.OutcomeMalformed}},
		{"empty object", `{}`, decoded{Outcome: mirror.OutcomeMalformed}},
		{"known type without data", `{"type":"roomCreated"}`, decoded{Type: "roomCreated", Outcome: mirror.OutcomeMalformed}},
		{
			"known type with odd data", `{"type":"roomCreated","data":["roomId","r"]}`,
			decoded{Type: "roomCreated", Outcome: mirror.OutcomeMalformed},
		},
		{
			"known type without a room", `{"type":"roomCreated","data":{"roomId":null}}`,
			decoded{Type: "roomCreated", Outcome: mirror.OutcomeMalformed},
		},
		{
			"room id no string", `{"type":"roomCreated","data":{"roomId":7}}`,
			decoded{Type: "roomCreated", Outcome: mirror.OutcomeMalformed},
		},
		{
			"data first, white space, more fields",
			" {\n\"data\" : { \"x\":[{\"roomId\":\"no\"},\"}\"], \"roomId\" :\"r\" , \"y\":-1e5 } " +
				",\t\"type\":\"storageUpdated\",\"z\":{} }\r\n",
			decoded{
				Type: "storageUpdated", Room: "r", Outcome: mirror.OutcomeQueued,
				Invalidations: []string{"room of r if unknown", "storage of r"},
			},
		},
		{
			"names in another case are other names",
			`{"type":"roomCreated","TYPE":"x","data":{"roomId":"r","roomID":"s","ROOMID":"t"}}`,
			decoded{
				Type: "roomCreated", Room: "r", Outcome: mirror.OutcomeQueued,
				Invalidations: []string{"room of r", "storage of r", "ydoc of r", "thread of r"},
			},
		},
		{
			"names with escapes are the same names", `{"t\u0079pe":"roomDeleted","d\u0061ta":{"room\u0049d":"r"}}`,
			decoded{Type: "roomDeleted", Room: "r", Outcome: mirror.OutcomeQueued, Invalidations: []string{"room of r deleted"}},
		},
		{
			"the last of equal names wins",
			`{"type":"x","data":{"roomId":"a","userId":"u"},"data":{"roomId":"b","roomId":"c"},"type":"roomUpdated"}`,
			decoded{Type: "roomUpdated", Room: "c", Outcome: mirror.OutcomeQueued, Invalidations: []string{"room of c"}},
		},
		{
			"the last of equal names wins, null too", `{"type":"notification","data":{"roomId":"a","roomId":null}}`,
			decoded{
				Type: "notification", Outcome: mirror.OutcomeQueued,
				Invalidations: []string{"notification msg_1 of  folded"},
			},
		},
		{
			"ids are bytes", `{"type":"ydocUpdated","data":{"roomId":" Ro\u00f6\/m?#%\ud83d\udc4b é\\ud83d","userId":"\n"}}`,
			decoded{
				Type: "ydocUpdated", Room: " Roö/m?#%👋 é\\ud83d", User: "\n", Outcome: mirror.OutcomeQueued,
				Invalidations: []string{"room of  Roö/m?#%👋 é\\ud83d if unknown", "ydoc of  Roö/m?#%👋 é\\ud83d"},
			},
		},
		{
			"old event", `{"type":"ydocUpdated","data":{"appId":"app","roomId":"r","updatedAt":"2023-01-27T20:33:23.737Z"}}`,
			decoded{
				Type: "ydocUpdated", Room: "r",
				SourceTime: time.Date(2023, 1, 27, 20, 33, 23, 737e6, time.UTC),
				Outcome:    mirror.OutcomeQueued, Invalidations: []string{"room of r if unknown", "ydoc of r"},
			},
		},

		{
			"longest room id", `{"type":"roomUpdated","data":{"roomId":"` + long + `"}}`,
			decoded{Type: "roomUpdated", Room: long, Outcome: mirror.OutcomeQueued, Invalidations: []string{"room of " + long}},
		},
		{
			"room id too long", `{"type":"roomUpdated","data":{"roomId":"` + long + `r"}}`,
			decoded{Type: "roomUpdated", Outcome: mirror.OutcomeIDInvalid},
		},
		{
			"room id empty", `{"type":"roomUpdated","data":{"roomId":""}}`,
			decoded{Type: "roomUpdated", Outcome: mirror.OutcomeIDInvalid},
		},
		{
			"room id with NUL", `{"type":"roomUpdated","data":{"roomId":"r\u0000"}}`,
			decoded{Type: "roomUpdated", Outcome: mirror.OutcomeIDInvalid},
		},
		{
			"room id with a lone high surrogate", `{"type":"roomUpdated","data":{"roomId":"r\ud83d"}}`,
			decoded{Type: "roomUpdated", Outcome: mirror.OutcomeIDInvalid},
		},
		{
			"room id with a lone low surrogate", `{"type":"roomUpdated","data":{"roomId":"\uDC4Br"}}`,
			decoded{Type: "roomUpdated", Outcome: mirror.OutcomeIDInvalid},
		},
		{
			"room id with surrogates in the wrong order", `{"type":"roomUpdated","data":{"roomId":"\udc4b\ud83d"}}`,
			decoded{Type: "roomUpdated", Outcome: mirror.OutcomeIDInvalid},
		},
		{
			"room id with two high surrogates", `{"type":"roomUpdated","data":{"roomId":"\ud83d\ud83d\udc4b"}}`,
			decoded{Type: "roomUpdated", Outcome: mirror.OutcomeIDInvalid},
		},
		{
			"room id no UTF-8", "{\"type\":\"roomUpdated\",\"data\":{\"roomId\":\"r\xff\"}}",
			decoded{Type: "roomUpdated", Outcome: mirror.OutcomeIDInvalid},
		},
		{
			"room id no UTF-8, with an escape", "{\"type\":\"roomUpdated\",\"data\":{\"roomId\":\"r\xff\\n\"}}",
			decoded{Type: "roomUpdated", Outcome: mirror.OutcomeIDInvalid},
		},
		{
			"bad room id under an unknown type", `{"type":"new","data":{"roomId":"r\u0000"}}`,
			decoded{Type: "new", Outcome: mirror.OutcomeIDInvalid},
		},
		{
			"a replacement character is a character", `{"type":"roomUpdated","data":{"roomId":"\ufffd�"}}`,
			decoded{Type: "roomUpdated", Room: "��", Outcome: mirror.OutcomeQueued, Invalidations: []string{"room of ��"}},
		},
		{
			"user and project that cannot be stored",
			`{"type":"roomUpdated","data":{"roomId":"r","userId":"\ud83d","projectId":7,"createdAt":"yesterday"}}`,
			decoded{Type: "roomUpdated", Room: "r", Outcome: mirror.OutcomeQueued, Invalidations: []string{"room of r"}},
		},
		{
			"bytes that are no UTF-8 elsewhere", "{\"type\":\"roomUpdated\",\"data\":{\"roomId\":\"r\",\"userInfo\":\"\xff\"}}",
			decoded{Type: "roomUpdated", Room: "r", Outcome: mirror.OutcomeQueued, Invalidations: []string{"room of r"}},
		},

		{
			"unknown type", `{"type":"roomRenamed","data":{"roomId":"r"}}`,
			decoded{Type: "roomRenamed", Room: "r", Outcome: mirror.OutcomeUnknownType, Invalidations: resync("r")},
		},
		{
			"unknown type without a room", `{"type":"maxConnectionsReached"}`,
			decoded{Type: "maxConnectionsReached", Outcome: mirror.OutcomeUnknownType},
		},
		{
			"unknown type with an odd room", `{"type":"maxConnectionsReached","data":{"roomId":[]}}`,
			decoded{Type: "maxConnectionsReached", Outcome: mirror.OutcomeUnknownType},
		},
		{
			"no type, but a room", `{"data":{"roomId":"r"}}`,
			decoded{Room: "r", Outcome: mirror.OutcomeUnknownType, Invalidations: resync("r")},
		},
		{
			"type no string, but a room", `{"type":["roomDeleted"],"data":{"roomId":"r"}}`,
			decoded{Room: "r", Outcome: mirror.OutcomeUnknownType, Invalidations: resync("r")},
		},
		{
			"type too long, but a room", `{"type":"` + strings.Repeat("t", 129) + `","data":{"roomId":"r"}}`,
			decoded{Room: "r", Outcome: mirror.OutcomeUnknownType, Invalidations: resync("r")},
		},
		{"type with a lone surrogate and no room", `{"type":"\ud83d"}`, decoded{Outcome: mirror.OutcomeMalformed}},

		{
			"presence", `{"type":"userLeft","data":{"roomId":"r","connectionId":3,"userId":null,"leftAt":"2026-01-02T03:04:05.678Z"}}`,
			decoded{
				Type: "userLeft", Room: "r", SourceTime: time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC),
				Outcome:       mirror.OutcomeQueued,
				Invalidations: []string{"room of r if unknown", "active_users of r every 10s", "user_sessions of r folded"},
			},
		},

		{
			"thread", `{"type":"threadMarkedAsResolved","data":{"roomId":"r","threadId":"th/1 \ud83d\udc4b"}}`,
			decoded{
				Thread: "th/1 👋",
				Type:   "threadMarkedAsResolved", Room: "r", Outcome: mirror.OutcomeQueued,
				Invalidations: []string{"room of r if unknown", "thread th/1 👋 of r"},
			},
		},
		{
			"deleted thread", `{"type":"threadDeleted","data":{"threadId":"th","roomId":"r"}}`,
			decoded{
				Thread: "th",
				Type:   "threadDeleted", Room: "r", Outcome: mirror.OutcomeQueued,
				Invalidations: []string{"room of r if unknown", "thread th of r deleted"},
			},
		},
		{
			"deleted thread without an id is any", `{"type":"threadDeleted","data":{"roomId":"r"}}`,
			decoded{
				Type: "threadDeleted", Room: "r", Outcome: mirror.OutcomeQueued,
				Invalidations: []string{"room of r if unknown", "thread of r"},
			},
		},
		{
			"comment without a thread", `{"type":"commentEdited","data":{"roomId":"r","threadId":null,"commentId":"cm"}}`,
			decoded{
				Type: "commentEdited", Room: "r", Outcome: mirror.OutcomeQueued,
				Invalidations: []string{"room of r if unknown", "thread of r"},
			},
		},
		{
			"old comment with its content",
			`{"type":"commentCreated","data":{"appId":"app","roomId":"r","threadId":"th","commentId":"cm","createdBy":"u","content":{"threadId":"no","roomId":"no"}}}`,
			decoded{
				Thread: "th",
				Type:   "commentCreated", Room: "r", User: "u", Outcome: mirror.OutcomeQueued,
				Invalidations: []string{"room of r if unknown", "thread th of r"},
			},
		},
		{
			"old reaction, by nobody and at no time",
			`{"type":"commentReactionAdded","data":{"projectId":"p","roomId":"r","threadId":"th","commentId":"cm","emoji":"👍"}}`,
			decoded{
				Thread: "th",
				Type:   "commentReactionAdded", Room: "r", LiveblocksProject: "p", Outcome: mirror.OutcomeQueued,
				Invalidations: []string{"room of r if unknown", "thread th of r"},
			},
		},
		{
			"longest thread id", `{"type":"commentEdited","data":{"roomId":"r","threadId":"` + longID + `"}}`,
			decoded{
				Thread: longID,
				Type:   "commentEdited", Room: "r", Outcome: mirror.OutcomeQueued,
				Invalidations: []string{"room of r if unknown", "thread " + longID + " of r"},
			},
		},
		{
			"thread id too long", `{"type":"commentEdited","data":{"roomId":"r","threadId":"` + longID + `i"}}`,
			decoded{Type: "commentEdited", Room: "r", Outcome: mirror.OutcomeIDInvalid},
		},
		{
			"thread id empty", `{"type":"threadDeleted","data":{"roomId":"r","threadId":""}}`,
			decoded{Type: "threadDeleted", Room: "r", Outcome: mirror.OutcomeIDInvalid},
		},
		{
			"thread id no string", `{"type":"threadCreated","data":{"roomId":"r","threadId":7}}`,
			decoded{Type: "threadCreated", Room: "r", Outcome: mirror.OutcomeIDInvalid},
		},
		{
			"thread id with NUL", `{"type":"threadCreated","data":{"roomId":"r","threadId":"\u0000"}}`,
			decoded{Type: "threadCreated", Room: "r", Outcome: mirror.OutcomeIDInvalid},
		},
		{
			"thread id with a lone surrogate", `{"type":"threadCreated","data":{"roomId":"r","threadId":"\ud83d"}}`,
			decoded{Type: "threadCreated", Room: "r", Outcome: mirror.OutcomeIDInvalid},
		},
		{
			"a thread id where none is asked for", `{"type":"storageUpdated","data":{"roomId":"r","threadId":7}}`,
			decoded{
				Type: "storageUpdated", Room: "r", Outcome: mirror.OutcomeQueued,
				Invalidations: []string{"room of r if unknown", "storage of r"},
			},
		},

		{
			"notification", `{"type":"notification","data":{"roomId":"r","threadId":"\u0000","inboxNotificationId":"in"}}`,
			decoded{
				Type: "notification", Room: "r", Outcome: mirror.OutcomeQueued,
				Invalidations: []string{"room of r if unknown", "notification in of r folded"},
			},
		},
		{
			"notification without a room",
			`{"type":"notification","data":{"userId":"u","roomId":null,"inboxNotificationId":"in"}}`,
			decoded{
				Type: "notification", User: "u", Outcome: mirror.OutcomeQueued,
				Invalidations: []string{"notification in of  folded"},
			},
		},
		{
			"notification without an inbox id",
			`{"type":"notification","data":{"userId":"u","roomId":"r","inboxNotificationId":null}}`,
			decoded{
				Type: "notification", User: "u", Room: "r", Outcome: mirror.OutcomeQueued,
				Invalidations: []string{"room of r if unknown", "notification msg_1 of r folded"},
			},
		},
		{
			"notification with neither", `{"type":"notification","data":{"userId":"u"}}`,
			decoded{
				Type: "notification", User: "u", Outcome: mirror.OutcomeQueued,
				Invalidations: []string{"notification msg_1 of  folded"},
			},
		},
		{"notification without data", `{"type":"notification"}`, decoded{
			Type: "notification", Outcome: mirror.OutcomeQueued,
			Invalidations: []string{"notification msg_1 of  folded"},
		}},
		{"inbox id that cannot be stored", `{"type":"notification","data":{"roomId":"r","inboxNotificationId":"` + longID +
			`i"}}`, decoded{Type: "notification", Room: "r", Outcome: mirror.OutcomeIDInvalid}},
		{
			"inbox id that cannot be stored, and no room",
			`{"type":"notification","data":{"roomId":null,"inboxNotificationId":[]}}`,
			decoded{Type: "notification", Outcome: mirror.OutcomeIDInvalid},
		},
		{
			"notification with an odd room", `{"type":"notification","data":{"roomId":false}}`,
			decoded{Type: "notification", Outcome: mirror.OutcomeMalformed},
		},
		{
			"who did it and when",
			`{"type":"commentEdited","data":{"roomId":"r","createdBy":"a","createdAt":"2026-01-01T00:00:00Z","editedBy":"b","editedAt":"2026-01-02T03:04:05.1234567+02:00"}}`,
			decoded{
				Type: "commentEdited", Room: "r", User: "b", SourceTime: time.Date(2026, 1, 2, 1, 4, 5, 123456e3, time.UTC),
				Outcome: mirror.OutcomeQueued, Invalidations: []string{"room of r if unknown", "thread of r"},
			},
		},
		{
			"times no engine stores",
			`{"type":"roomUpdated","data":{"roomId":"r","updatedAt":"9999-12-31T23:59:59-23:59","createdAt":"0000-01-01T00:00:00Z"}}`,
			decoded{Type: "roomUpdated", Room: "r", Outcome: mirror.OutcomeQueued, Invalidations: []string{"room of r"}},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := describe(webhook.Decode("acme", "msg_1", []byte(tt.body), sendTime, receiveTime))
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("Decode(%s) (-want +got):\n%s", tt.body, diff)
			}
		})
	}
}

// TestDecodeKnowsEveryType pins the catalogue of events: none of them may fall
// to the resync of unknown types.
func TestDecodeKnowsEveryType(t *testing.T) {
	t.Parallel()
	types := map[string]bool{"roomUpdated": true}
	for _, v := range readVectors(t) {
		var ev struct{ Type string }
		if err := json.Unmarshal([]byte(v.Body), &ev); err != nil {
			t.Fatal(err)
		}
		types[ev.Type] = true
	}
	if len(types) != 19 {
		t.Fatalf("%d types %v; want the 18 of the catalogue and roomUpdated", len(types), slices.Sorted(maps.Keys(types)))
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(types)), webhook.Types()); diff != "" {
		t.Fatalf("Types (-want +got):\n%s", diff)
	}
	for typ := range types {
		a := webhook.Decode("acme", "msg_1", fmt.Appendf(nil, `{"type":%q,"data":{"roomId":"r"}}`, typ), sendTime,
			receiveTime)
		if a.Event.Outcome != mirror.OutcomeQueued {
			t.Errorf("Decode of %s: outcome %s; want %s", typ, a.Event.Outcome, mirror.OutcomeQueued)
		}
	}
}

// FuzzDecode feeds it anything. What encoding/json reads from the same bytes
// has to agree, and nothing that cannot be stored may come out.
func FuzzDecode(f *testing.F) {
	for _, v := range readVectors(f) {
		f.Add([]byte(v.Body))
	}
	f.Add([]byte(`{"type":"x","data":{"roomId":"a","roomId":"\ud83d\udc4b\u0000"},"data":{"roomId":"\\\"b","appId":"\ud83d"}}`))
	f.Add([]byte(` [ {"type" : null } , -1e5, true ] `))
	f.Add([]byte(`{"type":"threadDeleted","data":{"roomId":"r","threadId":"\ud83d"}}`))
	f.Add([]byte(`{"type":"notification","data":{"roomId":null,"inboxNotificationId":"in"}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		a := webhook.Decode("acme", "msg_1", body, sendTime, receiveTime)
		ev := a.Event
		for name, id := range map[string]string{
			string(ev.Room): "room", ev.User: "user", ev.LiveblocksProject: "Liveblocks project", ev.Type: "type",
		} {
			if name != "" && !mirror.ValidID(name, mirror.MaxRoomID) {
				t.Errorf("%s = %q; want an id that can be stored", id, name)
			}
		}
		if ev.Room == "" && ev.Type != "notification" && len(a.Invalidations) > 0 {
			t.Errorf("hints %v of an event without a room", a.Invalidations)
		}
		if queued := ev.Outcome == mirror.OutcomeQueued || ev.Outcome == mirror.OutcomeUnknownType &&
			ev.Room != ""; queued != (len(a.Invalidations) > 0) {
			t.Errorf("outcome %s of room %q with %d hints", ev.Outcome, ev.Room, len(a.Invalidations))
		}
		for i, h := range a.Invalidations {
			if h.Resource.Project != "acme" || h.Resource.Room != ev.Room {
				t.Errorf("hint for %+v; want room %q", h.Resource, ev.Room)
			}
			if id := h.Resource.ID; id != "" && !mirror.ValidID(id, mirror.MaxResourceID) {
				t.Errorf("hint for %+v; want an id that can be stored", h.Resource)
			}
			if h.Resource.Kind == mirror.KindNotification && h.Resource.ID == "" {
				t.Error("hint for a notification without an id")
			}
			if i > 0 && a.Invalidations[i-1].Resource.Compare(h.Resource) >= 0 {
				t.Errorf("hints %v are not in key order", a.Invalidations)
			}
		}
		if _, offset := ev.SourceTime.Zone(); offset != 0 || ev.SourceTime.Nanosecond()%1000 != 0 {
			t.Errorf("SourceTime = %v; want UTC and microseconds", ev.SourceTime)
		}

		var value any
		err := json.Unmarshal(body, &value)
		object, isObject := value.(map[string]any)
		if err != nil || !isObject {
			if ev.Outcome != mirror.OutcomeMalformed {
				t.Errorf("outcome %s of %q; want %s", ev.Outcome, body, mirror.OutcomeMalformed)
			}
			return
		}
		data, _ := object["data"].(map[string]any)
		compare := func(name, got string, value any, limit int) {
			want, _ := value.(string)
			if strings.ContainsRune(want, utf8.RuneError) {
				return // perhaps a character of its own, perhaps what a lone surrogate became
			}
			if !mirror.ValidID(want, limit) {
				want = ""
			}
			if got != want {
				t.Errorf("%s of %q = %q; want %q", name, body, got, want)
			}
		}
		compare("type", ev.Type, object["type"], 128)
		compare("room", string(ev.Room), data["roomId"], mirror.MaxRoomID)
		compare("project", ev.LiveblocksProject, data["projectId"], mirror.MaxProjectID)
	})
}

func BenchmarkDecode(b *testing.B) {
	for _, v := range readVectors(b) {
		switch v.Name {
		case "storageUpdated", "userEntered", "commentReactionAdded", "notification-thread":
		default:
			continue
		}
		b.Run(v.Name, func(b *testing.B) {
			body := []byte(v.Body)
			b.ReportAllocs()
			for b.Loop() {
				if a := webhook.Decode("acme", v.ID, body, sendTime, receiveTime); a.Event.Outcome != mirror.OutcomeQueued {
					b.Fatal(a.Event.Outcome)
				}
			}
		})
	}
}
