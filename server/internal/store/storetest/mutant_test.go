package storetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/clock"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// mutant is a store with one defect.
type mutant struct {
	name string
	// cases have to fail on it, each of them.
	cases []string
	wrap  func(b base) store.Store
}

// base is what a mutant is made of: a store that keeps the contract and the rows
// behind it.
type base struct {
	store.Store
	d database
}

const whereKey = " where bucket = ? and project_id = ? and room_id = ? and kind = ? and resource_id = ?"

func keyArgs(r mirror.Resource) []any {
	return []any{r.Bucket(), string(r.Project), string(r.Room), int16(r.Kind), r.ID}
}

// state alters the state of r.
func (b base) state(ctx context.Context, r mirror.Resource, set string, args ...any) error {
	_, err := b.d.sql.Exec(ctx, "update mirror_resource_state set "+set+whereKey, append(args, keyArgs(r)...)...)
	return err
}

// children alters the states of what is in the room of r.
func (b base) children(ctx context.Context, r mirror.Resource, set string) error {
	_, err := b.d.sql.Exec(ctx, "update mirror_resource_state set "+set+
		" where bucket = ? and project_id = ? and room_id = ? and kind between 2 and 5", keyArgs(r)[:3]...)
	return err
}

func mutants() []mutant {
	return append(historyMutants(), []mutant{
		{
			"describes no server",
			[]string{"server is described"},
			func(b base) store.Store { return &describesNothing{b} },
		},
		{
			"reads the first piece of much",
			[]string{
				"room of many threads", "thread of many rows", "room of many users and sessions", "group of many members",
			},
			func(b base) store.Store { return &shortReads{b} },
		},
		{
			"answers a read with one that runs already",
			[]string{"read that begins after a write sees it, beside others"},
			func(b base) store.Store { return &joinsReads{base: b} },
		},
		{
			"selects rooms by the first of their terms",
			[]string{"latest rooms by terms", "latest rooms of all pages"},
			func(b base) store.Store { return &firstTerm{b} },
		},
		{
			"begins with the oldest rooms",
			[]string{
				"list of the latest rooms by any filters", "latest rooms follow what is written", "latest rooms of all pages",
			},
			func(b base) store.Store { return &oldestRooms{b} },
		},
		{
			"leaves rooms unindexed",
			[]string{"latest rooms by terms"},
			func(b base) store.Store { return &leavesUnindexed{b} },
		},
		{
			"deletes terms of what is there",
			[]string{"terms of what is there are kept"},
			func(b base) store.Store { return &cleansAllTerms{b} },
		},
		{
			"looks at the first piece of terms",
			[]string{"terms of what is there are kept"},
			func(b base) store.Store { return &cleansOnePiece{b} },
		},
		{
			"selects threads by the first value of their metadata",
			[]string{"threads by metadata", "threads by metadata of all pages"},
			func(b base) store.Store { return &firstMetadata{b} },
		},
		{
			"writes no terms of threads",
			[]string{"threads by metadata", "threads by metadata follow what is written"},
			func(b base) store.Store { return &afterItem{b, "delete from mirror_thread_term"} },
		},
		{
			"leaves threads unindexed",
			[]string{"threads by metadata follow what is written"},
			func(b base) store.Store { return &afterItem{b, "update mirror_thread set terms_sha256 = null"} },
		},
		{
			"drops a change",
			[]string{"changes come in order from a number on", "reader that follows writers misses nothing"},
			func(b base) store.Store { return &dropsChange{b} },
		},
		{
			"shows a change after later ones",
			[]string{"reader that follows writers misses nothing"},
			func(b base) store.Store { return &lateChange{base: b} },
		},
		{
			"lists changes backwards",
			[]string{"changes come in order from a number on"},
			func(b base) store.Store { return &backwardChanges{b} },
		},
		{
			"reads the changes of one bucket",
			[]string{"changes of many buckets come at once"},
			func(b base) store.Store { return &oneBucket{b} },
		},
		{
			"tells of numbers before they are committed",
			[]string{
				"changes come in order from a number on", "changes of many buckets come at once",
				"reader that follows writers misses nothing",
			},
			func(b base) store.Store { return &earlyNumbers{b} },
		},
		{
			"keeps the numbers to itself",
			[]string{"what is applied returns its changes"},
			func(b base) store.Store { return &keepsNumbers{b} },
		},
		{
			"forgets the epoch of a change",
			[]string{"changes tell of the room's epoch", "what is applied returns its changes"},
			func(b base) store.Store { return &forgetsEpochs{b} },
		},
		{
			"lists copies of deleted rooms",
			[]string{"copies are listed with their revisions and epochs"},
			func(b base) store.Store { return &copiesDeleted{b} },
		},
		{
			"lists copies of all rooms",
			[]string{"copies are listed in pages, by room"},
			func(b base) store.Store { return &copiesOfAll{b} },
		},
		{
			"reads deleted resources by their keys",
			[]string{"resources are read by their keys"},
			func(b base) store.Store { return &deletedByKey{b} },
		},
		{
			"reads long sources of threads by their keys",
			[]string{"resources are read by their keys"},
			func(b base) store.Store { return &longByKey{b} },
		},
		{
			"reads some of the resources by their keys",
			[]string{"resources are read by their keys"},
			func(b base) store.Store { return &someByKey{b} },
		},
		{
			"looks for copies without a bound",
			[]string{"page of copies is bounded by what it looks at"},
			func(b base) store.Store { return &copiesUntilShown{b} },
		},
		{
			"trims without notice",
			[]string{"changes are trimmed from the beginning"},
			func(b base) store.Store { return &trimsSilently{b} },
		},
		{
			"trims more than it was asked to",
			[]string{"changes are trimmed from the beginning"},
			func(b base) store.Store { return &trimsMore{b} },
		},
		{
			"numbers anew after a trim",
			[]string{"changes are trimmed from the beginning"},
			func(b base) store.Store { return &trimsAndRestarts{b} },
		},
		{
			"gives the feed another identity",
			[]string{"feed keeps its identity"},
			func(b base) store.Store { return &newIdentity{b} },
		},
		{
			"keeps the identity of the feed",
			[]string{"feed gets another identity"},
			func(b base) store.Store { return &keepsIdentity{b} },
		},
		{
			"discards by calling it done",
			[]string{"discard ends a task without a fetch"},
			func(b base) store.Store { return &discardsAsDone{b} },
		},
		{
			"discards but keeps the lease",
			[]string{"discard ends a lease"},
			func(b base) store.Store { return &discardsUnderLease{b} },
		},
		{
			"replays what is urgent",
			[]string{"replay does not delay what is urgent"},
			func(b base) store.Store { return &replaysUrgently{b} },
		},
		{
			"replays as of the event",
			[]string{"replayed events make stale what they made stale"},
			func(b base) store.Store { return &replaysAsOfThen{b} },
		},
		{
			"replays without folding",
			[]string{"replayed event waits at what it is folded into"},
			func(b base) store.Store { return &replaysUnfolded{b} },
		},
		{
			"replays what was erased",
			[]string{"what was erased is neither replayed nor taken up"},
			func(b base) store.Store { return &replaysErased{b} },
		},
		{
			"takes up what was erased",
			[]string{"what was erased is neither replayed nor taken up"},
			func(b base) store.Store { return &takesUpErased{replaysErased{b}} },
		},
		{
			"takes an order to stop for a pause",
			[]string{"project is stopped and goes on"},
			func(b base) store.Store { return &pausesToStop{b} },
		},
		{
			"believes that a document is unchanged",
			[]string{"claim sees the copy of a document"},
			func(b base) store.Store { return &believesUnchanged{b} },
		},
		{
			"claims without a look at the copy",
			[]string{"claim sees the copy of a document"},
			func(b base) store.Store { return &claimsBlindly{b} },
		},
		{
			"takes a number for what fails",
			[]string{"what fails takes no number"},
			func(b base) store.Store { return &burnsNumbers{b} },
		},
		{
			"ignores the token",
			[]string{"old token writes nothing", "lease given back is lost"},
			func(b base) store.Store { return &ignoresToken{b} },
		},
		{"ignores the epoch", []string{
			"fetched before the room was created anew",
			"fetched before the deletion and applied after the rebirth",
		}, func(b base) store.Store { return &ignoresEpoch{b} }},
		{
			"ignores the epoch of a 404",
			[]string{"404 of another epoch"},
			func(b base) store.Store { return &ignoresMissingEpoch{b} },
		},
		{
			"folds case",
			[]string{"odd ids stay apart in rooms and documents"},
			func(b base) store.Store { return &foldsIDs{b, strings.ToLower} },
		},
		{
			"trims ids",
			[]string{"odd ids stay apart in rooms and documents"},
			func(b base) store.Store { return &foldsIDs{b, strings.TrimSpace} },
		},
		{"normalises ids", []string{"odd ids stay apart in rooms and documents"}, func(b base) store.Store {
			return &foldsIDs{b, strings.NewReplacer("o\u0308", "\u00f6").Replace}
		}},
		{"folds the case of events", []string{"odd ids stay apart"}, func(b base) store.Store { return &foldsEvents{b} }},
		{
			"takes a duplicate for fresh",
			[]string{"duplicate writes nothing", "concurrent duplicates are one event"},
			func(b base) store.Store { return &freshDuplicates{b} },
		},
		{
			"raises for a duplicate",
			[]string{"duplicate writes nothing"},
			func(b base) store.Store { return &raisesDuplicates{b} },
		},
		{
			"accepts one by one",
			[]string{"event that is refused is reported"},
			func(b base) store.Store { return &acceptsOneByOne{b} },
		},
		{
			"keeps milliseconds",
			[]string{"times are kept to the microsecond in UTC"},
			func(b base) store.Store { return &milliseconds{b} },
		},
		{"ignores if unknown", []string{"hint may only want the resource known"}, func(b base) store.Store {
			return &altersHints{b, func(h *mirror.Invalidation) { h.IfUnknown = false }}
		}},
		{"ignores the minimal interval", []string{
			"minimal interval is kept",
			"minimal interval is kept by what comes in during a fetch",
		}, func(b base) store.Store {
			return &altersHints{b, func(h *mirror.Invalidation) { h.MinInterval = 0 }}
		}},
		{
			"ignores the backoff",
			[]string{"raised resource waits for its backoff"},
			func(b base) store.Store { return &ignoresBackoff{b} },
		},
		{
			"lets the last pin win",
			[]string{"liveblocks project is pinned once"},
			func(b base) store.Store { return &lastPin{b} },
		},
		{
			"takes up what was worked",
			[]string{"event that was set aside is taken up once", "event that was worked is not taken up"},
			func(b base) store.Store { return &takesUpAgain{b} },
		},
		{
			"takes up without folding",
			[]string{"what is taken up is like new"},
			func(b base) store.Store { return &takesUpUnfolded{b} },
		},
		{
			"claims what is leased",
			[]string{"live lease excludes", "one resource is claimed by one"},
			func(b base) store.Store { return &claimsLeased{b} },
		},
		{"renews nothing", []string{"renewed lease lasts longer"}, func(b base) store.Store { return &renewsNothing{b} }},
		{
			"lists what is leased",
			[]string{"due leaves out what is leased"},
			func(b base) store.Store { return &listsLeased{b} },
		},
		{
			"takes settle fetches for stale",
			[]string{"due tells settle fetches from what is stale"},
			func(b base) store.Store { return &hidesSettles{b} },
		},
		{
			"loses the settle fetch",
			[]string{"settle fetch comes once", "404 settles like a success"},
			func(b base) store.Store { return &losesSettle{b} },
		},
		{"settles for ever", []string{"settle fetch comes once"}, func(b base) store.Store { return &settlesForEver{b} }},
		{
			"settles after a late fetch",
			[]string{"settle fetch is left out after a late fetch"},
			func(b base) store.Store { return &settlesAfterAll{b} },
		},
		{
			"forgets deaths",
			[]string{"death of the process counts as an attempt"},
			func(b base) store.Store { return &forgetsDeaths{b} },
		},
		{
			"joins all",
			[]string{"child fetched together with its room, perhaps of an earlier incarnation"},
			func(b base) store.Store { return &joinsAll{b} },
		},
		{
			"looks for all kinds",
			[]string{"due leaves alone kinds that are not asked for"},
			func(b base) store.Store { return &looksForAll{b} },
		},
		{
			"trusts any lease",
			[]string{"lease too far away does not count"},
			func(b base) store.Store { return &trustsAnyLease{b} },
		},
		{
			"ignores what comes in during a fetch",
			[]string{"what comes in during the fetch is due again"},
			func(b base) store.Store { return &ignoresGeneration{b} },
		},
		{
			"counts spare failures",
			[]string{"spare failure costs no attempt"},
			func(b base) store.Store { return &countsSpare{b} },
		},
		{"raises for a retry", []string{"retry makes due at once"}, func(b base) store.Store { return &raisesRetry{b} }},
		{
			"sleeps though the room is there",
			[]string{"park after the room came", "nothing parked sleeps for ever"},
			func(b base) store.Store { return &sleepsInPark{b} },
		},
		{
			"forgets to wake what is parked",
			[]string{"parked child waits for its room"},
			func(b base) store.Store { return &forgetsParked{b} },
		},
		{
			"rewrites what is unchanged",
			[]string{"unchanged document moves its times alone"},
			func(b base) store.Store { return &rewrites{b} },
		},
		{
			"writes nothing if nothing has changed",
			[]string{"unchanged document gives the lease back"},
			func(b base) store.Store { return &keepsLease{b} },
		},
		{
			"tidies the JSON",
			[]string{"document content is kept byte for byte"},
			func(b base) store.Store { return &tidies{b} },
		},
		{
			"deletes on a 404 alone",
			[]string{"404 alone deletes nothing"},
			func(b base) store.Store { return &deletesAlone{b} },
		},
		{
			"believes a delete event for ever",
			[]string{"delete event contradicted by a fetch is void"},
			func(b base) store.Store {
				return &altersDelete{b, "delete_generation = coalesce(delete_generation, 1)"}
			},
		},
		{
			"forgets a delete event",
			[]string{"delete event after the fetch began is not"},
			func(b base) store.Store { return &altersDelete{b, "delete_generation = null"} },
		},
		{
			"leaves children of a tombstone due",
			[]string{"tombstone quiets children", "room of many threads"},
			func(b base) store.Store { return &restlessChildren{b} },
		},
		{
			"wakes a room as urgently as the fetch began",
			[]string{"child wanted at once by now brings its room to the fore"},
			func(b base) store.Store { return &wakesLate{b} },
		},
		{
			"wakes in any order",
			[]string{"new room wakes in key order"},
			func(b base) store.Store { return &wakesBackwards{b} },
		},
		{
			"loses the JSON of the whole thread",
			[]string{"JSON that cannot be stored takes no other row's with it"},
			func(b base) store.Store { return &losesJSON{b} },
		},
		{
			"wakes nobody on a child's 404",
			[]string{"404 of a child wakes the room"},
			func(b base) store.Store { return &wakesNobody{b} },
		},
		{
			"restarts revisions",
			[]string{"revisions rise and never restart"},
			func(b base) store.Store { return &restartsRevisions{b} },
		},
		{
			"shows tombstones",
			[]string{"delete event and 404 make a tombstone"},
			func(b base) store.Store { return &showsTombstones{b} },
		},
		{"never says stale", []string{"stale is told"}, func(b base) store.Store { return &neverStale{b} }},
		{
			"sorts like people",
			[]string{"odd ids stay apart in rooms and documents"},
			func(b base) store.Store { return &sortsFolded{b} },
		},
		{
			"takes no project for every project",
			[]string{"nothing shows in another project"},
			func(b base) store.Store { return &widens{b} },
		},
		{
			"keeps the comments of the version before",
			[]string{"changed thread is written anew with its comments"},
			func(b base) store.Store { return &keepsRows{b} },
		},
		{
			"rewrites a thread that is unchanged",
			[]string{"unchanged thread moves its times alone"},
			func(b base) store.Store { return &rewritesThreads{b} },
		},
		{
			"tidies the JSON of threads",
			[]string{"thread source is kept byte for byte"},
			func(b base) store.Store { return &tidiesThreads{b} },
		},
		{
			"deletes a thread on a 404 alone",
			[]string{"404 of a thread alone deletes nothing"},
			func(b base) store.Store { return &deletesThreadAlone{b} },
		},
		{
			"ignores the epoch of a thread",
			[]string{"thread fetched in another incarnation"},
			func(b base) store.Store { return &ignoresThreadEpoch{b} },
		},
		{
			"takes a thread between two pieces for a whole one",
			[]string{"long thread in pieces"},
			func(b base) store.Store { return &takesHalves{b} },
		},
		{
			"stores what a list shows over what came meanwhile",
			[]string{"list in pieces against events between them"},
			func(b base) store.Store { return &addsAnyway{b} },
		},
		{
			"trusts that equal keys are equal rows",
			[]string{"what is written of a thread is what differs"},
			func(b base) store.Store { return &trustsKeys{b} },
		},
		{
			"deletes what a list lacks",
			[]string{"list raises threads that it lacks"},
			func(b base) store.Store { return &believesLists{b} },
		},
		{
			"takes what a list shows for what is stored",
			[]string{"list raises threads that differ"},
			func(b base) store.Store { return &ignoresLists{b} },
		},
		{
			"shows deleted comments",
			[]string{"deleted comment stays in its thread", "comments by filter"},
			func(b base) store.Store { return &showsDeletedComments{b} },
		},
		{"counts no comments", []string{"new thread"}, func(b base) store.Store { return &countsNoComments{b} }},
		{"finds groups among users", []string{"threads by filter"}, func(b base) store.Store { return &findsGroups{b} }},
		{
			"heeds no thread",
			[]string{"events by filter"},
			func(b base) store.Store { return &heedsNoThread{b} },
		},
		{
			"heeds no outcome",
			[]string{"events by filter"},
			func(b base) store.Store { return &heedsNoOutcome{b} },
		},
		{
			"heeds no user where there is a room",
			[]string{"list of events by any filters"},
			func(b base) store.Store { return &heedsRoomAlone{b} },
		},
		{
			"begins a page with rows of the same time",
			[]string{"list of notifications by any filters"},
			func(b base) store.Store { return &repeatsTime{b} },
		},
		{
			"purges rooms that are alive",
			[]string{"purge spares a room that is not deleted"},
			func(b base) store.Store { return &purgesAll{b} },
		},
		{
			"purges whatever the time",
			[]string{"purge spares a room that is not deleted"},
			func(b base) store.Store { return &purgesEarly{b} },
		},
		{
			"forgets events with their room",
			[]string{"purge leaves nothing of a deleted room"},
			func(b base) store.Store { return &purgesEvents{b} },
		},
		{
			"purges what may be back",
			[]string{"purge spares a room that may be back"},
			func(b base) store.Store { return &purgesWaiting{b} },
		},
		{
			"lets go on who folds what is purged",
			[]string{"purge ends what is being folded"},
			func(b base) store.Store { return &purgesUnfenced{b} },
		},
		{
			"purges documents of other projects",
			[]string{"purge of a project leaves the others, and the numbers of changes"},
			func(b base) store.Store { return &purgesBucket{b} },
		},
		{
			"leaves gaps between the changes of other projects",
			[]string{"purge of a project leaves the others, and the numbers of changes"},
			func(b base) store.Store { return &purgesChanges{b} },
		},
		{
			"keeps what it should purge of a project",
			[]string{"purge leaves nothing of a project"},
			func(b base) store.Store { return &purgesNothing{b} },
		},
		{
			"expires what waits",
			[]string{
				"event that waits does not expire", "expiry beside all other work loses nothing that is needed",
			},
			func(b base) store.Store { return &expiresWaiting{b} },
		},
		{
			"expires more than a batch",
			[]string{
				"events expire by age, in batches", "notifications expire by age",
			},
			func(b base) store.Store { return &expiresMore{b} },
		},
		{
			"expires what is of other projects",
			[]string{"events expire by age, in batches"},
			func(b base) store.Store { return &expiresOthers{b} },
		},
		{
			"forgets deliveries early",
			[]string{
				"repeated delivery is known until its event expires", "events expire by age, in batches",
				"expiry beside all other work loses nothing that is needed",
			},
			func(b base) store.Store { return &expiresEarly{b} },
		},
		{
			"takes sessions for as old as their beginning",
			[]string{"sessions expire by their end"},
			func(b base) store.Store { return &expiresByBeginning{b} },
		},
		{
			"lets tombstones expire with their events",
			[]string{"late event after all has expired revives nothing"},
			func(b base) store.Store { return &expiresTombstones{b} },
		},
		{
			"loses its place among the rows",
			[]string{"events expire by age, in batches"},
			func(b base) store.Store { return &expiresFirst{b} },
		},
		{
			"forgets the incarnations of deleted rooms",
			[]string{"deleted rooms are emptied by age"},
			func(b base) store.Store { return &expiresEpochs{b} },
		},
		{
			"empties rooms that are alive",
			[]string{"deleted rooms are emptied by age", "room that comes back while deleted ones expire is whole"},
			func(b base) store.Store { return &expiresAlive{b} },
		},
		{
			"takes what events told of a room for its content",
			[]string{"deleted rooms are emptied by age"},
			func(b base) store.Store { return &expiresSessions{b} },
		},
		{
			"lets threads expire that are to be fetched",
			[]string{"deleted threads expire with what belongs to them"},
			func(b base) store.Store { return &expiresPending{b} },
		},
		{
			"leaves the comments of expired threads",
			[]string{"deleted threads expire with what belongs to them"},
			func(b base) store.Store { return &expiresHeads{b} },
		},
		{
			"lets the states of expired groups go",
			[]string{"deleted groups expire with their members"},
			func(b base) store.Store { return &expiresGroupsAll{b} },
		},
		{
			"finds the last row of a page twice",
			[]string{"erasure finds every row once, as it was written"},
			func(b base) store.Store { return &findsTwice{b} },
		},
		{
			"reads long rows at once",
			[]string{"erasure finds every row once, as it was written"},
			func(b base) store.Store { return &findsLong{b} },
		},
		{
			"finds documents as they are compressed",
			[]string{"erasure finds every row once, as it was written"},
			func(b base) store.Store { return &findsCompressed{b} },
		},
		{
			"forgets events of somebody who is erased",
			[]string{"erased events are still known, and those of others mean what they meant"},
			func(b base) store.Store { return &erasesEvents{b, "event_id"} },
		},
		{
			"empties events that name somebody who is erased",
			[]string{"erased events are still known, and those of others mean what they meant"},
			func(b base) store.Store { return &erasesEvents{b, "payload"} },
		},
		{
			"lets go on who folds what is erased",
			[]string{"erasure ends what is being folded"},
			func(b base) store.Store { return &erasesUnfenced{b} },
		},
		{
			"erases all sessions of a room",
			[]string{"erased sessions and notifications are gone, and readers are told"},
			func(b base) store.Store { return &erasesSessions{b} },
		},
		{
			"erases and tells nobody",
			[]string{"erased sessions and notifications are gone, and readers are told"},
			func(b base) store.Store { return &erasesSilently{b} },
		},
		{
			"tells of a notification that went as of a new one",
			[]string{"erased sessions and notifications are gone, and readers are told"},
			func(b base) store.Store { return &erasesUntold{b} },
		},
		{
			"erases in a dry run",
			[]string{
				"erased events are still known, and those of others mean what they meant",
				"erasure of what is deleted leaves what others wrote",
			},
			func(b base) store.Store { return &erasesDry{b} },
		},
		{
			"erases what lives",
			[]string{"erasure spares what lives"},
			func(b base) store.Store { return &erasesAnyway{b, "", "delete_time = '2026-01-01'"} },
		},
		{
			"takes what is deleted for what lives",
			[]string{"erasure of what is deleted leaves what others wrote"},
			func(b base) store.Store { return &erasesAnyway{b, "", "delete_time = null"} },
		},
		{
			"takes an earlier incarnation for the room as it is",
			[]string{"erasure of earlier incarnations spares the room as it is"},
			func(b base) store.Store { return &erasesAnyway{b, "mirror_thread", "epoch = 0"} },
		},
		{
			"leaves the hash of what was erased",
			[]string{"erasure of what is deleted leaves what others wrote"},
			func(b base) store.Store { return &erasesUnseen{b} },
		},
		{
			"erases any number of attachments at once",
			[]string{"erasure takes many attachments of a comment in pieces"},
			func(b base) store.Store { return &erasesAtOnce{b} },
		},
		{
			"erases everywhere without being told",
			[]string{"erasure of what is deleted leaves what others wrote"},
			func(b base) store.Store { return &erasesEverywhere{b, true} },
		},
		{
			"erases nowhere else",
			[]string{"erasure everywhere takes words of others in what is deleted"},
			func(b base) store.Store { return &erasesEverywhere{b, false} },
		},
		{
			"erases events of other projects",
			[]string{"erasure of one project leaves the others"},
			func(b base) store.Store { return &erasesBucket{b} },
		},
		{
			"counts refused calls once",
			[]string{"refused calls of a minute add up"},
			func(b base) store.Store { return &countsOnce{b} },
		},
		{
			"forgets how a call ended",
			[]string{"call is recorded, and its end"},
			func(b base) store.Store { return &recordsNoEnd{b} },
		},
		{
			"takes the beginning of a call for its end",
			[]string{"call is recorded, and its end"},
			func(b base) store.Store { return &beginsLate{b} },
		},
		{
			"shows a project what is of none",
			[]string{"audit of another project does not show"},
			func(b base) store.Store { return &mixesAudits{b} },
		},
		{
			"takes refused calls for others",
			[]string{"audit by filter"},
			func(b base) store.Store { return &heedsNoDenial{b} },
		},
		{
			"keeps the audit for ever",
			[]string{"audit expires by age"},
			func(b base) store.Store { return &keepsAudit{b} },
		},
		{
			"has no page of none",
			[]string{"list of rooms by any filters"},
			func(b base) store.Store { return &neverEmpty{b} },
		},
	}...)
}

