// Writes threads, comments and groups with the real package through the mirror, and reads them
// through it, which must be what Liveblocks has. It writes how many of the writes were not
// mirrored when they were answered.
import assert from "node:assert/strict";
import { liveblocks, mirror, outcome, seen, shown } from "./rest-both.mjs";

const roomId = process.env.ROOM;
const body = (text) => ({ version: 1, content: [{ type: "paragraph", children: [{ text }] }] });
const comment = (userId, text) => ({ userId, body: body(text) });

const { id: threadId, comments: [{ id: first }] } = await mirror.createThread({
  roomId, data: { metadata: { color: "red" }, comment: comment("alice", "First \u0000 \ud83d\ude00") },
});
const thread = ["getThread", { roomId, threadId }];
const all = [thread, ["getThreads", { roomId }], ["getComment", { roomId, threadId, commentId: first }]];
await shown(...all);
await mirror.editThreadMetadata({ roomId, threadId, data: { userId: "bob", metadata: { color: "blue" } } });
await shown(...all);
await mirror.markThreadAsResolved({ roomId, threadId, data: { userId: "bob" } });
await shown(...all);
assert.equal((await mirror.getThread({ roomId, threadId })).resolved, true);
await mirror.markThreadAsUnresolved({ roomId, threadId, data: { userId: "bob" } });
await shown(...all);
const { id: second } = await mirror.createComment({ roomId, threadId, data: comment("bob", "Second") });
all.push(["getComment", { roomId, threadId, commentId: second }]);
await shown(...all);
await mirror.editComment({ roomId, threadId, commentId: second, data: { body: body("Other") } });
await shown(...all);
await mirror.editCommentMetadata({ roomId, threadId, commentId: second, data: { userId: "bob", metadata: { n: 1 } } });
await shown(...all);
await mirror.addCommentReaction({ roomId, threadId, commentId: second, data: { emoji: "👍", userId: "alice" } });
await shown(...all);
await mirror.removeCommentReaction({ roomId, threadId, commentId: second, data: { emoji: "👍", userId: "alice" } });
await shown(...all);
await mirror.deleteComment({ roomId, threadId, commentId: second });
await shown(...all.slice(0, 3));
assert.deepStrictEqual(await outcome(mirror, ["deleteComment", { roomId, threadId, commentId: "none" }]),
  await outcome(liveblocks, ["deleteComment", { roomId, threadId, commentId: "none" }]));

// With its last comment the thread is gone.
await mirror.deleteComment({ roomId, threadId, commentId: first });
await shown(thread, ["getThreads", { roomId }]);
assert.equal((await outcome(mirror, thread)).status, 404);
assert.deepStrictEqual((await mirror.getThreads({ roomId })).data, []);

const other = await mirror.createThread({ roomId, data: { comment: comment("alice", "Deleted as a whole") } });
await shown(["getThread", { roomId, threadId: other.id }]);
await mirror.deleteThread({ roomId, threadId: other.id });
await shown(["getThread", { roomId, threadId: other.id }], ["getThreads", { roomId }]);

const groupId = "a group/%";
const group = ["getGroup", { groupId }];
await mirror.createGroup({ groupId, memberIds: ["alice"] });
await shown(group);
await mirror.addGroupMembers({ groupId, memberIds: ["bob"] });
await shown(group);
await mirror.removeGroupMembers({ groupId, memberIds: ["alice"] });
await shown(group);
assert.deepStrictEqual((await mirror.getGroup({ groupId })).members.map(({ id }) => id), ["bob"]);
await mirror.deleteGroup({ groupId });
await shown(group);

console.log(JSON.stringify({ pending: seen.pending, sources: [...seen.sources].sort() }));
