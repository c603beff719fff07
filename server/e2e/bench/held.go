package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// heldAim bounds how much later deliveries are acknowledged beside a held row, or a list.
const heldAim = 2

// heldEvery is the time between two events on the held state, and on the long
// document.
const heldEvery = 500 * time.Millisecond

// benchHeld is part f: the time until deliveries are acknowledged while another
// session holds the state of another room's document, with events on it, and a long
// document is mirrored about which events come during its fetch; and while the list of
// another room's threads is stored.
func benchHeld(ctx context.Context, b *bench) (err error) {
	timed, listed, long, threads := time.Minute, 10*time.Second, 50<<20, 10_000
	if b.quick {
		timed, listed, long = 5*time.Second, 3*time.Second, 8<<20
	}
	upstream, err := b.spawnServer(ctx, "fake", fakeConfig{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, upstream.stop()) }()
	url, err := b.database(ctx, "held")
	if err != nil {
		return err
	}
	service, err := b.startService(ctx, settings(url, upstream.addr))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, service.stop()) }()
	const conns = 8
	job := loadJob{
		Kind: "webhooks", Addr: service.addr, Conns: conns, Limit: int64(b.rooms), Size: webhookSize, Rooms: b.rooms,
	}
	if _, err := b.window(ctx, job, nil, nil, nil); err != nil { // every room has been heard of
		return err
	}
	held, document := roomID(webhookSize, b.rooms), roomID(long, 0)
	for _, room := range []string{held, document} {
		if err := notify(ctx, service.addr, room); err != nil {
			return err
		}
	}
	job.Limit, job.Warm, job.Timed = 0, b.warm, timed
	before, err := b.window(ctx, job, service, nil, nil)
	if err != nil {
		return err
	}
	beside, err := b.besideHeld(ctx, url, job, service, held, document)
	if err != nil {
		return err
	}
	job.Timed = listed
	list, stored, err := b.besideList(ctx, url, job, service, threads)
	if err != nil {
		return err
	}
	w := b.table(fmt.Sprintf("(f) acknowledgements beside a held row and beside a list: %d connections\n"+
		"    held: another session keeps the state of a document locked, with events on it; meanwhile a document of %s is "+
		"mirrored, with events during its fetch\n"+
		"    list: of a room with %d threads of %d comments; %d threads were stored meanwhile",
		conns, sizeName(long), threads, listComments, stored),
		"beside", "for", "p50 ms", "p99 ms", "p99:undisturbed", "aim", "acks/s")
	for _, row := range []struct {
		beside string
		timed  time.Duration
		sample
	}{{"nothing", timed, before}, {"held row", timed, beside}, {"list", listed, list}} {
		ratio := row.p99.Seconds() / before.p99.Seconds()
		aim := fmt.Sprintf("at most %d reached", heldAim)
		switch {
		case row.beside == "nothing":
			aim = "-"
		case ratio > heldAim:
			aim = fmt.Sprintf("at most %d MISSED", heldAim)
		}
		fmt.Fprintf(w, "%s\t%s\t%.1f\t%.1f\t%.2f\t%s\t%.0f\n", row.beside, row.timed, row.p50.Seconds()*1e3,
			row.p99.Seconds()*1e3, ratio, aim, row.rate)
	}
	return w.Flush()
}

// besideList runs a job while the list of a room's threads is stored, and returns how
// many of them were stored meanwhile.
func (b *bench) besideList(
	ctx context.Context, url string, job loadJob, service *process, threads int,
) (_ sample, stored int64, err error) {
	db, err := connect(ctx, url, 1)
	if err != nil {
		return sample{}, 0, err
	}
	defer db.close()
	if err := notify(ctx, service.addr, roomID(listSize, threads)); err != nil { // the room is new
		return sample{}, 0, err
	}
	const count = "select count(*) from mirror_thread"
	if err := awaitSQL(ctx, db, "select ("+count+") > 0"); err != nil {
		return sample{}, 0, err
	}
	var before int64
	if err := db.get(ctx, &before, count); err != nil {
		return sample{}, 0, err
	}
	s, err := b.window(ctx, job, service, nil, nil)
	if err == nil {
		err = db.get(ctx, &stored, count)
	}
	return s, stored - before, err
}

// besideHeld runs a job while the state of a room's storage is held, and sends events
// on it and on the long document.
func (b *bench) besideHeld(
	ctx context.Context, url string, job loadJob, service *process, held, document string,
) (_ sample, err error) {
	db, err := connect(ctx, url, 1)
	if err != nil {
		return sample{}, err
	}
	defer db.close()
	if err := db.exec(ctx, "start transaction"); err != nil {
		return sample{}, err
	}
	var generation int64
	if err := db.get(ctx, &generation, `select generation from mirror_resource_state where bucket = $1 and project_id = $2
    and room_id = $3 and kind = 2 and resource_id = '' for update`, mirror.Bucket(project, held), project, held); err != nil {
		return sample{}, err
	}
	events, stop := context.WithCancel(ctx)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for events.Err() == nil {
			go func() { _ = notify(events, service.addr, held) }() // refused after 9 s, or cut off at the end
			_ = notify(events, service.addr, document)             // the load would tell if nothing were acknowledged
			select {
			case <-events.Done():
			case <-time.After(heldEvery):
			}
		}
	}()
	s, err := b.window(ctx, job, service, nil, nil)
	stop()
	<-sent
	return s, errors.Join(err, db.exec(ctx, "rollback"))
}

// notify delivers one event on a room's document.
func notify(ctx context.Context, addr, room string) error {
	c, err := dialHTTP(ctx, addr)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = c.conn.Close() })()
	defer func() { _ = c.conn.Close() }()
	request, err := delivery(addr, room, "msg_"+strconv.FormatUint(rand.Uint64(), 36), time.Now())
	if err != nil {
		return err
	}
	return c.post(request)
}
