// Clients of Liveblocks and of the mirror, and what tests of writes compare with them. With
// MIRROR_READER, reads go to another replica than writes.
//
// The packages do not all have the same version, which those of Liveblocks refuse without
// NODE_ENV=production.
import assert from "node:assert/strict";

console.warn = console.error = () => {}; // of versions, and of what the dev server does not have
const { Liveblocks } = await import("@liveblocks/node");

const { LIVEBLOCKS_BASE_URL, LIVEBLOCKS_KEY, MIRROR_URL, MIRROR_READER = MIRROR_URL, MIRROR_KEY } = process.env;
export const liveblocks = new Liveblocks({ secret: LIVEBLOCKS_KEY, baseUrl: LIVEBLOCKS_BASE_URL });
export const mirror = new Liveblocks({ secret: MIRROR_KEY, baseUrl: MIRROR_URL });
const reader = new Liveblocks({ secret: MIRROR_KEY, baseUrl: MIRROR_READER });

export const seen = { pending: 0, sources: new Set() };
const { fetch } = globalThis;
globalThis.fetch = async (url, init) => {
  const answer = await fetch(url, init);
  if (answer.headers.get("mirror-refresh") === "pending") seen.pending++;
  const source = answer.headers.get("mirror-source"); // failures of the mirror itself have none
  if (!String(url).startsWith(LIVEBLOCKS_BASE_URL) && source) seen.sources.add(`${init.method} ${source}`);
  return answer;
};

export async function outcome(client, [method, ...args]) {
  try {
    const result = await client[method](...args);
    return result instanceof ArrayBuffer ? Buffer.from(result).toString("base64") : result;
  } catch (err) {
    if (err.name !== "LiveblocksError") throw err;
    return { status: err.status, message: err.message };
  }
}

// shown checks that the next reads show what was written; only what was said to be pending
// may take longer.
let known = 0;
export async function shown(...reads) {
  const deadline = Date.now() + (seen.pending > known ? 60_000 : 0);
  known = seen.pending;
  for (const read of reads) {
    for (;;) {
      const want = await outcome(liveblocks, read);
      const got = await outcome(reader, read);
      try {
        assert.deepStrictEqual(got, want, JSON.stringify(read));
        break;
      } catch (err) {
        if (Date.now() > deadline) throw err;
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
    }
  }
}