// caseNamed finds a case in the suite.
func caseNamed(t *testing.T, name string) testCase {
	t.Helper()
	var found []testCase
	for _, g := range groups() {
		for _, c := range g.cases {
			if c.name == name {
				found = append(found, c)
			}
		}
	}
	if len(found) != 1 {
		t.Fatalf("cases named %q = %d; want 1", name, len(found))
	}
	return found[0]
}

// Each case of the suite bites on the defects it is there for, and passes where
// there is none.
func TestSuiteFailsOnMutants(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		var named []string
		for _, m := range mutants() {
			for _, name := range m.cases {
				named = append(named, name)
				t.Run(m.name+"/"+name, func(t *testing.T) {
					t.Parallel()
					d, c := newDatabase(t, e), caseNamed(t, name)
					failures := record(t, c, func(t T) store.Store { return m.wrap(base{d.open(t), d}) })
					if len(failures) == 0 {
						t.Fatalf("the case passes on a store that %s; want it to fail", m.name)
					}
				})
			}
		}
		slices.Sort(named)
		for _, name := range slices.Compact(named) {
			t.Run("no defect/"+name, func(t *testing.T) {
				t.Parallel()
				d := newDatabase(t, e)
				if failures := record(t, caseNamed(t, name),
					func(t T) store.Store { return base{d.open(t), d} }); len(failures) > 0 {
					t.Fatalf("the case fails on a store without defect: %s", strings.Join(failures, "\n"))
				}
			})
		}
	})
}

