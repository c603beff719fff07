// Follows a scripted service, on a clock that only the tests move.
import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";
import { MirrorError, follow, watch } from "../dist/index.js";

beforeEach(() => {
  mock.timers.enable({ apis: ["setTimeout"] });
  mock.method(Math, "random", () => 1);
});
afterEach(() => {
  mock.timers.reset();
  mock.restoreAll();
});

/** Lets everything happen that waits for nothing but promises. */
async function settle() {
  for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve));
}

async function advance(milliseconds) {
  await settle();
  mock.timers.tick(milliseconds);
  await settle();
}

const encoder = new TextEncoder();

/** A stream of events that the test sends. */
class Stream {
  response = new Response(
    new ReadableStream({ start: (controller) => (this.controller = controller) }),
    { headers: { "content-type": "text/event-stream" } },
  );
  text(text) {
    this.controller.enqueue(encoder.encode(text));
    return this;
  }
  event(type, data) {
    return this.text(`event: ${type}\ndata: ${JSON.stringify(data)}\n\n`);
  }
  progress(token) {
    return this.event("progress", { token, progress: { caughtUp: true } });
  }
  changes(token, ...rooms) {
    return this.event("changes", { token, changes: { changes: rooms.map((roomId) => ({ roomId })) } });
  }
  end() {
    this.controller.close();
    return this;
  }
  cut() {
    this.controller.error(new TypeError("terminated"));
    return this;
  }
}

const failed = (code, reason, retryDelay) => ({
  code,
  message: "no",
  details: [
    { "@type": "type.googleapis.com/google.rpc.ErrorInfo", reason, domain: "liveblocks.mirror.v1" },
    ...(retryDelay ? [{ "@type": "type.googleapis.com/google.rpc.RetryInfo", retryDelay }] : []),
  ],
});

/** A service that answers with what the script says, one entry for each call. */
function service(...script) {
  const calls = [];
  return {
    calls,
    url: "http://mirror.test/",
    key: "the key",
    async fetch(url, init) {
      const answer = script[calls.length];
      calls.push({ url: String(url), signal: init.signal, headers: init.headers, body: JSON.parse(init.body) });
      if (answer === undefined) return new Promise(() => {}); // hangs
      if (answer instanceof Error) throw answer;
      if (answer instanceof Stream) {
        init.signal.addEventListener("abort", () => answer.controller.error(init.signal.reason));
        return answer.response;
      }
      return answer;
    },
  };
}

/** Collects what an iteration yields, until it ends. */
function collect(iterable) {
  const got = { items: [], done: false, error: undefined };
  got.ended = (async () => {
    try {
      for await (const item of iterable) got.items.push(item);
    } catch (error) {
      got.error = error;
    }
    got.done = true;
  })();
  return got;
}

const rooms = (got) => got.items.map((change) => change.roomId).join();
const json = (value, init) => Response.json(value, init);

test("starts where it is told, and resumes behind what was handled", async () => {
  const first = new Stream().progress("t0").changes("t1", "a", "b");
  const second = new Stream().progress("t1").changes("t2", "c");
  const mirror = service(first, new TypeError("fetch failed"), second);
  const retries = [];
  const got = collect(
    follow({
      ...mirror, position: "earliest", kinds: ["thread"], roomIdPrefix: "a/",
      onRetry: (error, attempt) => retries.push(`${attempt} ${error.message}`),
    }),
  );
  await settle();
  assert.equal(rooms(got), "a,b");
  first.cut();
  await advance(400);
  await advance(800);
  assert.equal(rooms(got), "a,b,c");
  assert.deepEqual(retries, ["1 terminated", "2 fetch failed"]);
  const filter = { roomIdPrefix: "a/", kinds: ["thread"], heartbeatInterval: "15s" };
  assert.deepEqual(
    mirror.calls.map((call) => call.body),
    [{ ...filter, position: "earliest" }, { ...filter, token: "t1" }, { ...filter, token: "t1" }],
  );
  const [{ url, headers }] = mirror.calls;
  assert.equal(url, "http://mirror.test/v1/changes:watch");
  assert.equal(headers.get("authorization"), "Bearer the key");
  assert.equal(headers.get("accept"), "text/event-stream");
});

