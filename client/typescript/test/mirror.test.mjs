import assert from "node:assert/strict";
import { test } from "node:test";
import { Mirror, MirrorError } from "../dist/index.js";

function mirror(...answers) {
  const calls = [];
  const fetch = async (url, init) => {
    calls.push({ url: String(url), authorization: init.headers.get("authorization") });
    return answers.shift();
  };
  let keys = 0;
  return { calls, mirror: new Mirror({ url: new URL("https://host/prefix/"), key: async () => `key ${++keys}`, fetch }) };
}

test("reads all pages of a list, and no more than are asked for", async () => {
  const page = (nextPageToken, ...ids) => Response.json({ nextPageToken, threads: ids.map((threadId) => ({ threadId })) });
  const { calls, mirror: m } = mirror(page("p 1", "a", "b"), page("", "c"), page("more", "d"));
  const got = [];
  const query = { roomId: "a/b&c", resolved: false, metadata: { "the color": "blue" }, pageSize: undefined };
  for await (const thread of m.listThreads(query)) got.push(thread.threadId);
  for await (const thread of m.listThreads()) {
    got.push(thread.threadId);
    break;
  }
  assert.deepEqual(got, ["a", "b", "c", "d"]);
  const filter = "https://host/prefix/v1/threads?roomId=a%2Fb%26c&resolved=false&metadata%5Bthe+color%5D=blue";
  assert.deepEqual(calls.map((call) => call.url), [filter, `${filter}&pageToken=p+1`, "https://host/prefix/v1/threads"]);
  assert.deepEqual(calls.map((call) => call.authorization), ["Bearer key 1", "Bearer key 2", "Bearer key 3"]);
});

test("throws typed errors", async () => {
  const status = { code: 5, message: "not mirrored", details: [{ "@type": "x", reason: "ROOM_NOT_MIRRORED" }] };
  const { mirror: m } = mirror(Response.json(status, { status: 404 }), new Response("bad gateway", { status: 502 }));
  await assert.rejects(m.getRoom({ roomId: "x" }), (error) => {
    assert.ok(error instanceof MirrorError);
    assert.equal(error.message, "ROOM_NOT_MIRRORED: not mirrored");
    assert.deepEqual([error.reason, error.code, error.status, error.final], ["ROOM_NOT_MIRRORED", 5, 404, true]);
    return true;
  });
  await assert.rejects(m.readStorage({ roomId: "x" }), (error) => {
    assert.deepEqual([error.message, error.code, error.status, error.final], ["HTTP status 502", undefined, 502, false]);
    return true;
  });
});