func TestCaseNamesAreUnique(t *testing.T) {
	t.Parallel()
	for _, g := range groups() {
		if len(g.cases) == 0 {
			t.Errorf("group %s has no cases", g.name)
		}
		for _, c := range g.cases {
			caseNamed(t, c.name)
		}
	}
}

type purgesAll struct{ base }

func (m *purgesAll) PurgeRoom(ctx context.Context, room mirror.Resource, before time.Time, limit int) (
	store.TableRows, error,
) {
	n, err := m.Store.PurgeRoom(ctx, room, before, limit)
	_, gone := m.d.sql.Exec(ctx, "delete from mirror_document where room_id = ?", string(room.Room))
	return n, errors.Join(err, gone)
}

type purgesEarly struct{ base }

func (m *purgesEarly) PurgeRoom(ctx context.Context, room mirror.Resource, before time.Time, limit int) (
	store.TableRows, error,
) {
	return m.Store.PurgeRoom(ctx, room, before.Add(time.Hour), limit)
}

type purgesEvents struct{ base }

func (m *purgesEvents) PurgeRoom(ctx context.Context, room mirror.Resource, before time.Time, limit int) (
	store.TableRows, error,
) {
	n, err := m.Store.PurgeRoom(ctx, room, before, limit)
	_, gone := m.d.sql.Exec(ctx, "delete from mirror_event where room_id = ? and payload = ?", string(room.Room),
		[]byte(store.Purged))
	return n, errors.Join(err, gone)
}

type purgesWaiting struct{ base }

func (m *purgesWaiting) PurgeRoom(ctx context.Context, room mirror.Resource, before time.Time, limit int) (
	store.TableRows, error,
) {
	if err := m.state(ctx, room, "due_time = null, generation = applied_generation"); err != nil {
		return nil, err
	}
	return m.Store.PurgeRoom(ctx, room, before, limit)
}

type purgesUnfenced struct{ base }

func (m *purgesUnfenced) PurgeRoom(ctx context.Context, room mirror.Resource, before time.Time, limit int) (
	store.TableRows, error,
) {
	type lease struct {
		id    string
		kind  mirror.Kind
		token []byte
		until time.Time
	}
	var leases []lease
	err := m.d.sql.Each(ctx, "select kind, resource_id, lease_token, lease_until from mirror_resource_state "+
		"where room_id = ? and lease_token is not null", func(scan func(dest ...any) error) error {
		var l lease
		err := scan(&l.kind, &l.id, &l.token, &l.until)
		leases = append(leases, l)
		return err
	}, string(room.Room))
	n, failed := m.Store.PurgeRoom(ctx, room, before, limit)
	err = errors.Join(err, failed)
	for _, l := range leases {
		r := room
		r.Kind, r.ID = l.kind, l.id
		err = errors.Join(err, m.state(ctx, r, "lease_token = ?, lease_until = ?", l.token, l.until))
	}
	return n, err
}

type purgesBucket struct{ base }

func (m *purgesBucket) PurgeProject(ctx context.Context, p mirror.ProjectID, bucket int16, limit int) (int, error) {
	n, err := m.Store.PurgeProject(ctx, p, bucket, limit)
	_, gone := m.d.sql.Exec(ctx, "delete from mirror_document where bucket = ?", bucket)
	return n, errors.Join(err, gone)
}

type purgesChanges struct{ base }

func (m *purgesChanges) PurgeProject(ctx context.Context, p mirror.ProjectID, bucket int16, limit int) (int, error) {
	n, err := m.Store.PurgeProject(ctx, p, bucket, limit)
	_, gone := m.d.sql.Exec(ctx, "delete from mirror_change where bucket = ? and project_id = ''", bucket)
	return n, errors.Join(err, gone)
}

type purgesNothing struct{ base }

func (m *purgesNothing) PurgeProject(context.Context, mirror.ProjectID, int16, int) (int, error) {
	return 0, nil
}

type countsOnce struct{ base }

func (m *countsOnce) RecordAudit(ctx context.Context, entries ...mirror.AuditEntry) error {
	entries = slices.Clone(entries)
	for i := range entries {
		entries[i].Calls = min(entries[i].Calls, 1)
	}
	return m.Store.RecordAudit(ctx, entries...)
}

type recordsNoEnd struct{ base }

func (m *recordsNoEnd) RecordAudit(ctx context.Context, entries ...mirror.AuditEntry) error {
	if e := entries[0]; !e.Denied && e.Code != "" {
		return nil
	}
	return m.Store.RecordAudit(ctx, entries...)
}

type mixesAudits struct{ base }

func (m *mixesAudits) RecordAudit(ctx context.Context, entries ...mirror.AuditEntry) error {
	entries = slices.Clone(entries)
	for i := range entries {
		if entries[i].Project == "" {
			entries[i].Project, entries[i].ID = project, "of none"
		}
	}
	return m.Store.RecordAudit(ctx, entries...)
}

type beginsLate struct{ base }

func (m *beginsLate) RecordAudit(ctx context.Context, entries ...mirror.AuditEntry) error {
	err := m.Store.RecordAudit(ctx, entries...)
	for _, e := range entries {
		if e.EndTime.IsZero() {
			_, replaced := m.d.sql.Exec(ctx, "update mirror_audit set code = ?, reason = ? where entry_id = ?", []byte(e.Code),
				[]byte(e.Reason), []byte(e.ID))
			err = errors.Join(err, replaced)
		}
	}
	return err
}

type heedsNoDenial struct{ base }

func (m *heedsNoDenial) AuditEntries(ctx context.Context, f store.AuditFilter) ([]mirror.AuditEntry, error) {
	f.Denied = nil
	return m.Store.AuditEntries(ctx, f)
}

type keepsAudit struct{ base }

func (m *keepsAudit) Expire(ctx context.Context, x store.Expiry) (store.Expired, error) {
	if x.Table == store.AgingAudit {
		return store.Expired{}, nil
	}
	return m.Store.Expire(ctx, x)
}

