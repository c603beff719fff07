// Plays what users and backends do to a Liveblocks project, against the dev server, and
// sends the webhooks that Liveblocks would, signed by Svix' own library. One run is one act:
//
//   node edits.mjs create|edit|replace
//
// LIVEBLOCKS_BASE_URL leads to the dev server, WEBHOOK_URL to the service under test.
// It ends with a line of JSON: how many webhooks were sent, and what the act wants to tell.
import { randomUUID } from "node:crypto";
import { LiveList, LiveMap, LiveObject, LiveText } from "@liveblocks/client";
import { Webhook } from "svix";
import * as Y from "yjs";
import { backend, client, enter, pause, same, synced } from "./liveblocks.mjs";

const { WEBHOOK_URL: webhookUrl, WEBHOOK_SECRET: webhookSecret } = process.env;
const svix = new Webhook(webhookSecret);

// Ids that differ by what databases and URLs like to lose.
const rooms = ["Room", "room", "room ", "roöm", "a/b:c?d#e%f"];
const timeKeys = { roomCreated: "createdAt", roomDeleted: "deletedAt", storageUpdated: "updatedAt", ydocUpdated: "updatedAt" };

let sent = 0;
async function post(id, body) {
  const now = new Date();
  const answer = await fetch(webhookUrl, {
    method: "POST",
    headers: {
      "content-type": "application/json",
      "webhook-id": id,
      "webhook-timestamp": String(Math.floor(now.getTime() / 1000)),
      "webhook-signature": svix.sign(id, now, body),
    },
    body,
  });
  if (answer.status !== 200) throw new Error(`webhook answered ${answer.status}: ${await answer.text()}`);
  sent++;
}

// webhook tells of a change twice under one id, as a sender does that missed the answer.
async function webhook(type, roomId) {
  const id = `msg_${randomUUID()}`;
  const data = { projectId: "localdev", roomId, [timeKeys[type]]: new Date().toISOString() };
  const body = JSON.stringify({ type, data });
  await Promise.all([post(id, body), post(id, body)]);
}

const board = (id, n) => ({
  liveblocksType: "LiveObject",
  data: {
    title: `Board of ${id}`,
    count: n,
    todos: { liveblocksType: "LiveList", data: [{ liveblocksType: "LiveObject", data: { text: "first", done: false } }, "plain", 42, null] },
    shapes: { liveblocksType: "LiveMap", data: { s1: { liveblocksType: "LiveObject", data: { x: 1, y: 2.5, fill: null } } } },
  },
});

async function create() {
  await Promise.all(
    rooms.map(async (id, n) => {
      await backend.createRoom(id, {
        defaultAccesses: n % 2 ? ["room:read", "room:presence:write"] : ["room:write"],
        usersAccesses: { alice: ["room:write"], "bøb / 👩‍👩‍👧": ["room:read"] },
        groupsAccesses: { "design:1": ["room:write"] },
        metadata: { name: `Room ${n} “${id}”`, tags: ["a", "b,c", ""], empty: "" },
      });
      await backend.initializeStorageDocument(id, board(id, n));
      await webhook("storageUpdated", id); // ahead of the event that creates the room
      await webhook("roomCreated", id);
    }),
  );
  // A room that nobody has ever edited.
  await backend.createRoom("untouched", { defaultAccesses: [] });
  await webhook("roomCreated", "untouched");
}

// write lets two authors change a Yjs document at once, and again after each has seen what
// the other did. change is called with the document and the author's number.
async function write(roomId, change, params = {}) {
  const authors = [new Y.Doc(), new Y.Doc()];
  for (let round = 0; round < 3; round++) {
    authors.forEach((doc, n) => doc.transact(() => change(doc, n, round)));
    await Promise.all(authors.map((doc) => backend.sendYjsBinaryUpdate(roomId, Y.encodeStateAsUpdate(doc), params)));
    for (const doc of authors) Y.applyUpdate(doc, new Uint8Array(await backend.getYjsDocumentAsBinaryUpdate(roomId, params)));
  }
  return authors[0];
}