test("reads a stream that arrives byte by byte, with what it does not know", async () => {
  const stream = new Stream();
  const got = collect(watch(service(stream)));
  const text =
    'retry: 3000\r\n\r\n: a comment\r\nid: t1\r\nevent: changes\r\ndata: {"token":"t1",\r\n' +
    'data: "changes":{"changes":[{"roomId":"roöm 🙂\\n"}]}}\r\n\r\n' +
    'event: of_later\ndata:{"token":"t2","of_later":{}}\n\ndata\n';
  for (const byte of encoder.encode(text)) stream.controller.enqueue(Uint8Array.of(byte));
  await settle();
  await settle();
  assert.deepEqual(got.items, [
    { token: "t1", changes: [{ roomId: "roöm 🙂\n" }], progress: undefined },
    { token: "t2", changes: [], progress: undefined },
  ]);
});

test("saves a token once everything before it is handled", async () => {
  const stream = new Stream().progress("t0").progress("t0").changes("t1", "a", "b").changes("t2", "c", "d");
  const mirror = service(stream);
  const log = [];
  const tokens = { load: async () => "stored", save: (token) => log.push(token) };
  for await (const change of follow({ ...mirror, token: "other", tokens })) {
    log.push(change.roomId);
    if (change.roomId === "c") break;
  }
  assert.deepEqual(log, ["t0", "a", "b", "t1", "c"]);
  assert.equal(mirror.calls[0].body.token, "stored");
  assert.equal(mirror.calls[0].signal.aborted, true, "a loop that is left ends its connection");
});

test("takes an empty token for none", async () => {
  const mirror = service(new Stream().progress("t0").changes("t1", "a"));
  const tokens = { load: async () => "", save: () => {} };
  for await (const _ of follow({ ...mirror, position: "earliest", tokens })) break;
  assert.equal(mirror.calls[0].body.token, undefined);
  assert.equal(mirror.calls[0].body.position, "earliest");
});

test("fails for good where trying again cannot help", async () => {
  const gone = failed(11, "CHANGE_TOKEN_EXPIRED");
  for (const [answer, want] of [
    [json(gone, { status: 410 }), { status: 410, code: 11, reason: "CHANGE_TOKEN_EXPIRED" }],
    [new Stream().progress("t").event("error", gone), { status: undefined, code: 11, reason: "CHANGE_TOKEN_EXPIRED" }],
    [new Response("<html>", { status: 404 }), { status: 404, code: undefined, reason: undefined }],
    [new Response("<html>", { headers: { "content-type": "text/html" } }), { status: 200, code: undefined }],
  ]) {
    const mirror = service(answer);
    const got = collect(follow({ ...mirror, token: "t" }));
    await settle();
    assert.ok(got.error instanceof MirrorError);
    assert.equal(got.error.final, true);
    for (const [name, value] of Object.entries(want)) assert.equal(got.error[name], value);
    assert.equal(mirror.calls.length, 1);
  }
});

test("throws what is wrong with its settings, and what functions of its caller throw", async () => {
  const own = new Error("no token");
  const fail = () => {
    throw own;
  };
  for (const [options, want] of [
    [{ url: "/relative" }, TypeError],
    [{ startTime: new Date(Number.NaN) }, RangeError],
    [{ key: fail }, Error],
    [{ transport: "poll", key: fail }, Error],
    [{ tokens: { load: fail, save: fail } }, Error],
    [{ tokens: { load: () => undefined, save: fail } }, Error],
    [{ onRetry: fail }, Error],
  ]) {
    const answer = options.onRetry ? new TypeError("fetch failed") : new Stream().progress("t");
    const got = collect(follow({ ...service(answer), ...options }));
    await settle();
    assert.ok(got.error instanceof want, `${JSON.stringify(options)}: ${got.error}`);
    if (want === Error) assert.equal(got.error, own);
  }
});