type expiresWaiting struct{ base }

func (m *expiresWaiting) Expire(ctx context.Context, x store.Expiry) (store.Expired, error) {
	out, err := m.Store.Expire(ctx, x)
	_, gone := m.d.sql.Exec(ctx, "delete from mirror_event where project_id = ? and receive_time < ?", string(x.Project),
		x.Before)
	return out, errors.Join(err, gone)
}

type expiresMore struct{ base }

func (m *expiresMore) Expire(ctx context.Context, x store.Expiry) (store.Expired, error) {
	x.Limit *= 2
	return m.Store.Expire(ctx, x)
}

type expiresOthers struct{ base }

func (m *expiresOthers) Expire(ctx context.Context, x store.Expiry) (store.Expired, error) {
	out, err := m.Store.Expire(ctx, x)
	x.Project = "other"
	_, also := m.Store.Expire(ctx, x)
	return out, errors.Join(err, also)
}

type expiresEarly struct{ base }

func (m *expiresEarly) Expire(ctx context.Context, x store.Expiry) (store.Expired, error) {
	x.Before = x.Before.Add(time.Hour)
	return m.Store.Expire(ctx, x)
}

type expiresByBeginning struct{ base }

func (m *expiresByBeginning) Expire(ctx context.Context, x store.Expiry) (store.Expired, error) {
	out, err := m.Store.Expire(ctx, x)
	_, gone := m.d.sql.Exec(ctx, "delete from mirror_user_session where begin_time < ?", x.Before)
	return out, errors.Join(err, gone)
}

type expiresTombstones struct{ base }

func (m *expiresTombstones) Expire(ctx context.Context, x store.Expiry) (store.Expired, error) {
	out, err := m.Store.Expire(ctx, x)
	_, gone := m.d.sql.Exec(ctx, "delete from mirror_room where delete_time < ?", x.Before)
	_, also := m.d.sql.Exec(ctx, "delete from mirror_resource_state where project_id = ?", string(x.Project))
	return out, errors.Join(err, gone, also)
}

// expireSQL lets the store expire rows, and does something more once rows of a table went.
func (b base) expireSQL(ctx context.Context, x store.Expiry, of store.Aging, text string, args ...any) (
	store.Expired, error,
) {
	out, err := b.Expire(ctx, x)
	if err != nil || x.Table != of || out.Deleted == 0 {
		return out, err
	}
	_, err = b.d.sql.Exec(ctx, text, args...)
	return out, err
}

type expiresEpochs struct{ base }

func (m *expiresEpochs) Expire(ctx context.Context, x store.Expiry) (store.Expired, error) {
	return m.expireSQL(ctx, x, store.AgingRooms, "delete from mirror_room where source_json = '{}'")
}

type expiresAlive struct{ base }

func (m *expiresAlive) Expire(ctx context.Context, x store.Expiry) (store.Expired, error) {
	out, err := m.Store.Expire(ctx, x)
	if err != nil || x.Table != store.AgingRooms {
		return out, err
	}
	_, err = m.d.sql.Exec(ctx, "delete from mirror_document where project_id = ?", string(x.Project))
	return out, err
}

type expiresSessions struct{ base }

func (m *expiresSessions) Expire(ctx context.Context, x store.Expiry) (store.Expired, error) {
	return m.expireSQL(ctx, x, store.AgingRooms, "delete from mirror_user_session where end_cause = 'room_deleted'")
}

type expiresPending struct{ base }

func (m *expiresPending) Expire(ctx context.Context, x store.Expiry) (store.Expired, error) {
	return m.expireSQL(ctx, x, store.AgingThreads, "delete from mirror_thread where delete_time < ?", x.Before)
}

type expiresHeads struct{ base }

func (m *expiresHeads) Expire(ctx context.Context, x store.Expiry) (store.Expired, error) {
	if x.Table != store.AgingThreads {
		return m.Store.Expire(ctx, x)
	}
	_, err := m.d.sql.Exec(ctx, "delete from mirror_thread where delete_time < ?", x.Before)
	return store.Expired{}, err
}

type expiresGroupsAll struct{ base }

func (m *expiresGroupsAll) Expire(ctx context.Context, x store.Expiry) (store.Expired, error) {
	return m.expireSQL(ctx, x, store.AgingGroups, "delete from mirror_resource_state where kind = ?",
		int16(mirror.KindGroup))
}

type expiresFirst struct{ base }

func (m *expiresFirst) Expire(ctx context.Context, x store.Expiry) (store.Expired, error) {
	out, err := m.Store.Expire(ctx, x)
	out.Last = x.After
	return out, err
}

type dropsChange struct{ base }

func (m *dropsChange) Changes(ctx context.Context, ranges []store.ChangeRange) ([]mirror.Change, error) {
	entries, err := m.Store.Changes(ctx, ranges)
	return slices.DeleteFunc(entries, func(c mirror.Change) bool { return c.Number%3 == 2 }), err
}

// lateChange behaves like a plain sequence: a number taken early shows late.
type lateChange struct {
	base
	seen sync.Map
}

func (m *lateChange) Changes(ctx context.Context, ranges []store.ChangeRange) ([]mirror.Change, error) {
	entries, err := m.Store.Changes(ctx, ranges)
	return slices.DeleteFunc(entries, func(c mirror.Change) bool {
		_, again := m.seen.LoadOrStore(c.Number, true)
		return c.Number%5 == 0 && !again
	}), err
}

type backwardChanges struct{ base }

func (m *backwardChanges) Changes(ctx context.Context, ranges []store.ChangeRange) ([]mirror.Change, error) {
	entries, err := m.Store.Changes(ctx, ranges)
	slices.Reverse(entries)
	return entries, err
}

type oneBucket struct{ base }

func (m *oneBucket) Changes(ctx context.Context, ranges []store.ChangeRange) ([]mirror.Change, error) {
	return m.Store.Changes(ctx, ranges[:min(1, len(ranges))])
}

// earlyNumbers tells of numbers that are taken and not committed, as a counter that is
// read past the transactions does.
type earlyNumbers struct{ base }

func (m *earlyNumbers) Heads(ctx context.Context) (mirror.Position, error) {
	heads, err := m.Store.Heads(ctx)
	for bucket := range heads {
		if heads[bucket] > 0 {
			heads[bucket]++
		}
	}
	return heads, err
}

type keepsNumbers struct{ base }

func (m *keepsNumbers) ApplyDocument(ctx context.Context, lease mirror.Lease, doc mirror.DocumentContent,
	now time.Time, settle time.Duration,
) (mirror.Applied, error) {
	applied, err := m.Store.ApplyDocument(ctx, lease, doc, now, settle)
	applied.Changes = nil
	return applied, err
}

type forgetsEpochs struct{ base }

func (m *forgetsEpochs) Changes(ctx context.Context, ranges []store.ChangeRange) ([]mirror.Change, error) {
	entries, err := m.Store.Changes(ctx, ranges)
	for i := range entries {
		entries[i].Epoch = 0
	}
	return entries, err
}

type copiesDeleted struct{ base }

func (m *copiesDeleted) Copies(ctx context.Context, f store.CopyFilter) (page store.CopyPage, err error) {
	if f.Kind != mirror.KindRoom {
		return m.Store.Copies(ctx, f)
	}
	rooms, err := m.Rooms(ctx, store.RoomFilter{
		Project: f.Project, Rooms: f.Rooms, Deleted: true, After: f.AfterRoom, Limit: f.Limit,
	})
	for _, r := range rooms {
		id := mirror.Resource{Project: f.Project, Room: r.ID, Kind: mirror.KindRoom}
		page.Copies = append(page.Copies, mirror.Change{
			Bucket: id.Bucket(), Number: r.Freshness.Revision, Resource: id, Kind: mirror.ChangeUpserted, Epoch: r.Epoch,
		})
	}
	return page, err
}

type copiesOfAll struct{ base }

func (m *copiesOfAll) Copies(ctx context.Context, f store.CopyFilter) (store.CopyPage, error) {
	f.Rooms = nil
	return m.Store.Copies(ctx, f)
}

type copiesUntilShown struct{ base }

func (m *copiesUntilShown) Copies(ctx context.Context, f store.CopyFilter) (store.CopyPage, error) {
	for {
		page, err := m.Store.Copies(ctx, f)
		if err != nil || !page.More || len(page.Copies) > 0 {
			return page, err
		}
		f.AfterRoom, f.Kind, f.AfterID = page.Last.Room, page.Last.Kind, page.Last.ID
	}
}

type trimsSilently struct{ base }

func (m *trimsSilently) Earliest(context.Context) (mirror.Position, error) {
	return mirror.Position{}, nil
}

type trimsMore struct{ base }

func (m *trimsMore) Trim(ctx context.Context, bucket int16, through int64, limit int) (int, error) {
	return m.Store.Trim(ctx, bucket, through+1, limit)
}

// trimsAndRestarts begins to number anew once nothing is left.
type trimsAndRestarts struct{ base }

func (m *trimsAndRestarts) Trim(ctx context.Context, bucket int16, through int64, limit int) (int, error) {
	n, err := m.Store.Trim(ctx, bucket, through, limit)
	left, errLeft := dbtest.Value[int](ctx, m.d.sql, "select count(*) from mirror_change where bucket = ?", bucket)
	if err = errors.Join(err, errLeft); err == nil && left == 0 {
		_, err = m.d.sql.Exec(ctx, "update mirror_feed_head set n = 0 where bucket = ?", bucket)
	}
	return n, err
}

type newIdentity struct{ base }

func (m *newIdentity) IdentifyFeed(_ context.Context, _ mirror.ProjectID, identity [16]byte) ([16]byte, error) {
	return identity, nil
}

type keepsIdentity struct{ base }

func (m *keepsIdentity) ForgetFeeds(ctx context.Context) (int64, error) {
	return dbtest.Value[int64](ctx, m.d.sql, "select count(*) from mirror_project where feed is not null")
}

type burnsNumbers struct{ base }

func (m *burnsNumbers) ApplyDocument(ctx context.Context, lease mirror.Lease, doc mirror.DocumentContent,
	now time.Time, settle time.Duration,
) (mirror.Applied, error) {
	applied, err := m.Store.ApplyDocument(ctx, lease, doc, now, settle)
	if !applied.Changed {
		_, errBurn := m.d.sql.Exec(ctx, "update mirror_feed_head set n = n + 1 where bucket = ?", lease.Resource.Bucket())
		return applied, errors.Join(err, errBurn)
	}
	return applied, err
}

type ignoresToken struct{ base }

func (m *ignoresToken) held(ctx context.Context, lease mirror.Lease) mirror.Lease {
	token, err := dbtest.Value[[]byte](ctx, m.d.sql, "select lease_token from mirror_resource_state"+whereKey,
		keyArgs(lease.Resource)...)
	if err != nil || len(token) != 16 {
		token = bytes.Repeat([]byte{1}, 16)
		err = m.state(ctx, lease.Resource, "lease_token = ?", token)
	}
	if err == nil {
		lease.Token = [16]byte(token)
	}
	return lease
}