const guid = "page 1/é";
async function ydocs() {
  const doc = await write("Room", (doc, n, round) => {
    const note = doc.getText("note");
    note.insert(round ? note.length >> 1 : 0, `${n}.${round} <b>é 👩‍👩‍👧</b>\n`);
    note.format(n, 3, { bold: true });
    if (round) note.delete(0, 2);
    note.insert(note.length, "end", { link: { href: `#${n}` } });
    doc.getMap("map").set(`key ${n}`, { n: [n, round, 0.1 + 0.2, 2 ** 53 - 1, null, true, "x\ty"], "": {} });
    doc.getMap("map").set("both", n);
    doc.getArray("list").insert(0, [round, { by: n }, "日本語"]);
    if (!n && !round) doc.getMap("pages").set("first", new Y.Doc({ guid }));
  });
  const page = await write("Room", (doc, n) => doc.getText("page").insert(0, `page by ${n} `), { guid });
  for (const id of ["room", "roöm", "a/b:c?d#e%f"]) {
    await write(id, (doc, n) => doc.getText("note").insert(0, `only in ${id}, by ${n} `));
    await webhook("ydocUpdated", id);
  }
  await webhook("ydocUpdated", "Room");
  return [
    {
      guid: "",
      json: {
        list: doc.getArray("list").toJSON(),
        map: doc.getMap("map").toJSON(),
        note: doc.getText("note").toDelta(),
        pages: { first: { guid } },
      },
      text: doc.getText("note").toString(),
    },
    { guid, json: { page: page.getText("page").toDelta() }, text: page.getText("page").toString() },
  ];
}

async function edit() {
  const users = [client("alice"), client("bob")];
  const [alice, bob] = await Promise.all(users.map((user) => enter(user, "Room")));

  // The odd values that JSON and JavaScript allow, by way of the backend.
  await backend.mutateStorage("room", ({ root }) => {
    root.set("nul", "a\u0000b");
    root.set("lone surrogate", "x\ud83dy");
    root.set("", "an empty key");
    root.set("numbers", [Number.MAX_VALUE, 5e-324, 2 ** 53 + 2, -(2 ** 53) - 2, 0.1 + 0.2, 1e21, 1e-7, -0]);
    root.set("strings", ["\u2028\u2029", '"\\/\b\f\n\r\t\u001f\u007f', "é", "e\u0301", "日本語", "👩‍👩‍👧", "<script>&amp;"]);
    root.set("deep", JSON.parse("[".repeat(60) + "]".repeat(60)));
    root.set("liveblocksType", "LiveObject"); // a key of the user's own
    root.set("nested", new LiveMap([["list", new LiveList([new LiveMap([["k", new LiveObject({ v: [1, { two: 2 }] })]]), [1, 2]])]]));
  });

  alice.root.set("note", new LiveText([["Hello ", { bold: true }], ["world 👋"]]));
  await synced(alice);
  while (!bob.root.get("note")) await pause(10);

  let file = false;
  if (typeof alice.room.uploadFile === "function") {
    const handle = await alice.room.uploadFile(new File(["some bytes"], "naïve name.txt", { type: "text/plain" }));
    alice.root.set("file", handle);
    file = true;
  }

  // Both edit at once, and webhooks keep telling of it in the middle.
  for (let i = 0; i < 25; i++) {
    alice.root.get("todos").push(new LiveObject({ text: `alice ${i}`, done: false }));
    bob.root.get("todos").insert(new LiveObject({ text: `bob ${i}`, done: true }), 0);
    alice.root.set("count", i);
    bob.root.get("shapes").set(`shape ${i % 7}`, new LiveMap([["at", new LiveList([i, i / 3])]]));
    alice.root.get("note").insert(0, `a${i} `);
    bob.root.get("note").insert(bob.root.get("note").length, ` b${i}`, { italic: true });
    if (i % 5 === 4) bob.root.get("todos").delete(1);
    if (i % 6 === 5) alice.root.get("todos").move(0, 3);
    if (i % 8 === 7) await webhook("storageUpdated", "Room");
    await pause(4);
  }
  await Promise.all([alice, bob].map(synced));
  await same([alice, bob], ({ root }) => root.toJSON());
  const todos = alice.root.get("todos").length;

  for (const id of ["room ", "roöm", "a/b:c?d#e%f"]) {
    await backend.mutateStorage(id, ({ root }) => {
      root.get("todos").push(new LiveObject({ text: `only in ${id}` }));
      root.delete("shapes");
    });
  }
  for (const id of rooms) await webhook("storageUpdated", id);
  const written = await ydocs();
  // They stay while the mirror fetches: a live room is what a webhook tells of.
  return { todos, file, ydocs: written };
}

async function replace() {
  // One room goes for good, one comes back with other content; the events overtake each other.
  await backend.deleteRoom("roöm");
  await backend.deleteRoom("room");
  await backend.createRoom("room", { defaultAccesses: ["room:write"], metadata: { name: "again" } });
  await backend.initializeStorageDocument("room", { liveblocksType: "LiveObject", data: { second: "life" } });
  await webhook("roomCreated", "room");
  await webhook("storageUpdated", "room");
  await webhook("roomDeleted", "room");
  await webhook("storageUpdated", "roöm");
  await webhook("roomDeleted", "roöm");
}

const told = await { create, edit, replace }[process.argv[2]]();
console.log(JSON.stringify({ sent, ...told }));
process.exit(0); // the clients would keep the process alive
