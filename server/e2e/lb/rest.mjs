// Makes reads with the real package against Liveblocks and against the mirror, and compares
// the results. The reads are a JSON array of [method, ...arguments] on stdin. Results that
// differ end it with an error. It writes how many reads succeeded, and what it was warned of.
import assert from "node:assert/strict";
import { text } from "node:stream/consumers";
import { Liveblocks } from "@liveblocks/node";

const { LIVEBLOCKS_BASE_URL, LIVEBLOCKS_KEY, MIRROR_URL, MIRROR_KEY } = process.env;
const liveblocks = new Liveblocks({ secret: LIVEBLOCKS_KEY, baseUrl: LIVEBLOCKS_BASE_URL });
const mirror = new Liveblocks({ secret: MIRROR_KEY, baseUrl: MIRROR_URL });

const warnings = new Set();
console.warn = (text) => warnings.add(text);

let succeeded = 0;
async function outcome(client, method, args) {
  try {
    const result = await client[method](...args);
    succeeded++;
    return result instanceof ArrayBuffer ? Buffer.from(result).toString("base64") : result;
  } catch (err) {
    if (err.name !== "LiveblocksError") throw err;
    return { status: err.status, message: err.message };
  }
}

for (const [method, ...args] of JSON.parse(await text(process.stdin))) {
  const want = await outcome(liveblocks, method, args);
  const got = await outcome(mirror, method, args);
  assert.deepStrictEqual(got, want, `${method} ${JSON.stringify(args)}`);
}
console.log(JSON.stringify({ succeeded, warnings: [...warnings] }));