func (m *ignoresToken) ApplyRoom(ctx context.Context, lease mirror.Lease, room mirror.RoomContent, now time.Time,
	settle time.Duration,
) (mirror.Applied, error) {
	return m.Store.ApplyRoom(ctx, m.held(ctx, lease), room, now, settle)
}

func (m *ignoresToken) ApplyDocument(ctx context.Context, lease mirror.Lease, doc mirror.DocumentContent,
	now time.Time, settle time.Duration,
) (mirror.Applied, error) {
	return m.Store.ApplyDocument(ctx, m.held(ctx, lease), doc, now, settle)
}

type ignoresEpoch struct{ base }

func (m *ignoresEpoch) ApplyDocument(ctx context.Context, lease mirror.Lease, doc mirror.DocumentContent,
	now time.Time, settle time.Duration,
) (mirror.Applied, error) {
	if room, err := m.Room(ctx, lease.Resource, true); err == nil {
		lease.Epoch = room.Epoch
	}
	return m.Store.ApplyDocument(ctx, lease, doc, now, settle)
}

type ignoresMissingEpoch struct{ base }

func (m *ignoresMissingEpoch) ApplyMissing(ctx context.Context, lease mirror.Lease, f store.Failure,
	settle time.Duration,
) (mirror.Applied, error) {
	if room, err := m.Room(ctx, lease.Resource, true); err == nil {
		lease.Epoch = room.Epoch
	}
	return m.Store.ApplyMissing(ctx, lease, f, settle)
}

// foldsIDs takes rooms for one another, and gives each caller the id it asked
// with.
type foldsIDs struct {
	base
	fold func(string) string
}

func (m *foldsIDs) resource(r mirror.Resource) mirror.Resource {
	r.Room = mirror.RoomID(m.fold(string(r.Room)))
	return r
}

func (m *foldsIDs) Accept(ctx context.Context, batch []mirror.Delivery) ([]store.Accepted, error) {
	batch = slices.Clone(batch)
	for i := range batch {
		batch[i].Invalidations = slices.Clone(batch[i].Invalidations)
		for j := range batch[i].Invalidations {
			batch[i].Invalidations[j].Resource = m.resource(batch[i].Invalidations[j].Resource)
		}
	}
	return m.Store.Accept(ctx, batch)
}

func (m *foldsIDs) Claim(ctx context.Context, r mirror.Resource, token [16]byte, now time.Time,
	ttl time.Duration,
) (mirror.Lease, error) {
	lease, err := m.Store.Claim(ctx, m.resource(r), token, now, ttl)
	lease.Resource = r
	return lease, err
}

func (m *foldsIDs) ApplyRoom(ctx context.Context, lease mirror.Lease, room mirror.RoomContent, now time.Time,
	settle time.Duration,
) (mirror.Applied, error) {
	lease.Resource = m.resource(lease.Resource)
	return m.Store.ApplyRoom(ctx, lease, room, now, settle)
}

func (m *foldsIDs) ApplyDocument(ctx context.Context, lease mirror.Lease, doc mirror.DocumentContent, now time.Time,
	settle time.Duration,
) (mirror.Applied, error) {
	lease.Resource = m.resource(lease.Resource)
	return m.Store.ApplyDocument(ctx, lease, doc, now, settle)
}

func (m *foldsIDs) Task(ctx context.Context, r mirror.Resource, now time.Time) (mirror.Task, error) {
	return m.Store.Task(ctx, m.resource(r), now)
}

type foldsEvents struct{ base }

func (m *foldsEvents) Accept(ctx context.Context, batch []mirror.Delivery) ([]store.Accepted, error) {
	var out []store.Accepted
	for _, a := range batch { // one by one, since a batch never holds one event twice
		a.Event.ID = strings.ToLower(a.Event.ID)
		answer, err := m.Store.Accept(ctx, []mirror.Delivery{a})
		if err != nil {
			return nil, err
		}
		out = append(out, answer...)
	}
	return out, nil
}

func (m *foldsEvents) Event(ctx context.Context, project mirror.ProjectID, id string) (mirror.Event, error) {
	ev, err := m.Store.Event(ctx, project, strings.ToLower(id))
	ev.ID = id
	return ev, err
}

type freshDuplicates struct{ base }

func (m *freshDuplicates) Accept(ctx context.Context, batch []mirror.Delivery) ([]store.Accepted, error) {
	answers, err := m.Store.Accept(ctx, batch)
	for i := range answers {
		answers[i].Fresh = true
	}
	return answers, err
}

type raisesDuplicates struct{ base }

func (m *raisesDuplicates) Accept(ctx context.Context, batch []mirror.Delivery) ([]store.Accepted, error) {
	answers, err := m.Store.Accept(ctx, batch)
	for i := range answers {
		for _, h := range batch[i].Invalidations {
			if !answers[i].Fresh {
				err = errors.Join(err, m.state(ctx, h.Resource, "generation = generation + 1"))
			}
		}
	}
	return answers, err
}

type acceptsOneByOne struct{ base }

func (m *acceptsOneByOne) Accept(ctx context.Context, batch []mirror.Delivery) ([]store.Accepted, error) {
	var out []store.Accepted
	for _, a := range batch {
		answer, err := m.Store.Accept(ctx, []mirror.Delivery{a})
		if err != nil {
			return nil, err
		}
		out = append(out, answer...)
	}
	return out, nil
}

type milliseconds struct{ base }

func (m *milliseconds) Accept(ctx context.Context, batch []mirror.Delivery) ([]store.Accepted, error) {
	batch = slices.Clone(batch)
	for i := range batch {
		batch[i].Event.SourceTime = batch[i].Event.SourceTime.Truncate(time.Millisecond)
	}
	return m.Store.Accept(ctx, batch)
}

type altersHints struct {
	base
	alter func(h *mirror.Invalidation)
}

func (m *altersHints) Accept(ctx context.Context, batch []mirror.Delivery) ([]store.Accepted, error) {
	batch = slices.Clone(batch)
	for i := range batch {
		batch[i].Invalidations = slices.Clone(batch[i].Invalidations)
		for j := range batch[i].Invalidations {
			m.alter(&batch[i].Invalidations[j])
		}
	}
	return m.Store.Accept(ctx, batch)
}

type ignoresBackoff struct{ base }

func (m *ignoresBackoff) Accept(ctx context.Context, batch []mirror.Delivery) ([]store.Accepted, error) {
	for _, a := range batch {
		for _, h := range a.Invalidations {
			if err := m.state(ctx, h.Resource, "not_before = null, due_time = null"); err != nil {
				return nil, err
			}
		}
	}
	return m.Store.Accept(ctx, batch)
}

type takesUpAgain struct{ base }

func (m *takesUpAgain) TakeUp(ctx context.Context, batch []mirror.Delivery) ([]mirror.Pending, error) {
	for _, d := range batch {
		_, err := m.d.sql.Exec(ctx, "update mirror_event set outcome = ? where event_id = ?",
			string(mirror.OutcomeForeignProject), d.Event.ID)
		if err != nil {
			return nil, err
		}
	}
	return m.Store.TakeUp(ctx, batch)
}

type takesUpUnfolded struct{ base }

func (m *takesUpUnfolded) TakeUp(ctx context.Context, batch []mirror.Delivery) ([]mirror.Pending, error) {
	return m.Store.TakeUp(ctx, unfolded(batch))
}

// unfolded returns deliveries of which none is to be folded.
func unfolded(batch []mirror.Delivery) []mirror.Delivery {
	batch = slices.Clone(batch)
	for i := range batch {
		batch[i].Invalidations = slices.Clone(batch[i].Invalidations)
		for j := range batch[i].Invalidations {
			batch[i].Invalidations[j].Fold = false
		}
	}
	return batch
}

type discardsAsDone struct{ base }

func (m *discardsAsDone) Discard(ctx context.Context, r mirror.Resource, now time.Time) (mirror.Task, error) {
	if _, err := m.Store.Discard(ctx, r, now); err != nil {
		return mirror.Task{}, err
	}
	if err := m.state(ctx, r, "applied_generation = generation"); err != nil {
		return mirror.Task{}, err
	}
	return m.Task(ctx, r, now)
}

type discardsUnderLease struct{ base }

func (m *discardsUnderLease) Discard(ctx context.Context, r mirror.Resource, now time.Time) (mirror.Task, error) {
	return m.Task(ctx, r, now)
}

type replaysUrgently struct{ base }

func (m *replaysUrgently) Replay(ctx context.Context, batch []mirror.Delivery, now time.Time) ([]mirror.Pending,
	int, error,
) {
	pending, n, err := m.Store.Replay(ctx, batch, now)
	for i := 0; err == nil && i < len(pending); i++ {
		err = m.state(ctx, pending[i].Resource, "background = false")
	}
	return pending, n, err
}

type replaysAsOfThen struct{ base }

func (m *replaysAsOfThen) Replay(ctx context.Context, batch []mirror.Delivery, now time.Time) ([]mirror.Pending,
	int, error,
) {
	if len(batch) > 0 {
		now = batch[0].Event.ReceiveTime
	}
	return m.Store.Replay(ctx, batch, now)
}

type replaysUnfolded struct{ base }

func (m *replaysUnfolded) Replay(ctx context.Context, batch []mirror.Delivery, now time.Time) ([]mirror.Pending,
	int, error,
) {
	return m.Store.Replay(ctx, unfolded(batch), now)
}

type replaysErased struct{ base }

// restore puts the bodies back that a batch has.
func (m *replaysErased) restore(ctx context.Context, batch []mirror.Delivery) error {
	for _, d := range batch {
		if _, err := m.d.sql.Exec(ctx, "update mirror_event set payload = ? where event_id = ?", d.Event.Payload,
			[]byte(d.Event.ID)); err != nil {
			return err
		}
	}
	return nil
}

func (m *replaysErased) Replay(ctx context.Context, batch []mirror.Delivery, now time.Time) ([]mirror.Pending,
	int, error,
) {
	if err := m.restore(ctx, batch); err != nil {
		return nil, 0, err
	}
	return m.Store.Replay(ctx, batch, now)
}

type takesUpErased struct{ replaysErased }

func (m *takesUpErased) Replay(ctx context.Context, batch []mirror.Delivery, now time.Time) ([]mirror.Pending,
	int, error,
) {
	return m.Store.Replay(ctx, batch, now)
}

func (m *takesUpErased) TakeUp(ctx context.Context, batch []mirror.Delivery) ([]mirror.Pending, error) {
	if err := m.restore(ctx, batch); err != nil {
		return nil, err
	}
	return m.Store.TakeUp(ctx, batch)
}

type pausesToStop struct{ base }

func (m *pausesToStop) Stop(ctx context.Context, project mirror.ProjectID, reason string, now time.Time) error {
	return m.Pause(ctx, project, reason, now)
}

type lastPin struct{ base }

func (m *lastPin) PinProject(ctx context.Context, project mirror.ProjectID, id string) (string, error) {
	if _, err := m.d.sql.Exec(ctx, "update mirror_project set liveblocks_project_id = '' where project_id = ?",
		string(project)); err != nil {
		return "", err
	}
	return m.Store.PinProject(ctx, project, id)
}

type claimsLeased struct{ base }

