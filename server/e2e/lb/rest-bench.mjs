// Measures getStorageDocument of the real package against the mirror and, in turns, against
// a bare server of Node in a process of its own that answers the same bytes. Settings are a
// line of JSON on stdin; what it found is one on stdout: calls per second in each window.
import assert from "node:assert/strict";
import { fork } from "node:child_process";
import { createServer } from "node:http";
import { fileURLToPath } from "node:url";

const self = fileURLToPath(import.meta.url);
if (process.argv[2] === "bare") {
  process.once("message", ({ body, type }) => {
    const bytes = Buffer.from(body, "base64");
    const server = createServer((_, answer) => {
      answer.writeHead(200, { "content-type": type, "content-length": bytes.length });
      answer.end(bytes);
    });
    server.listen(0, "127.0.0.1", () => process.send(server.address().port));
  });
} else {
  const { Liveblocks } = await import("@liveblocks/node");
  let input = "";
  for await (const part of process.stdin) input += part;
  const { url, rooms, conns, rounds, warm, timed } = JSON.parse(input);

  const path = `/v2/rooms/${encodeURIComponent(rooms[0])}/storage?format=json`;
  const answer = await fetch(url + path, { headers: { authorization: "Bearer sk_bench" } });
  assert.equal(answer.status, 200);
  assert.equal(answer.headers.get("mirror-source"), "mirror");
  const body = Buffer.from(await answer.arrayBuffer());
  const bare = fork(self, ["bare"]);
  const listening = new Promise((resolve) => bare.once("message", resolve));
  bare.send({ body: body.toString("base64"), type: answer.headers.get("content-type") });
  const bareURL = `http://127.0.0.1:${await listening}`;

  const clients = { mirror: url, bare: bareURL };
  for (const name in clients) clients[name] = new Liveblocks({ secret: "sk_bench", baseUrl: clients[name] });
  assert.deepStrictEqual(await clients.mirror.getStorageDocument(rooms[0], "json"),
    await clients.bare.getStorageDocument(rooms[0], "json"));

  async function window(client, callers) {
    let calls = 0;
    const begin = performance.now() + warm;
    const end = begin + timed;
    await Promise.all(Array.from({ length: callers }, async (_, caller) => {
      for (let n = caller; performance.now() < end; n += callers) {
        await client.getStorageDocument(rooms[n % rooms.length], "json");
        const now = performance.now();
        if (now >= begin && now < end) calls++;
      }
    }));
    return (1000 * calls) / timed;
  }
  const found = { size: body.length, windows: [] };
  for (const callers of conns) {
    const one = { callers, mirror: [], bare: [] };
    for (let round = 0; round < rounds; round++) {
      one.mirror.push(await window(clients.mirror, callers));
      one.bare.push(await window(clients.bare, callers));
    }
    found.windows.push(one);
  }
  bare.kill();
  console.log(JSON.stringify(found));
  process.exit();
}