test("waits longer after each failure, and as long as it is asked to", async () => {
  const broken = Array.from({ length: 9 }, () => new TypeError("fetch failed"));
  const late = json(failed(8, "WATCHERS_LIMITED"), { status: 429, headers: { "retry-after": "60" } });
  const slow = new Stream().progress("t1").changes("t2", "a").event("error", failed(8, "WATCHER_TOO_SLOW", "7s"));
  const over = new Stream().progress("t2").changes("t3", "b").end();
  const mirror = service(...broken, late, slow, over);
  const got = collect(follow(mirror));
  await settle();
  for (const want of [400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000, 60_000]) {
    const before = mirror.calls.length;
    await advance(want - 1);
    assert.equal(mirror.calls.length, before, `earlier than after ${want} ms`);
    await advance(1);
    assert.equal(mirror.calls.length, before + 1, `not after ${want} ms`);
  }
  assert.equal(rooms(got), "a");
  await advance(7000);
  assert.equal(rooms(got), "a,b");
  await advance(200); // a stream that ends by itself is no failure
  assert.equal(mirror.calls.length, 13);
  assert.equal(mirror.calls.at(-1).body.token, "t3");
});

test("replaces a connection that is silent, but not while its reader is busy", async () => {
  const first = new Stream().progress("t0");
  const mirror = service(first, new Stream());
  let release;
  const handled = [];
  const running = (async () => {
    for await (const message of watch(mirror)) {
      handled.push(message.token);
      if (message.token === "t1") await new Promise((resolve) => (release = resolve));
    }
  })();
  running.catch(() => {});
  await advance(44_000);
  first.progress("t1");
  await advance(600_000);
  assert.equal(mirror.calls[0].signal.aborted, false, "while the reader is busy");
  release();
  await advance(44_999);
  assert.equal(mirror.calls[0].signal.aborted, false);
  await advance(1);
  assert.equal(mirror.calls[0].signal.aborted, true);
  await advance(400);
  assert.equal(mirror.calls.length, 2);
  await advance(20_000); // no greeting
  assert.equal(mirror.calls[1].signal.aborted, true);
  assert.deepEqual(handled, ["t0", "t1"]);
});

test("polls where streams are held back or cut off", async () => {
  const page = (nextToken, ...rooms) =>
    json({ nextToken, caughtUp: true, changes: rooms.map((roomId) => ({ roomId })) });
  const mirror = service(
    new Stream(), // held back
    json(failed(14, "SHUTTING_DOWN"), { status: 503 }), // does not count
    new Stream().progress("t0").end(),
    new Stream().progress("t0").cut(),
    page("t1"), page("t2", "a"), json(failed(14), { status: 503 }), page("t3", "b"),
  );
  const got = collect(follow(mirror));
  await advance(20_000);
  for (const wait of [400, 800, 1600, 3200]) await advance(wait);
  assert.equal(rooms(got), "a");
  await advance(400);
  assert.equal(rooms(got), "a,b");
  assert.deepEqual(
    mirror.calls.slice(4).map(({ url, body }) => [new URL(url).pathname, body.token, body.waitDuration]),
    [
      ["/v1/changes:list", "t0", "0s"], ["/v1/changes:list", "t1", "30s"], ["/v1/changes:list", "t2", "30s"],
      ["/v1/changes:list", "t2", "0s"], ["/v1/changes:list", "t3", "30s"],
    ],
  );
});

test("ends with the reason of its signal, whatever it waits for", async () => {
  const reason = new Error("enough");
  for (const script of [[], [new Stream()], [new Stream().progress("t")], [new TypeError("fetch failed")]]) {
    for (const transport of ["stream", "poll"]) {
      const controller = new AbortController();
      const mirror = service(...(transport === "poll" ? script.filter((answer) => answer instanceof Error) : script));
      const got = collect(follow({ ...mirror, transport, signal: controller.signal }));
      await settle();
      assert.equal(got.done, false);
      controller.abort(reason);
      await settle();
      assert.equal(got.error, reason);
      assert.equal(mirror.calls[0].signal.aborted, true);
    }
  }
  const got = collect(follow({ ...service(), signal: AbortSignal.abort(reason) }));
  await settle();
  assert.equal(got.error, reason);
});