func (m *claimsLeased) Claim(ctx context.Context, r mirror.Resource, token [16]byte, now time.Time,
	ttl time.Duration,
) (mirror.Lease, error) {
	if err := m.state(ctx, r, "lease_until = null"); err != nil {
		return mirror.Lease{}, err
	}
	return m.Store.Claim(ctx, r, token, now, ttl)
}

type renewsNothing struct{ base }

func (m *renewsNothing) Renew(ctx context.Context, lease mirror.Lease, _ time.Time) error {
	return m.Store.Renew(ctx, lease, lease.Until)
}

type listsLeased struct{ base }

func (m *listsLeased) Due(ctx context.Context, look store.Look) (store.DueList, error) {
	look.Now = look.Now.Add(leaseTTL)
	return m.Store.Due(ctx, look)
}

type hidesSettles struct{ base }

func (m *hidesSettles) Due(ctx context.Context, look store.Look) (store.DueList, error) {
	list, err := m.Store.Due(ctx, look)
	for i := range list.Resources {
		list.Resources[i].Settles = false
	}
	return list, err
}

type losesSettle struct{ base }

func (m *losesSettle) ApplyRoom(ctx context.Context, lease mirror.Lease, room mirror.RoomContent, now time.Time,
	_ time.Duration,
) (mirror.Applied, error) {
	return m.Store.ApplyRoom(ctx, lease, room, now, 0)
}

func (m *losesSettle) ApplyMissing(ctx context.Context, lease mirror.Lease, f store.Failure,
	_ time.Duration,
) (mirror.Applied, error) {
	return m.Store.ApplyMissing(ctx, lease, f, 0)
}

type settlesForEver struct{ base }

func (m *settlesForEver) ApplyDocument(ctx context.Context, lease mirror.Lease, doc mirror.DocumentContent,
	now time.Time, settle time.Duration,
) (mirror.Applied, error) {
	if err := m.state(ctx, lease.Resource, "settle = true, notice_time = null"); err != nil {
		return mirror.Applied{}, err
	}
	return m.Store.ApplyDocument(ctx, lease, doc, now, settle)
}

type settlesAfterAll struct{ base }

func (m *settlesAfterAll) Claim(
	ctx context.Context, r mirror.Resource, token [16]byte, now time.Time, ttl time.Duration,
) (mirror.Lease, error) {
	if err := m.state(ctx, r, "notice_time = null"); err != nil {
		return mirror.Lease{}, err
	}
	return m.Store.Claim(ctx, r, token, now, ttl)
}

type forgetsDeaths struct{ base }

func (m *forgetsDeaths) Claim(
	ctx context.Context, r mirror.Resource, token [16]byte, now time.Time, ttl time.Duration,
) (mirror.Lease, error) {
	lease, err := m.Store.Claim(ctx, r, token, now, ttl)
	if err == nil {
		err = m.state(ctx, r, "attempts = 0, deaths = 0")
	}
	return lease, err
}

type looksForAll struct{ base }

func (m *looksForAll) Due(ctx context.Context, look store.Look) (store.DueList, error) {
	look.Kinds = mirror.Kinds()
	return m.Store.Due(ctx, look)
}

type trustsAnyLease struct{ base }

func (m *trustsAnyLease) Due(ctx context.Context, look store.Look) (store.DueList, error) {
	look.LeaseTTL *= 1_000_000
	return m.Store.Due(ctx, look)
}

type joinsAll struct{ base }

func (m *joinsAll) ApplyRoom(ctx context.Context, lease mirror.Lease, room mirror.RoomContent, now time.Time,
	settle time.Duration,
) (mirror.Applied, error) {
	lease.Joined = slices.Clone(lease.Joined)
	for i := range lease.Joined {
		lease.Joined[i].SourceTime = now
	}
	return m.Store.ApplyRoom(ctx, lease, room, now, settle)
}

type ignoresGeneration struct{ base }

func (m *ignoresGeneration) ApplyDocument(ctx context.Context, lease mirror.Lease, doc mirror.DocumentContent,
	now time.Time, settle time.Duration,
) (mirror.Applied, error) {
	var err error
	if lease.Generation, err = dbtest.Value[int64](ctx, m.d.sql, "select generation from mirror_resource_state"+whereKey,
		keyArgs(lease.Resource)...); err != nil {
		return mirror.Applied{}, err
	}
	return m.Store.ApplyDocument(ctx, lease, doc, now, 0)
}

type countsSpare struct{ base }

func (m *countsSpare) Fail(ctx context.Context, lease mirror.Lease, f store.Failure) (mirror.Applied, error) {
	f.Uncounted = false
	return m.Store.Fail(ctx, lease, f)
}

type raisesRetry struct{ base }

func (m *raisesRetry) Retry(ctx context.Context, r mirror.Resource, now time.Time) (mirror.Task, error) {
	if _, err := m.Request(ctx, requestsFor(r), now); err != nil {
		return mirror.Task{}, err
	}
	return m.Store.Retry(ctx, r, now)
}

type sleepsInPark struct{ base }

func (m *sleepsInPark) Park(ctx context.Context, lease mirror.Lease, now time.Time) (mirror.Applied, error) {
	applied, err := m.Store.Park(ctx, lease, now)
	if err != nil {
		return applied, err
	}
	return applied, m.state(ctx, lease.Resource, "due_time = null")
}

type forgetsParked struct{ base }

func (m *forgetsParked) ApplyRoom(ctx context.Context, lease mirror.Lease, room mirror.RoomContent, now time.Time,
	settle time.Duration,
) (mirror.Applied, error) {
	applied, err := m.Store.ApplyRoom(ctx, lease, room, now, settle)
	if err != nil {
		return applied, err
	}
	return applied, m.children(ctx, lease.Resource, "due_time = null")
}

type rewrites struct{ base }

func (m *rewrites) ApplyDocument(ctx context.Context, lease mirror.Lease, doc mirror.DocumentContent, now time.Time,
	settle time.Duration,
) (mirror.Applied, error) {
	if _, err := m.d.sql.Exec(ctx, "update mirror_document set content_sha256 = ''"+whereKey,
		keyArgs(lease.Resource)...); err != nil {
		return mirror.Applied{}, err
	}
	return m.Store.ApplyDocument(ctx, lease, doc, now, settle)
}

type keepsLease struct{ base }

func (m *keepsLease) ApplyDocument(ctx context.Context, lease mirror.Lease, doc mirror.DocumentContent, now time.Time,
	settle time.Duration,
) (mirror.Applied, error) {
	if stored, err := m.Document(ctx, lease.Resource, true); err == nil && stored.SHA256 == sha256.Sum256(doc.Content) {
		return mirror.Applied{}, nil
	}
	return m.Store.ApplyDocument(ctx, lease, doc, now, settle)
}

type tidies struct{ base }

func (m *tidies) ApplyDocument(ctx context.Context, lease mirror.Lease, doc mirror.DocumentContent, now time.Time,
	settle time.Duration,
) (mirror.Applied, error) {
	var b bytes.Buffer
	if json.Compact(&b, doc.Content) == nil {
		doc.Content = b.Bytes()
	}
	return m.Store.ApplyDocument(ctx, lease, doc, now, settle)
}

type deletesAlone struct{ base }

func (m *deletesAlone) ApplyMissing(ctx context.Context, lease mirror.Lease, f store.Failure,
	settle time.Duration,
) (mirror.Applied, error) {
	if err := m.state(ctx, lease.Resource, "delete_generation = generation"); err != nil {
		return mirror.Applied{}, err
	}
	return m.Store.ApplyMissing(ctx, lease, f, settle)
}

// altersDelete alters what a successful fetch leaves of a delete event.
type altersDelete struct {
	base
	set string
}

func (m *altersDelete) ApplyRoom(ctx context.Context, lease mirror.Lease, room mirror.RoomContent, now time.Time,
	settle time.Duration,
) (mirror.Applied, error) {
	applied, err := m.Store.ApplyRoom(ctx, lease, room, now, settle)
	if err != nil {
		return applied, err
	}
	return applied, m.state(ctx, lease.Resource, m.set)
}

type describesNothing struct{ base }

func (describesNothing) Inspect(context.Context) (store.Server, error) { return store.Server{}, nil }

// deletedByKey returns threads that were deleted.
type deletedByKey struct{ base }

func (m *deletedByKey) ThreadsByID(ctx context.Context, _ mirror.ProjectID, threads []mirror.Resource, _ int64) (
	[]mirror.Thread, error,
) {
	var all []mirror.Thread
	seen := make(map[mirror.Resource]bool)
	for _, r := range threads {
		row, err := m.Thread(ctx, r, true)
		if err == nil && !seen[r] {
			seen[r], all = true, append(all, row)
		} else if err != nil && !errors.Is(err, store.ErrNotFound) {
			return nil, err
		}
	}
	return all, nil
}

// longByKey returns the sources of all threads, however long.
type longByKey struct{ base }

func (m *longByKey) ThreadsByID(ctx context.Context, project mirror.ProjectID, threads []mirror.Resource, _ int64) (
	[]mirror.Thread, error,
) {
	return m.Store.ThreadsByID(ctx, project, threads, math.MaxInt64)
}

// someByKey returns the users of all rooms but one.
type someByKey struct{ base }

func (m *someByKey) ActiveUsersByRoom(ctx context.Context, project mirror.ProjectID, rooms []mirror.Resource) (
	[]mirror.ActiveUsers, error,
) {
	all, err := m.Store.ActiveUsersByRoom(ctx, project, rooms)
	return all[:max(0, len(all)-1)], err
}

// shortReads reads the first piece of much.
type shortReads struct{ base }

const firstPiece = large - 6

func (m *shortReads) KnownItems(ctx context.Context, list mirror.Resource) (map[string]store.Known, error) {
	known, err := m.Store.KnownItems(ctx, list)
	for i, id := range slices.Sorted(maps.Keys(known)) {
		if i >= firstPiece {
			delete(known, id)
		}
	}
	return known, err
}

func (m *shortReads) StoredItem(ctx context.Context, r mirror.Resource) (store.Item, error) {
	item, err := m.Store.StoredItem(ctx, r)
	for p, rows := range item.Parts {
		item.Parts[p] = rows[:min(len(rows), firstPiece)]
	}
	return item, err
}

func (m *shortReads) ActiveUsers(ctx context.Context, users mirror.Resource, deleted bool) (mirror.ActiveUsers, error) {
	active, err := m.Store.ActiveUsers(ctx, users, deleted)
	active.Users = active.Users[:min(len(active.Users), firstPiece)]
	return active, err
}

// joinsReads has one read at a time, whose result all get that ask in the meantime.
type joinsReads struct {
	base

	mu      sync.Mutex
	running func() (mirror.Document, error)
}

func (m *joinsReads) Document(ctx context.Context, r mirror.Resource, deleted bool) (mirror.Document, error) {
	m.mu.Lock()
	read := m.running
	if read == nil {
		read = sync.OnceValues(func() (mirror.Document, error) {
			defer func() {
				m.mu.Lock()
				defer m.mu.Unlock()
				m.running = nil
			}()
			doc, err := m.Store.Document(context.WithoutCancel(ctx), r, deleted)
			_ = clock.Sleep(ctx, 20*time.Millisecond) // so that most reads join another
			return doc, err
		})
		m.running = read
	}
	m.mu.Unlock()
	return read()
}

