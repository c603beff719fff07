// Makes reads with the real package against Liveblocks and against the mirror, and compares
// the results. The reads are a JSON array of [method, ...arguments] on stdin. Results that
// differ end it with an error. It writes how many reads succeeded, what it was warned of, and
// where the mirror's answers to each method came from.
//
// With ENTER, two users are in that room meanwhile; WEBHOOK_URL and WEBHOOK_SECRET let it tell.
import assert from "node:assert/strict";
import { text } from "node:stream/consumers";

const warnings = new Set();
console.warn = console.error = (text) => warnings.add(text);
const { Liveblocks } = await import("@liveblocks/node");
const { objectToQuery } = await import("@liveblocks/core");
const { QueryParser } = await import("@liveblocks/query-parser");

const { LIVEBLOCKS_BASE_URL, LIVEBLOCKS_KEY, MIRROR_URL, MIRROR_KEY, ENTER } = process.env;
const liveblocks = new Liveblocks({ secret: LIVEBLOCKS_KEY, baseUrl: LIVEBLOCKS_BASE_URL });
const mirror = new Liveblocks({ secret: MIRROR_KEY, baseUrl: MIRROR_URL });

const sources = {};
let calling; // a method of the mirror
const { fetch } = globalThis;
globalThis.fetch = async (url, init) => {
  const answer = await fetch(url, init);
  if (calling && answer.ok) (sources[calling] ??= new Set()).add(answer.headers.get("mirror-source"));
  return answer;
};

// everything returns all of a list, which each side cuts into pages with cursors of its own.
async function everything(client, method, [params, ...rest]) {
  const all = [];
  for (let startingAfter; ; ) {
    const page = await client[method]({ ...params, startingAfter }, ...rest);
    const { limit } = params;
    if (limit) assert.ok(page.data.length === limit || (page.data.length < limit && page.nextCursor === null), `${method}: ${page.data.length} of ${limit}`);
    all.push(...page.data);
    if ((startingAfter = page.nextCursor) === null) return all;
  }
}

const bytes = (a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b));
const parser = new QueryParser({ fields: { roomId: "string" }, indexableFields: { metadata: "token" } });
// meant does to a list of rooms what the dev server leaves undone: it only checks queries, ignores
// userId and groupIds, and has the oldest first. What a query says, Liveblocks' published parser
// tells.
function meant(rooms, { userId, groupIds = [], query }) {
  const terms = query ? parser.parse(typeof query === "string" ? query : objectToQuery(query)).query.allOf : [];
  const holds = (room, { _kind, field, value, prefix }) => {
    const have = _kind !== "PrefixCondition" && field._kind === "KeyedField" ? room.metadata[field.key] : room.id;
    return _kind === "PrefixCondition" ? have.startsWith(prefix.value) : have === value.value;
  };
  const grants = (accesses, id) => Object.hasOwn(accesses, id) && accesses[id].length > 0;
  const sees = ({ usersAccesses, groupsAccesses }) =>
    (userId !== undefined && grants(usersAccesses, userId)) || groupIds.some((id) => grants(groupsAccesses, id));
  return rooms
    .filter((room) => terms.every((term) => holds(room, term)))
    .filter((room) => (userId === undefined && groupIds.length === 0) || sees(room))
    .sort((a, b) => b.createdAt - a.createdAt || bytes(a.id, b.id));
}

let succeeded = 0;
const pages = ["getRooms", "getGroups", "getUserGroups", "getInboxNotifications"];
async function result(client, method, args) {
  if (pages.includes(method)) {
    // The dev server has no pages, and says so by never beginning another one.
    const all = await everything(client, method, client === mirror ? args : [{ ...args[0], limit: undefined }]);
    return method === "getRooms" && client === liveblocks ? meant(all, args[0]) : all;
  }
  const got = client[method](...args);
  if (got[Symbol.asyncIterator]) {
    const all = [];
    for await (const one of got) all.push(one);
    return method === "iterRooms" && client === liveblocks ? meant(all, args[0]) : all;
  }
  let value = await got;
  if (method.startsWith("getFeed")) { // those of the dev server are made up, with the time of the answer
    value = JSON.parse(JSON.stringify(value, (key, v) => (key === "timestamp" ? 0 : v)));
  }
  return value instanceof ArrayBuffer ? Buffer.from(value).toString("base64") : value;
}

async function outcome(client, method, args) {
  calling = client === mirror ? method : undefined;
  try {
    const value = await result(client, method, args);
    succeeded++;
    return value;
  } catch (err) {
    if (err.name !== "LiveblocksError") throw err;
    return { status: err.status, message: err.message };
  } finally {
    calling = undefined;
  }
}

async function tell(type, data) {
  const { Webhook } = await import("svix");
  const now = new Date();
  const body = JSON.stringify({ type, data: { projectId: "localdev", roomId: ENTER, ...data } });
  const id = `msg_${type}_${data.connectionId}`;
  const { status } = await fetch(process.env.WEBHOOK_URL, {
    method: "POST", body,
    headers: {
      "content-type": "application/json", "webhook-id": id, "webhook-timestamp": String(Math.floor(now.getTime() / 1000)),
      "webhook-signature": new Webhook(process.env.WEBHOOK_SECRET).sign(id, now, body),
    },
  });
  assert.equal(status, 200);
}

if (ENTER) {
  const { client, enter, pause } = await import("./liveblocks.mjs");
  for (const user of ["alice", "bob"]) await enter(client(user), ENTER);
  const enteredAt = new Date().toISOString();
  const { data } = await liveblocks.getActiveUsers(ENTER);
  assert.equal(data.length, 2);
  for (const { connectionId, id, info } of data) await tell("userEntered", { connectionId, userId: id, userInfo: info, enteredAt, numActiveUsers: 2 });
  const mirrored = async () => {
    try {
      return (await mirror.getActiveUsers(ENTER)).data.length;
    } catch (e) {
      if (e.status === 503) return 0; // they are not fetched yet
      throw e;
    }
  };
  while ((await mirrored()) < 2) await pause(50);
}

for (const [method, ...args] of JSON.parse(await text(process.stdin))) {
  const want = await outcome(liveblocks, method, args);
  const got = await outcome(mirror, method, args);
  assert.deepStrictEqual(got, want, `${method} ${JSON.stringify(args)}`);
}
for (const method in sources) sources[method] = [...sources[method]].sort().join();
console.log(JSON.stringify({ succeeded, warnings: [...warnings], sources }));
process.exit(0); // clients would keep the process alive