test("takes a snapshot without a token, and another once its token is gone", async () => {
  const item = (roomId) => ({ roomId, revision: "7" });
  const first = new Stream()
    .event("snapshot_begin", { token: "s0", snapshotBegin: {} })
    .event("snapshot_items", { token: "s1", snapshotItems: { items: [item("a"), item("b")] } });
  const second = new Stream()
    .progress("s1")
    .event("snapshot_items", { token: "s2", snapshotItems: { items: [item("c")] } })
    .event("snapshot_end", { token: "t0", snapshotEnd: {} })
    .changes("t1", "d");
  const third = new Stream().event("snapshot_begin", { token: "s3", snapshotBegin: {} });
  const expired = json(failed(11, "CHANGE_TOKEN_EXPIRED"), { status: 410 });
  const mirror = service(first, second, expired, third);
  const saved = [];
  const told = [];
  const got = collect(
    follow({
      ...mirror, snapshot: true, startTime: new Date(0), kinds: ["room"],
      tokens: { load: () => undefined, save: (token) => saved.push(token) },
      onSnapshot: (phase) => told.push(`${phase} after ${got.items.length}`),
    }),
  );
  await settle();
  first.cut();
  await advance(400);
  assert.equal(rooms(got), "a,b,c,d");
  second.cut();
  await advance(400);
  await advance(400);
  await advance(800);
  assert.deepEqual(told, ["begin after 0", "end after 3", "begin after 4"]);
  assert.deepEqual(saved, ["s0", "s1", "s2", "t0", "t1", "s3"]);
  assert.deepEqual(
    mirror.calls.map(({ body }) => body.token ?? body.position),
    ["snapshot", "s1", "t1", "snapshot"],
  );
  assert.equal(got.error, undefined);
});

test("polls for a snapshot where streams are held back", async () => {
  const page = (nextToken, more) => json({ nextToken, changes: [], caughtUp: false, ...more });
  const mirror = service(
    page("s0", { snapshotBegin: {} }),
    page("s1", { snapshotItems: { items: [{ roomId: "a" }] } }),
    page("t0", { snapshotEnd: {} }),
    json({ nextToken: "t1", changes: [{ roomId: "b" }], caughtUp: true }),
  );
  const got = collect(watch({ ...mirror, snapshot: true, transport: "poll" }));
  await advance(0);
  assert.deepEqual(
    got.items.map(({ snapshot, changes }) => `${snapshot} ${changes.map((change) => change.roomId)}`),
    ["begin ", "items a", "end ", "undefined b"],
  );
});

test("without being asked for a snapshot, a token that is gone is the end", async () => {
  const mirror = service(json(failed(11, "CHANGE_TOKEN_EXPIRED"), { status: 410 }));
  const got = collect(follow({ ...mirror, token: "t" }));
  await settle();
  assert.equal(got.error?.reason, "CHANGE_TOKEN_EXPIRED");
});

test("tries a token that one replica calls invalid again, as another may know it", async () => {
  const invalid = () => json(failed(3, "CHANGE_TOKEN_INVALID"), { status: 400 });
  const upgraded = service(...Array.from({ length: 20 }, invalid), new Stream().progress("t").changes("t1", "a"));
  const retries = [];
  const got = collect(follow({ ...upgraded, token: "t", snapshot: true, onRetry: (error) => retries.push(error.reason) }));
  for (let i = 0; i < 20; i++) await advance(30_000);
  assert.equal(rooms(got), "a");
  assert.deepEqual(retries, Array(20).fill("CHANGE_TOKEN_INVALID"));
  assert.deepEqual(new Set(upgraded.calls.map(({ body }) => body.token)), new Set(["t"]));

  const damaged = service(...Array.from({ length: 40 }, invalid));
  const never = collect(follow({ ...damaged, token: "t" }));
  for (let i = 0; i < 40; i++) await advance(30_000);
  assert.equal(never.error?.reason, "CHANGE_TOKEN_INVALID");
  assert.ok(damaged.calls.length > 20 && damaged.calls.length < 32, `${damaged.calls.length} calls`);
});

test("asks for resources", async () => {
  const mirror = service(new Stream().progress("t0"));
  collect(follow({ ...mirror, include: "full" }));
  await settle();
  assert.equal(mirror.calls[0].body.include, "full");
});