type restlessChildren struct{ base }

func (m *restlessChildren) ApplyMissing(ctx context.Context, lease mirror.Lease, f store.Failure,
	settle time.Duration,
) (mirror.Applied, error) {
	applied, err := m.Store.ApplyMissing(ctx, lease, f, settle)
	if err != nil || !applied.Changed {
		return applied, err
	}
	_, err = m.d.sql.Exec(ctx, "update mirror_resource_state set due_time = ? where kind between 2 and 5", f.Now)
	return applied, err
}

type wakesNobody struct{ base }

func (m *wakesNobody) ApplyMissing(ctx context.Context, lease mirror.Lease, f store.Failure,
	settle time.Duration,
) (mirror.Applied, error) {
	if lease.Resource.Kind == mirror.KindRoom {
		return m.Store.ApplyMissing(ctx, lease, f, settle)
	}
	return m.Fail(ctx, lease, f)
}

type restartsRevisions struct{ base }

func (m *restartsRevisions) ApplyMissing(ctx context.Context, lease mirror.Lease, f store.Failure,
	settle time.Duration,
) (mirror.Applied, error) {
	applied, err := m.Store.ApplyMissing(ctx, lease, f, settle)
	if err != nil || !applied.Changed {
		return applied, err
	}
	return applied, m.state(ctx, lease.Resource, "revision = 1")
}

type showsTombstones struct{ base }

func (m *showsTombstones) Room(ctx context.Context, r mirror.Resource, _ bool) (mirror.Room, error) {
	return m.Store.Room(ctx, r, true)
}

type neverStale struct{ base }

func (m *neverStale) Document(ctx context.Context, r mirror.Resource, deleted bool) (mirror.Document, error) {
	doc, err := m.Store.Document(ctx, r, deleted)
	doc.Freshness.Stale = false
	return doc, err
}

type sortsFolded struct{ base }

func (m *sortsFolded) Rooms(ctx context.Context, f store.RoomFilter) ([]mirror.Room, error) {
	rooms, err := m.Store.Rooms(ctx, f)
	slices.SortStableFunc(rooms, func(a, b mirror.Room) int {
		return strings.Compare(strings.ToLower(string(a.ID)), strings.ToLower(string(b.ID)))
	})
	return rooms, err
}

type widens struct{ base }

func (m *widens) Rooms(ctx context.Context, f store.RoomFilter) ([]mirror.Room, error) {
	if f.Project == "" {
		f.Project = project
	}
	return m.Store.Rooms(ctx, f)
}

// keepsRows keeps what the version before had and the new one lacks.
type keepsRows struct{ base }

func (m *keepsRows) ApplyItem(ctx context.Context, lease mirror.Lease, item store.Item, fetchTime, now time.Time,
	settle time.Duration,
) (mirror.Applied, error) {
	old, err := m.StoredItem(ctx, lease.Resource)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return mirror.Applied{}, err
	}
	fresh := slices.Clone(item.Parts[0])
	item.Parts = slices.Clone(item.Parts)
	for p, rows := range old.Parts {
		for _, row := range rows {
			if !slices.ContainsFunc(fresh, func(r store.Row) bool { return r.Values[0] == row.Values[0] }) {
				item.Parts[p] = append(slices.Clone(item.Parts[p]), row)
			}
		}
	}
	return m.Store.ApplyItem(ctx, lease, item, fetchTime, now, settle)
}

type rewritesThreads struct{ base }

func (m *rewritesThreads) ApplyItem(ctx context.Context, lease mirror.Lease, item store.Item, fetchTime, now time.Time,
	settle time.Duration,
) (mirror.Applied, error) {
	if err := m.Invalidate(ctx, lease.Resource); err != nil {
		return mirror.Applied{}, err
	}
	return m.Store.ApplyItem(ctx, lease, item, fetchTime, now, settle)
}

type tidiesThreads struct{ base }

func (m *tidiesThreads) ApplyItem(ctx context.Context, lease mirror.Lease, item store.Item, fetchTime, now time.Time,
	settle time.Duration,
) (mirror.Applied, error) {
	var b bytes.Buffer
	if source, ok := item.Head[0].([]byte); ok && json.Compact(&b, source) == nil {
		item.Head = slices.Clone(item.Head)
		item.Head[0] = b.Bytes()
	}
	return m.Store.ApplyItem(ctx, lease, item, fetchTime, now, settle)
}

type deletesThreadAlone struct{ base }

func (m *deletesThreadAlone) ApplyItemMissing(ctx context.Context, lease mirror.Lease, now time.Time,
	settle time.Duration,
) (mirror.Applied, error) {
	if err := m.state(ctx, lease.Resource, "delete_generation = generation"); err != nil {
		return mirror.Applied{}, err
	}
	return m.Store.ApplyItemMissing(ctx, lease, now, settle)
}

type ignoresThreadEpoch struct{ base }

func (m *ignoresThreadEpoch) ApplyItem(ctx context.Context, lease mirror.Lease, item store.Item, fetchTime,
	now time.Time, settle time.Duration,
) (mirror.Applied, error) {
	if room, err := m.Room(ctx, lease.Resource, true); err == nil {
		lease.Epoch = room.Epoch
	}
	return m.Store.ApplyItem(ctx, lease, item, fetchTime, now, settle)
}

type takesHalves struct{ base }

func (m *takesHalves) PrepareItem(ctx context.Context, lease mirror.Lease, item *store.Item) (bool, error) {
	before, err := m.StoredItem(ctx, lease.Resource)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return false, err
	}
	more, err := m.Store.PrepareItem(ctx, lease, item)
	if err == nil && more {
		_, err = m.d.sql.Exec(ctx, "update mirror_thread set content_sha256 = ? where room_id = ? and thread_id = ?",
			before.SHA256[:], string(lease.Resource.Room), lease.Resource.ID)
	}
	return more, err
}

type addsAnyway struct{ base }

func (m *addsAnyway) AddItems(ctx context.Context, lease mirror.Lease, items []store.Item, fetchTime, now time.Time) (
	[]mirror.Change, error,
) {
	for _, item := range items {
		_, err := m.d.sql.Exec(ctx, "delete from mirror_resource_state where room_id = ? and resource_id = ?",
			string(lease.Resource.Room), item.ID)
		if err != nil {
			return nil, err
		}
	}
	return m.Store.AddItems(ctx, lease, items, fetchTime, now)
}

type trustsKeys struct{ base }

func (m *trustsKeys) ApplyItem(ctx context.Context, lease mirror.Lease, item store.Item, fetchTime, now time.Time,
	settle time.Duration,
) (mirror.Applied, error) {
	old, err := m.StoredItem(ctx, lease.Resource)
	if errors.Is(err, store.ErrNotFound) {
		return m.Store.ApplyItem(ctx, lease, item, fetchTime, now, settle)
	}
	if err != nil {
		return mirror.Applied{}, err
	}
	item.Parts = slices.Clone(item.Parts)
	item.Parts[0] = slices.Clone(item.Parts[0])
	for i, row := range item.Parts[0] {
		for _, was := range old.Parts[0] {
			if was.Values[0] == row.Values[0] {
				item.Parts[0][i].Values = was.Values
			}
		}
	}
	return m.Store.ApplyItem(ctx, lease, item, fetchTime, now, settle)
}

type believesLists struct{ base }

func (m *believesLists) ApplyListed(ctx context.Context, lease mirror.Lease, fetchTime time.Time, stale []store.Stale,
	now time.Time, settle time.Duration,
) (mirror.Applied, error) {
	applied, err := m.Store.ApplyListed(ctx, lease, fetchTime, stale, now, settle)
	for _, w := range stale {
		if w.Deleted {
			_, errDelete := m.d.sql.Exec(ctx, "update mirror_thread set delete_time = ? where room_id = ? and thread_id = ?",
				now, string(w.Resource.Room), w.Resource.ID)
			err = errors.Join(err, errDelete)
		}
	}
	return applied, err
}

type ignoresLists struct{ base }

func (m *ignoresLists) ApplyListed(ctx context.Context, lease mirror.Lease, fetchTime time.Time, stale []store.Stale,
	now time.Time, settle time.Duration,
) (mirror.Applied, error) {
	stale = slices.DeleteFunc(slices.Clone(stale), func(w store.Stale) bool {
		r := w.Resource
		_, err := m.StoredItem(ctx, r)
		return !w.Deleted && err == nil
	})
	return m.Store.ApplyListed(ctx, lease, fetchTime, stale, now, settle)
}

type showsDeletedComments struct{ base }

func (m *showsDeletedComments) Comments(ctx context.Context, f store.CommentFilter) ([]mirror.Comment, error) {
	f.Deleted = true
	return m.Store.Comments(ctx, f)
}

type countsNoComments struct{ base }

func (m *countsNoComments) Threads(ctx context.Context, f store.ThreadFilter) ([]mirror.Thread, error) {
	threads, err := m.Store.Threads(ctx, f)
	for i := range threads {
		threads[i].CommentCount = 0
	}
	return threads, err
}

type findsGroups struct{ base }

func (m *findsGroups) Threads(ctx context.Context, f store.ThreadFilter) ([]mirror.Thread, error) {
	if f.Mentioned == "design" {
		f.Mentioned = "erin"
	}
	return m.Store.Threads(ctx, f)
}

type wakesLate struct{ base }

func (m *wakesLate) late(ctx context.Context, lease mirror.Lease, applied mirror.Applied, err error) (mirror.Applied,
	error,
) {
	if err == nil && len(applied.AlsoDue) > 0 {
		err = m.state(ctx, lease.Resource.RoomResource(), "background = ?", lease.Background)
	}
	return applied, err
}

func (m *wakesLate) Park(ctx context.Context, lease mirror.Lease, now time.Time) (mirror.Applied, error) {
	applied, err := m.Store.Park(ctx, lease, now)
	return m.late(ctx, lease, applied, err)
}

func (m *wakesLate) ApplyMissing(ctx context.Context, lease mirror.Lease, f store.Failure,
	settle time.Duration,
) (mirror.Applied, error) {
	applied, err := m.Store.ApplyMissing(ctx, lease, f, settle)
	return m.late(ctx, lease, applied, err)
}

type wakesBackwards struct{ base }

func (m *wakesBackwards) ApplyRoom(ctx context.Context, lease mirror.Lease, room mirror.RoomContent, now time.Time,
	settle time.Duration,
) (mirror.Applied, error) {
	applied, err := m.Store.ApplyRoom(ctx, lease, room, now, settle)
	slices.Reverse(applied.AlsoDue)
	return applied, err
}

type losesJSON struct{ base }

func (m *losesJSON) ApplyItem(ctx context.Context, lease mirror.Lease, item store.Item, fetchTime, now time.Time,
	settle time.Duration,
) (mirror.Applied, error) {
	applied, err := m.Store.ApplyItem(ctx, lease, item, fetchTime, now, settle)
	odd := func(v any) bool {
		raw, ok := v.([]byte)
		return ok && bytes.Contains(raw, []byte("1e200000"))
	}
	for _, row := range item.Parts[0] {
		if err == nil && slices.ContainsFunc(row.Values, odd) {
			_, err = m.d.sql.Exec(ctx, "update mirror_comment set body = null where room_id = ? and thread_id = ?",
				string(lease.Resource.Room), lease.Resource.ID)
		}
	}
	return applied, err
}

