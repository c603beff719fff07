// Writes with the real packages through the mirror, and reads through it what they have
// written, which must be what Liveblocks has. It writes how many of the writes were not
// mirrored when they were answered.
import assert from "node:assert/strict";
import { liveblocks, mirror, outcome, seen, shown } from "./rest-both.mjs";

const { withLexicalDocument } = await import("@liveblocks/node-lexical");
const { withProsemirrorDocument } = await import("@liveblocks/node-prosemirror");
const { $createParagraphNode, $createTextNode, $getRoot } = await import("lexical");
const Y = await import("yjs");

const room = "written a/b?%";

await mirror.createRoom(room, { defaultAccesses: ["room:write"], metadata: { step: "1" } });
await shown(["getRoom", room], ["getStorageDocument", room], ["getYjsDocumentAsBinaryUpdate", room]);
assert.deepStrictEqual(await outcome(mirror, ["createRoom", room, { defaultAccesses: [] }]),
  await outcome(liveblocks, ["createRoom", room, { defaultAccesses: [] }]));
assert.equal((await mirror.getOrCreateRoom(room, { defaultAccesses: [] })).metadata.step, "1");

await mirror.updateRoom(room, { metadata: { step: "2", "ö\u2028": "</script>" } });
await shown(["getRoom", room]);

await mirror.initializeStorageDocument(room, { liveblocksType: "LiveObject", data: { count: 9007199254740993, text: "\u0000 \ud83d" } });
await shown(["getStorageDocument", room], ["getStorageDocument", room, "json"]);
for (let n = 0; n < 3; n++) {
  await mirror.mutateStorage(room, ({ root }) => root.set("count", n));
  await shown(["getStorageDocument", room, "json"]);
}
assert.equal((await mirror.getStorageDocument(room, "json")).count, 2);
// It looks for the rooms in the mirror, and writes to each of them.
await mirror.massMutateStorage({ query: { roomId: { startsWith: "written a/" } } }, ({ root }) => root.set("mass", "yes"));
await shown(["getStorageDocument", room, "json"]);
assert.equal((await mirror.getStorageDocument(room, "json")).mass, "yes");

const doc = new Y.Doc();
doc.getMap("map").set("k", "v");
await mirror.sendYjsBinaryUpdate(room, Y.encodeStateAsUpdate(doc));
await shown(["getYjsDocument", room], ["getYjsDocumentAsBinaryUpdate", room]);

// The packages for editors read, write and read again.
await withProsemirrorDocument({ roomId: room, client: mirror, field: "tiptap" }, async (api) => {
  await api.setContent("Hello from the mirror");
  assert.equal(api.getText(), "Hello from the mirror");
});
await shown(["getYjsDocumentAsBinaryUpdate", room]);
for (const client of [liveblocks, mirror]) {
  await withProsemirrorDocument({ roomId: room, client, field: "tiptap" }, (api) => assert.equal(api.getText(), "Hello from the mirror"));
}
await withLexicalDocument({ roomId: room, client: mirror, nodes: [] }, async (lexical) => {
  await lexical.update(() => $getRoot().clear().append($createParagraphNode().append($createTextNode("Lexical, too"))));
  await lexical.refresh();
  assert.equal(lexical.getTextContent(), "Lexical, too");
});
await shown(["getYjsDocumentAsBinaryUpdate", room]);
for (const client of [liveblocks, mirror]) {
  await withLexicalDocument({ roomId: room, client, nodes: [] }, (lexical) => assert.equal(lexical.getTextContent(), "Lexical, too"));
}

// What is passed on is what Liveblocks answers.
for (const read of [["getVersionHistory", { roomId: room }], ["getRoomSubscriptionSettings", { roomId: room, userId: "alice" }]]) {
  assert.deepStrictEqual(await outcome(mirror, read), await outcome(liveblocks, read), JSON.stringify(read));
}
const session = mirror.prepareSession("alice").allow(room, ["room:write"]);
assert.equal((await session.authorize()).status, 200);

await mirror.deleteStorageDocument(room);
await shown(["getStorageDocument", room]);
await mirror.deleteRoom(room);
await shown(["getRoom", room], ["getStorageDocument", room]);

console.log(JSON.stringify({ pending: seen.pending, sources: [...seen.sources].sort() }));
