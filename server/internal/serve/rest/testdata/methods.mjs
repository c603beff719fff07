// Calls every public method of the installed @liveblocks/node, and writes which requests
// each of them makes, and what it throws. With MIRROR_URL the requests are made there;
// otherwise each gets 404.
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const require = createRequire(pathToFileURL(join(process.cwd(), "package.json")));
const { Liveblocks } = require("@liveblocks/node");

const { MIRROR_URL: baseUrl = "http://recorded", MIRROR_KEY: secret = "sk_test" } = process.env;
const { fetch } = globalThis;
let calls;
globalThis.fetch = async (url, init) => {
  const { pathname, search } = new URL(url);
  const answer = process.env.MIRROR_URL ? await fetch(url, init) : new Response('{"message":"recorded"}', { status: 404 });
  calls.push({ method: init.method, path: pathname, query: search, status: answer.status });
  return answer;
};

const ids = Object.fromEntries(
  ["room", "user", "thread", "comment", "group", "feed", "message", "copilot", "knowledgeSource", "version", "file",
    "attachment", "inboxNotification", "currentRoom", "newRoom"].map((name) => [`${name}Id`, `${name} /%`]),
);
const params = {
  ...ids, data: { body: {}, metadata: {}, comment: { body: {} } }, file: new File(["x"], "a file.txt"),
  kind: "$custom", subjectId: "s", activityData: {}, memberIds: [], url: "https://example.com", type: "individual_link",
};
// Methods that do not take one object first.
const takes = {
  prepareSession: ["user"],
  mutateStorage: ["room", () => {}],
  massMutateStorage: [{}, () => {}],
  getRooms: [{}], iterRooms: [{}], getAiCopilots: [{}], createAiCopilot: [{}], getGroups: [{}],
  identifyUser: [{ userId: "user", groupIds: [] }],
  createRoom: ["room /%", { defaultAccesses: [] }],
  getOrCreateRoom: ["room /%", { defaultAccesses: [] }],
  upsertRoom: ["room /%", { update: { defaultAccesses: [] } }],
  getFileUrl: [{ roomId: "room /%", file: "file /%" }],
};
const byRoom = ["getRoom", "updateRoom", "deleteRoom", "prewarmRoom",
  "getActiveUsers", "broadcastEvent", "setPresence", "getStorageDocument", "initializeStorageDocument",
  "deleteStorageDocument", "getYjsDocument", "sendYjsBinaryUpdate", "getYjsDocumentAsBinaryUpdate",
  "getVersionHistory", "createVersionHistorySnapshot"];
const byCopilot = ["getAiCopilot", "updateAiCopilot", "deleteAiCopilot"];

const client = new Liveblocks({ secret, baseUrl });
for (const name of Object.getOwnPropertyNames(Liveblocks.prototype)) {
  if (name === "constructor") continue;
  calls = [];
  const args = takes[name] ?? (byRoom.includes(name) ? ["room /%", name === "getStorageDocument" ? "json" : {}]
    : byCopilot.includes(name) ? ["copilot", {}] : [params]);
  let thrown;
  try {
    let result = client[name](...args);
    if (name === "prepareSession") result = result.allow("room", ["room:write"]).authorize();
    await (result?.next ? result.next() : result);
  } catch (err) {
    if (err.name !== "LiveblocksError") console.error(`${name}: ${err}`);
    thrown = { status: err.status, message: err.message, details: err.details };
  }
  console.log(JSON.stringify({ name, calls, thrown }));
}