type heedsRoomAlone struct{ base }

func (s *heedsRoomAlone) Events(ctx context.Context, f store.EventFilter) ([]mirror.Event, error) {
	if f.Room != "" {
		f.User = ""
	}
	return s.Store.Events(ctx, f)
}

type heedsNoThread struct{ base }

func (s *heedsNoThread) Events(ctx context.Context, f store.EventFilter) ([]mirror.Event, error) {
	f.Thread = ""
	return s.base.Events(ctx, f)
}

type heedsNoOutcome struct{ base }

func (s *heedsNoOutcome) Events(ctx context.Context, f store.EventFilter) ([]mirror.Event, error) {
	f.Outcome = ""
	return s.Store.Events(ctx, f)
}

type repeatsTime struct{ base }

func (s *repeatsTime) Notifications(ctx context.Context, f store.NotificationFilter) ([]mirror.Notification, error) {
	f.AfterID = ""
	return s.Store.Notifications(ctx, f)
}

type neverEmpty struct{ base }

func (s *neverEmpty) Rooms(ctx context.Context, f store.RoomFilter) ([]mirror.Room, error) {
	f.Limit = max(f.Limit, 1)
	return s.Store.Rooms(ctx, f)
}

type believesUnchanged struct{ base }

func (m *believesUnchanged) ApplyDocument(ctx context.Context, lease mirror.Lease, doc mirror.DocumentContent,
	now time.Time, settle time.Duration,
) (mirror.Applied, error) {
	doc.Unchanged = false
	return m.Store.ApplyDocument(ctx, lease, doc, now, settle)
}

type claimsBlindly struct{ base }

func (m *claimsBlindly) Claim(ctx context.Context, r mirror.Resource, token [16]byte, now time.Time, ttl time.Duration,
) (mirror.Lease, error) {
	lease, err := m.Store.Claim(ctx, r, token, now, ttl)
	lease.Seen = nil
	return lease, err
}

type findsTwice struct{ base }

func (m *findsTwice) PersonalRows(ctx context.Context, p mirror.ProjectID, t *store.PersonalTable, bucket int16,
	after []any, limit int, size int64,
) ([]store.PersonalRow, error) {
	rows, err := m.Store.PersonalRows(ctx, p, t, bucket, after, limit, size)
	if len(rows) == 1 && after != nil {
		rows = append(rows, rows[0])
	}
	return rows, err
}

type findsLong struct{ base }

func (m *findsLong) PersonalRows(ctx context.Context, p mirror.ProjectID, t *store.PersonalTable, bucket int16,
	after []any, limit int, _ int64,
) ([]store.PersonalRow, error) {
	return m.Store.PersonalRows(ctx, p, t, bucket, after, limit, 1<<40)
}

type findsCompressed struct{ base }

func (m *findsCompressed) PersonalRows(ctx context.Context, p mirror.ProjectID, t *store.PersonalTable, bucket int16,
	after []any, limit int, size int64,
) ([]store.PersonalRow, error) {
	plain := *t
	plain.Columns = slices.Clone(t.Columns)
	for i := range plain.Columns {
		if plain.Columns[i].Form == store.PersonalContent {
			plain.Columns[i].Form = store.PersonalText
		}
	}
	return m.Store.PersonalRows(ctx, p, &plain, bucket, after, limit, size)
}

// eraser is an erasure.
type eraser struct {
	project mirror.ProjectID
	table   *store.PersonalTable
	bucket  int16
	keys    [][]any
	subject store.Subject
	dryRun  bool
	now     time.Time
}

func (e eraser) with(ctx context.Context, s store.Store) (store.Erased, error) {
	return s.EraseRows(ctx, e.project, e.table, e.bucket, e.keys, e.subject, e.dryRun, e.now)
}

type erasesEvents struct {
	base

	what string
}

func (m *erasesEvents) EraseRows(ctx context.Context, p mirror.ProjectID, t *store.PersonalTable, bucket int16,
	keys [][]any, subject store.Subject, dryRun bool, now time.Time,
) (store.Erased, error) {
	out, err := eraser{p, t, bucket, keys, subject, dryRun, now}.with(ctx, m.Store)
	if t.Name != "mirror_event" || dryRun || err != nil {
		return out, err
	}
	for i, key := range keys {
		if out.Judged[i].Erase == store.EraseNothing {
			continue
		}
		text := "update mirror_event set payload = '{}' where event_id = ?"
		if m.what == "event_id" {
			text = "delete from mirror_event where event_id = ?"
		}
		if _, err := m.d.sql.Exec(ctx, text, key[0]); err != nil {
			return out, err
		}
	}
	return out, nil
}

type erasesUnfenced struct{ base }

func (m *erasesUnfenced) EraseRows(ctx context.Context, p mirror.ProjectID, t *store.PersonalTable, bucket int16,
	keys [][]any, subject store.Subject, dryRun bool, now time.Time,
) (store.Erased, error) {
	if t.Name == "mirror_unfolded_event" && !dryRun {
		for _, key := range keys {
			out, err := eraser{p, t, bucket, [][]any{key}, subject, true, now}.with(ctx, m.Store)
			if err == nil && out.Judged[0].Erase == store.EraseDelete {
				_, err = m.d.sql.Exec(ctx, "delete from mirror_unfolded_event where event_id = ?", key[len(key)-1])
			}
			if err != nil {
				return out, err
			}
		}
		dryRun = true
	}
	return eraser{p, t, bucket, keys, subject, dryRun, now}.with(ctx, m.Store)
}

type erasesSessions struct{ base }

func (m *erasesSessions) EraseRows(ctx context.Context, p mirror.ProjectID, t *store.PersonalTable, bucket int16,
	keys [][]any, subject store.Subject, dryRun bool, now time.Time,
) (store.Erased, error) {
	out, err := eraser{p, t, bucket, keys, subject, dryRun, now}.with(ctx, m.Store)
	if t.Name == "mirror_user_session" && !dryRun && err == nil {
		_, err = m.d.sql.Exec(ctx, "delete from mirror_user_session where bucket = ?", bucket)
	}
	return out, err
}

type erasesSilently struct{ base }

func (m *erasesSilently) EraseRows(ctx context.Context, p mirror.ProjectID, t *store.PersonalTable, bucket int16,
	keys [][]any, subject store.Subject, dryRun bool, now time.Time,
) (store.Erased, error) {
	out, err := eraser{p, t, bucket, keys, subject, dryRun, now}.with(ctx, m.Store)
	for _, c := range out.Changes {
		_, gone := m.d.sql.Exec(ctx, "delete from mirror_change where bucket = ? and n = ?", c.Bucket, c.Number)
		err = errors.Join(err, gone)
	}
	return out, err
}

type erasesUntold struct{ base }

func (m *erasesUntold) EraseRows(ctx context.Context, p mirror.ProjectID, t *store.PersonalTable, bucket int16,
	keys [][]any, subject store.Subject, dryRun bool, now time.Time,
) (store.Erased, error) {
	out, err := eraser{p, t, bucket, keys, subject, dryRun, now}.with(ctx, m.Store)
	for i, c := range out.Changes {
		_, changed := m.d.sql.Exec(ctx, "update mirror_change set change_kind = ? where bucket = ? and n = ?",
			int(mirror.ChangeUpserted), c.Bucket, c.Number)
		err = errors.Join(err, changed)
		out.Changes[i].Kind = mirror.ChangeUpserted
	}
	return out, err
}

type erasesDry struct{ base }

func (m *erasesDry) EraseRows(ctx context.Context, p mirror.ProjectID, t *store.PersonalTable, bucket int16,
	keys [][]any, subject store.Subject, _ bool, now time.Time,
) (store.Erased, error) {
	return eraser{p, t, bucket, keys, subject, false, now}.with(ctx, m.Store)
}

// erasesAnyway sets something before it erases; in all tables that have a delete_time, if
// none is named.
type erasesAnyway struct {
	base

	table, set string
}

func (m *erasesAnyway) EraseRows(ctx context.Context, p mirror.ProjectID, t *store.PersonalTable, bucket int16,
	keys [][]any, subject store.Subject, dryRun bool, now time.Time,
) (store.Erased, error) {
	tables := []string{m.table}
	if m.table == "" {
		tables = []string{"mirror_room", "mirror_thread", "mirror_group"}
	}
	for _, table := range tables {
		if _, err := m.d.sql.Exec(ctx, "update "+table+" set "+m.set); err != nil {
			return store.Erased{}, err
		}
	}
	return eraser{p, t, bucket, keys, subject, dryRun, now}.with(ctx, m.Store)
}

type erasesEverywhere struct {
	base

	everywhere bool
}

func (m *erasesEverywhere) EraseRows(ctx context.Context, p mirror.ProjectID, t *store.PersonalTable, bucket int16,
	keys [][]any, subject store.Subject, dryRun bool, now time.Time,
) (store.Erased, error) {
	subject.Everywhere = m.everywhere
	return eraser{p, t, bucket, keys, subject, dryRun, now}.with(ctx, m.Store)
}

type erasesUnseen struct{ base }

func (m *erasesUnseen) EraseRows(ctx context.Context, p mirror.ProjectID, t *store.PersonalTable, bucket int16,
	keys [][]any, subject store.Subject, dryRun bool, now time.Time,
) (store.Erased, error) {
	out, err := eraser{p, t, bucket, keys, subject, dryRun, now}.with(ctx, m.Store)
	if t.Name == "mirror_thread" && !dryRun && err == nil {
		sum := annotatedThread().SHA256
		_, err = m.d.sql.Exec(ctx, "update mirror_thread set content_sha256 = ?", sum[:])
	}
	return out, err
}

type erasesAtOnce struct{ base }

func (m *erasesAtOnce) EraseRows(ctx context.Context, p mirror.ProjectID, t *store.PersonalTable, bucket int16,
	keys [][]any, subject store.Subject, dryRun bool, now time.Time,
) (store.Erased, error) {
	out, err := eraser{p, t, bucket, keys, subject, dryRun, now}.with(ctx, m.Store)
	for err == nil && len(out.Again) > 0 {
		var more store.Erased
		more, err = eraser{p, t, bucket, out.Again, subject, dryRun, now}.with(ctx, m.Store)
		out.Parts, out.Again = out.Parts+more.Parts, more.Again
	}
	return out, err
}

type erasesBucket struct{ base }

func (m *erasesBucket) EraseRows(ctx context.Context, p mirror.ProjectID, t *store.PersonalTable, bucket int16,
	keys [][]any, subject store.Subject, dryRun bool, now time.Time,
) (store.Erased, error) {
	out, err := eraser{p, t, bucket, keys, subject, dryRun, now}.with(ctx, m.Store)
	if t.Name == "mirror_event" && !dryRun && err == nil {
		_, err = m.d.sql.Exec(ctx, "update mirror_event set user_id = '' where project_id <> ?", string(p))
	}
	return out, err
}
