// Edits documents on the dev server with the packages that applications use, and says what
// those packages read in them afterwards. It takes one act at a time: a line of JSON on its
// standard input names it, {"act": "documents", ...}, and a line of JSON on its standard
// output is what it tells. It ends with its input; clients stay connected until then.
//
// The packages do not all have the same version, which those of Liveblocks refuse without
// NODE_ENV=production. What is random comes from SEED.
import { createInterface } from "node:readline";
import { LiveFile, LiveList, LiveMap, LiveObject, LiveText } from "@liveblocks/client";
import { withLexicalDocument } from "@liveblocks/node-lexical";
import { withProsemirrorDocument } from "@liveblocks/node-prosemirror";
import { createLiveblocksProsemirrorNode, getLiveblocksProsemirrorDocument, liveblocksProsemirrorNodeToJson } from "@liveblocks/prosemirror";
import { getYjsProviderForRoom } from "@liveblocks/yjs";
import { $createListItemNode, $createListNode, ListItemNode, ListNode } from "@lexical/list";
import { $createHeadingNode, $createQuoteNode, HeadingNode, QuoteNode } from "@lexical/rich-text";
import { getText } from "@tiptap/core";
import { Fragment, Schema } from "@tiptap/pm/model";
import { $createLineBreakNode, $createParagraphNode, $createTextNode, $getRoot, $parseSerializedNode } from "lexical";
import { initProseMirrorDoc, updateYFragment } from "y-prosemirror";
import * as Y from "yjs";
import { backend, client, enter, pause, same, synced } from "./liveblocks.mjs";

let state = Number(process.env.SEED) >>> 0;
function random() {
  state = (state + 0x6d2b79f5) >>> 0;
  let t = state;
  t = Math.imul(t ^ (t >>> 15), t | 1);
  t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
}
const int = (n) => Math.floor(random() * n);
const pick = (...of) => of[int(of.length)];
const many = (n, make) => Array.from({ length: int(n) }, make);

const newRoom = (id) => backend.createRoom(id, { defaultAccesses: ["room:write"] });
const words = (...texts) => texts.map((text) => (typeof text === "string" ? { type: "text", text } : text));
const marked = (text, ...marks) => ({ type: "text", text, marks: marks.map((m) => (typeof m === "string" ? { type: m } : m)) });
const block = (type, attrs, ...content) => ({ type, ...(attrs && { attrs }), ...(content.length && { content: words(...content) }) });

// ---- Tiptap

const article = block("doc", null,
  block("heading", { level: 1 }, "Release notes <1.0> & “more”"),
  block("paragraph", null, "Plain, ", marked("bold", "bold"), " and ", marked("italic-strike", "italic", "strike"), { type: "hardBreak" }, "second line 👩‍👩‍👧 é"),
  block("paragraph"),
  block("bulletList", null,
    block("listItem", null, block("paragraph", null, "one"), block("orderedList", { start: 3 }, block("listItem", null, block("paragraph", null, "nested")))),
    block("listItem", null, block("paragraph", null, marked("a link", { type: "link", attrs: { href: "https://example.com/?a=1&b=2", target: "_blank", rel: null, class: null, title: null } })))),
  block("blockquote", null, block("paragraph", null, "quoted ", marked("commented", { type: "liveblocksCommentMark", attrs: { orphan: false, threadId: "th_1" } }))),
  block("codeBlock", { language: "go" }, "func main() {\n\tprintln(\"<hi & bye>\")\n}"),
  block("horizontalRule"),
  block("paragraph", null, "Hello ", { type: "liveblocksMention", attrs: { id: "alice", notificationId: "in_1" } }, " and ", { type: "liveblocksGroupMention", attrs: { id: "team", userIds: ["bob", "eve"], notificationId: "in_2" } }, "!"),
);

// How Tiptap writes a document as text. The editors' own text has no mentions and captions;
// the mirror documents them as "@" and who is mentioned, and as a line of their own.
const mentioned = (...attributes) => ({ node }) => `@${attributes.map((name) => node.attrs[name]).find(Boolean)}`;
const lines = {
  blockSeparator: "\n",
  textSerializers: {
    hardBreak: () => "\n",
    mention: mentioned("label", "id", "user"),
    liveblocksMention: mentioned("id"),
    liveblocksGroupMention: mentioned("id"),
    image: ({ node }) => node.attrs.caption,
  },
};
const tiptap = ({ schema, ...options }, callback) => withProsemirrorDocument({ client: backend, schema, ...options }, callback);

// together lets two authors open a document, change it at the same time, and again after each
// has seen what the other did. change is called with an author's access and number.
function together(open, change) {
  return open((one) =>
    open(async (two) => {
      for (let round = 0; round < 3; round++) {
        await Promise.all([one, two].map((author, n) => change(author, n, round)));
        await Promise.all([one, two].map((author) => author.refresh()));
      }
    }),
  );
}

// writeTiptap lets two authors write a document of Tiptap in a shared type, and returns what
// its package reads.
async function writeTiptap(options, content) {
  await tiptap(options, (author) => author.setContent(content));
  await together(
    (callback) => tiptap(options, callback),
    (author, n, round) =>
      author.update((doc, tr) => {
        const texts = [];
        doc.descendants((node, pos) => { if (node.isTextblock && node.content.size) texts.push([pos + 1, node]); });
        const [at, node] = texts[(round * 2 + n) % texts.length];
        const { schema } = doc.type;
        tr.insertText(`‹${n}.${round}› `, at + (n ? node.content.size : 0));
        if (schema.marks.bold && node.type.allowsMarkType(schema.marks.bold)) tr.addMark(at, at + 3 + n, schema.marks.bold.create());
        if (round === 1) tr.delete(at + 1, at + 2);
        // Both authors begin a new block behind the same one.
        if (round === 2 && schema.nodes.heading && !schema.nodes.blockContainer) tr.insert(doc.content.size, schema.nodes.heading.create({ level: 2 }, schema.text(`by ${n}`)));
        return tr;
      }),
  );
  return tiptap(options, (author) => ({ state: author.toJSON(), text: author.getText(lines) }));
}

// The nodes that BlockNote's documents are made of.
const colors = { backgroundColor: { default: "default" }, textColor: { default: "default" }, textAlignment: { default: "left" } };
const blockNote = new Schema({
  nodes: {
    doc: { content: "blockGroup" },
    blockGroup: { content: "blockContainer+" },
    blockContainer: { content: "blockContent blockGroup?", attrs: { id: { default: null } } },
    paragraph: { group: "blockContent", content: "inline*", attrs: colors },
    heading: { group: "blockContent", content: "inline*", attrs: { ...colors, level: {}, isToggleable: { default: false } } },
    checkListItem: { group: "blockContent", content: "inline*", attrs: { ...colors, checked: {} } },
    image: { group: "blockContent", attrs: { ...colors, url: { default: "" }, caption: { default: "" } } },
    text: { group: "inline" },
    hardBreak: { group: "inline", inline: true },
    mention: { group: "inline", inline: true, attrs: { user: {} } },
  },
  marks: { bold: {}, italic: {}, textColor: { attrs: { stringValue: {} } }, link: { attrs: { href: {} } } },
});

const contained = (id, content, ...nested) => block("blockContainer", { id }, content, ...(nested.length ? [block("blockGroup", null, ...nested)] : []));
const page = block("doc", null,
  block("blockGroup", null,
    contained("b1", block("heading", { level: 2 }, "BlockNote title")),
    contained("b2", block("paragraph", { textColor: "red" }, "A ", marked("coloured", { type: "textColor", attrs: { stringValue: "blue" } }), " paragraph", { type: "hardBreak" }, "in two lines"),
      contained("b3", block("checkListItem", { checked: true }, "done"), contained("b4", block("paragraph", null, marked("deep", "bold", "italic"))))),
    contained("b5", block("image", { url: "https://example.com/a.png", caption: "a caption" })),
    contained("b6", block("paragraph", null, "Ask ", { type: "mention", attrs: { user: "carol" } }, " first")),
    contained("b7", block("paragraph"))),
);

async function tiptaps() {
  const room = "tiptap";
  await newRoom(room);
  const editors = { default: await writeTiptap({ roomId: room }, article), notes: await writeTiptap({ roomId: room, field: "notes" }, block("doc", null, block("paragraph", null, "another field"))) };
  // Whoever writes last, the first editor's document has stayed what it was read as.
  return { room, editors };
}

async function blockNotes() {
  const room = "blocknote";
  await newRoom(room);
  return { room, editors: { "document-store": await writeTiptap({ roomId: room, schema: blockNote, field: "document-store" }, page) } };
}

// ---- Lexical

async function lexicals() {
  const room = "lexical";
  await newRoom(room);
  const options = { roomId: room, client: backend, nodes: [HeadingNode, QuoteNode, ListNode, ListItemNode] };
  const open = (callback) => withLexicalDocument(options, callback);
  const paragraph = (...nodes) => $createParagraphNode().append(...nodes);
  const text = (s, ...formats) => formats.reduce((node, f) => node.toggleFormat(f), $createTextNode(s));
  await open((author) =>
    author.update(() => {
      const items = ["one", "two <&>"].map((s) => $createListItemNode().append(text(s)));
      $getRoot().clear().append(
        $createHeadingNode("h1").append(text("Lexical title")),
        paragraph(text("plain "), text("bold", "bold"), text(" both", "bold", "italic"), $createLineBreakNode(), text("line two 👩‍👩‍👧").setStyle("color: red"),
          text(" token").setMode("token")),
        paragraph(),
        $createListNode("number", 4).append(...items),
        $createQuoteNode().setFormat("center").append(text("a quote")),
        paragraph(text("Hello "), $parseSerializedNode({ type: "lb-mention", version: 1, value: "user-1" }), text("!")),
        paragraph(text("see "), $parseSerializedNode({ type: "lb-thread-mark", version: 1, ids: ["th_1"], format: "", indent: 0, direction: null }).append(text("marked"))),
      );
    }),
  );
  await together(open, (author, n, round) =>
    author.update(() => {
      const blocks = $getRoot().getChildren();
      const one = blocks[(round * 2 + n) % blocks.length];
      for (const node of one.getAllTextNodes().slice(0, 1)) node.spliceText(n ? node.getTextContentSize() : 0, 0, `‹${n}.${round}› `);
      if (round === 1) one.getAllTextNodes()[0]?.toggleFormat(n ? "underline" : "code");
      if (round === 2) one.insertAfter(paragraph(text(`by ${n}`)));
    }),
  );
  // The package's own mention keeps its user as "id" and exports it as "value".
  const exported = (key, value) => (value?.type === "lb-mention" ? { type: value.type, version: value.version, id: value.value } : value);
  return { room, editors: { root: await open((author) => ({ state: JSON.parse(JSON.stringify(author.toJSON(), exported)), text: author.getTextContent() })) } };
}

// ---- Yjs without an editor

// json is what a shared type holds, in the form of Yjs' own toJSON; a text is its delta.
function json(v) {
  const object = (entries) => Object.fromEntries([...entries].map(([key, value]) => [key, json(value)]));
  if (v instanceof Y.Doc) return { guid: v.guid };
  if (v instanceof Y.XmlText) return { t: "text", delta: v.toDelta(), attrs: v.getAttributes() };
  if (v instanceof Y.Text) return v.toDelta();
  if (v instanceof Y.XmlElement) return { t: v.nodeName, attrs: v.getAttributes(), c: v.toArray().map(json) };
  if (v instanceof Y.Map) return object(v.entries());
  if (v instanceof Y.XmlFragment || v instanceof Y.Array) return v.toArray().map(json);
  return v;
}
const jsonOf = (...types) => Object.fromEntries(types.map((type) => [[...type.doc.share].find(([, one]) => one === type)[0], json(type)]));

// writeYjs lets two authors write a document through the REST API, each without knowing what
// the other has just written.
async function writeYjs(roomId, change, params = {}) {
  const authors = [new Y.Doc(), new Y.Doc()];
  for (let round = 0; round < 3; round++) {
    authors.forEach((doc, n) => doc.transact(() => change(doc, n, round)));
    await Promise.all(authors.map((doc) => backend.sendYjsBinaryUpdate(roomId, Y.encodeStateAsUpdate(doc), params)));
    for (const doc of authors) Y.applyUpdate(doc, new Uint8Array(await backend.getYjsDocumentAsBinaryUpdate(roomId, params)));
  }
  return authors[0];
}

async function plains() {
  const room = "plain yjs";
  await newRoom(room);
  const guids = ["", "page 1/é", "page 2", "never written"];
  const docs = [];
  for (const guid of guids.slice(0, 3))
    docs.push(await writeYjs(room, (doc, n, round) => {
      const text = doc.getText("codemirror");
      text.insert(n ? text.length : 0, `${n}.${round} of ${guid} <b>&amp; 👩‍👩‍👧 é\n`);
      text.format(text.length >> 1, 2, { bold: n ? true : null });
      if (round) text.delete(1, 1);
      if (round === 2) text.insertEmbed(3, { image: "https://example.com/1.png" });
      const map = doc.getMap("state");
      map.set(`by ${n}`, { round, list: [0.1 + 0.2, 2 ** 53 - 1, null, true, "x\ty", { "": {} }] });
      map.set("last", n);
      if (!round && !n) map.set("nested", new Y.Map([["text", new Y.Text("a nested text")], ["list", Y.Array.from([1, "2", { three: 3 }])]]));
      if (!round && !n && !guid) for (const page of guids.slice(1)) map.set(page, new Y.Doc({ guid: page }));
      doc.getArray("items").insert(0, [round, { by: n }, "日本語"]);
      if (round === 2) doc.getArray("items").delete(1, 2);
    }, guid ? { guid } : {}));
  return {
    room,
    ydocs: docs.map((doc, i) => ({
      guid: guids[i],
      json: jsonOf(doc.getText("codemirror"), doc.getMap("state"), doc.getArray("items")),
      text: `${doc.getText("codemirror")}a nested text`,
    })),
  };
}

// ---- Storage

// How React Flow's nodes and edges become Storage: what is replaced as a whole, and what
// stays with the client.
const [nodeSync, edgeSync] = [["position", "sourcePosition", "targetPosition", "extent", "origin", "handles"], ["markerStart", "markerEnd", "label", "labelBgPadding"]].map((atomic) => ({
  ...Object.fromEntries(atomic.map((key) => [key, "atomic"])),
  ...Object.fromEntries(["selected", "dragging", "measured", "resizing"].map((key) => [key, false])),
}));
const liveNode = (node) => [node.id, LiveObject.from(node, nodeSync)];
const liveEdge = (edge) => [edge.id, LiveObject.from(edge, edgeSync)];
const diagram = (nodes, edges) => new LiveObject({ nodes: new LiveMap(nodes.map(liveNode)), edges: new LiveMap(edges.map(liveEdge)) });

const start = () => diagram(
  [
    { id: "1", type: "input", position: { x: 0, y: -0.5 }, sourcePosition: "right", data: { label: "Start" }, selected: true, measured: { width: 1, height: 2 } },
    { id: "2", position: { x: 250, y: 100 }, width: 150, height: 40.5, parentId: "1", extent: "parent", data: { label: "Review", tags: ["a", { b: 1 }], style: { color: "red" } } },
    { id: "3", type: "output", position: { x: 1e3, y: 0 }, targetPosition: "left", data: {} },
    { id: "4", position: { x: 1, y: 1 }, parentId: "4", data: { label: "goes away" } },
  ],
  [
    { id: "e1-2", source: "1", target: "2", type: "smoothstep", animated: true, label: "go", markerEnd: { type: "arrowclosed" } },
    { id: "e2-3", source: "2", target: "3", sourceHandle: "a", targetHandle: null, data: { weight: 2 }, selected: true },
    { id: "e3-4", source: "3", target: "4" },
  ],
);

// flows are the diagrams as a client that has just come reads them.
const flows = (root, ...keys) =>
  keys.map((key) => {
    const { nodes, edges } = root.get(key).toJSON();
    return { key, nodes: Object.values(nodes), edges: Object.values(edges) };
  });

// read is what a client that has just come reads in a room's Storage.
async function read(room, from) {
  let result;
  await backend.mutateStorage(room, ({ root }) => { result = from(root); });
  return result;
}

// The documents that Tiptap keeps in Storage instead of Yjs.
async function storedTiptaps() {
  const room = "tiptap in storage";
  await newRoom(room);
  const users = await Promise.all(["alice", "bob"].map((user) => enter(client(user), room)));
  const [alice, bob] = users;
  alice.root.set("_tiptap_docs", new LiveMap(Object.entries({ default: article, notes: block("doc", null, block("paragraph", null, "another field")) }).map(([field, doc]) => [field, createLiveblocksProsemirrorNode(doc)])));
  while (!bob.root.get("_tiptap_docs")) await pause(5);
  const texts = ({ root }) => {
    const found = [];
    const walk = (node) => { if (node.get("text")) found.push(node.get("text")); node.get("content")?.forEach(walk); };
    walk(getLiveblocksProsemirrorDocument(root, "default"));
    return found;
  };
  for (let i = 0; i < 12; i++) {
    users.forEach((user, n) => {
      const text = texts(user)[(i * 2 + n) % 7];
      text.insert(n ? text.length : 0, `‹${n}.${i}› `);
      if (i % 3 === 2) text.delete(1, 1);
    });
    getLiveblocksProsemirrorDocument(users[i % 2].root, "default").get("content").push(createLiveblocksProsemirrorNode(block("paragraph", null, `line ${i}`)));
    await pause(3);
  }
  await Promise.all(users.map(synced));
  await same(users, ({ root }) => root.toJSON());
  users.forEach(({ leave }) => leave());
  const { schema } = await tiptap({ roomId: room }, (author) => author.getEditorState());
  const stored = await read(room, (root) => Object.fromEntries(["default", "notes"].map((field) => {
    const state = liveblocksProsemirrorNodeToJson(getLiveblocksProsemirrorDocument(root, field));
    return [field, { state, text: getText(schema.nodeFromJSON(state), lines) }];
  })));
  return { room, stored };
}

const odd = () => pick("a", "b", "label", "", "é", "👋", "a b", "~/\"\\", "data", "version", "liveblocksType", "id", "constructor", "0", "10", "2", "日本語", "\u2028", "<&>");
const string = () => many(5, () => pick("a", "word ", "é", "日本", "👋", "👩‍👧", "\n", "<&\"\\", "\u0000", "\u2028", "\ud83d", "\udc4b")).join("");
const number = () => pick(0, -0, 1, -1, 0.1 + 0.2, 2 ** 53 - 1, 2 ** 53 + 2, -(2 ** 60), 1e21, 1e-7, 5e-324, Number.MAX_VALUE, int(1e9) / 7);
const object = (make) => Object.fromEntries(many(5, () => [odd(), make()]));
const plain = (deep) => pick(string, number, () => pick(true, false, null), () => (deep ? many(4, () => plain(deep - 1)) : []), () => (deep ? object(() => plain(deep - 1)) : {}))();
const attributes = () => pick(undefined, { bold: true }, { link: string(), "": number() }, { nested: { a: [1] } });

// live is a random tree of live nodes and plain values.
function live(deep) {
  if (deep < 1) return plain(2);
  const value = () => live(deep - 1);
  return pick(() => plain(3), () => new LiveObject(object(value)), () => new LiveMap(Object.entries(object(value))), () => new LiveList(many(5, value)), text, file)();
}
function text() {
  const t = new LiveText(many(4, () => [string() || "x", ...[attributes()].filter(Boolean)]));
  for (let n = int(4); n > 0; n--) t.insert(int(t.length + 1), string() || "y", attributes());
  return t;
}
let uploaded = []; // what is known of the files in the room that is being written
const file = () => new LiveFile(pick(...uploaded));

async function randomStorage({ room }) {
  await newRoom(room);
  const alice = await enter(client("alice"), room);
  const files = ["a.txt", "naïve name 👋.txt", "<&\"\\.json"].map((name, i) => alice.room.uploadFile(new File(["x".repeat(i + 1)], name, { type: "text/plain" })));
  uploaded = (await Promise.all(files)).map(({ data }) => data);
  alice.leave();
  await backend.mutateStorage(room, ({ root }) => {
    for (let n = 0; n < 60; n++) root.set(`${n} ${odd()}`, live(4));
  });
  await backend.mutateStorage(room, ({ root }) => {
    const change = (node) => {
      const value = () => live(2);
      if (node instanceof LiveObject) pick(() => node.set(odd(), value()), () => node.delete(odd()), () => node.update(object(value)))();
      else if (node instanceof LiveMap) pick(() => node.set(odd(), value()), () => node.delete(odd()))();
      else if (node instanceof LiveList) pick(() => node.insert(value(), int(node.length + 1)), () => node.length && node.delete(int(node.length)), () => node.length && node.move(int(node.length), int(node.length)), () => node.length && node.set(int(node.length), value()))();
      else if (node instanceof LiveText) pick(() => node.insert(int(node.length + 1), string() || "z", attributes()), () => node.length && node.delete(0, 1), () => node.length && node.format(0, 1, { bold: true }))();
    };
    for (const key of root.keys()) change(root.get(key));
  });
  return {};
}

// ---- Two connected users

const meetings = new Map(); // the users by room

async function connect(userId, info, roomId) {
  const user = await enter(client(userId, info), roomId);
  const provider = getYjsProviderForRoom(user.room);
  while (!provider.synced) await pause(5);
  return { ...user, doc: provider.getYDoc() };
}

const self = ({ room }) => {
  const { connectionId, id, info } = room.getSelf();
  return { connectionId, id, info };
};

async function meet({ room }) {
  await newRoom(room);
  // One after the other: the mirror lists them by their connection ids.
  const users = [await connect("alice", { name: "Alice <1>", color: { r: 255 } }, room), await connect("bob/1 ", undefined, room)];
  meetings.set(room, users);
  return { room, users: users.map(self) };
}

// part lets the second user leave, and returns who is left.
async function part({ room }) {
  const [alice, bob] = meetings.get(room);
  bob.leave();
  while ((await backend.getActiveUsers(room)).data.length > 1) await pause(10);
  return { room, users: [self(alice)] };
}

const field = new Schema({ nodes: { doc: { content: "paragraph+" }, paragraph: { content: "text*", attrs: { textAlign: { default: null } } }, text: {} }, marks: { bold: {} } });

// work lets both users edit a diagram, lists, a text and Yjs documents at the same time, and
// returns what is read in them afterwards.
async function work({ room }) {
  const users = meetings.get(room);
  const [alice, bob] = users;
  const keys = ["flow", "boards/ü 2"];
  alice.root.update({ flow: start(), "boards/ü 2": diagram([{ id: "a/b:ü", position: { x: 1, y: 2 }, data: { label: "" } }], []), todos: new LiveList([]), note: new LiveText("note") });
  alice.root.get("flow").get("nodes").get("1").setLocal("dragging", true);
  while (!keys.concat("note").every((key) => bob.root.get(key))) await pause(5);
  const [mine, theirs] = users.map(({ root }) => root.get("flow"));
  const [text, other] = users.map(({ doc }) => doc.getText("note"));

  for (let i = 0; i < 20; i++) {
    mine.get("nodes").get("1").set("position", { x: i, y: i / 3 }); // a node is dragged
    theirs.get("nodes").get("2").get("data").set("label", `Review ${i}`);
    theirs.get("nodes").set(...liveNode({ id: `b${i % 5}`, position: { x: i, y: 0 }, data: { by: "bob", n: i } }));
    mine.get("edges").set(...liveEdge({ id: `1-b${i % 5}`, source: "1", target: `b${i % 5}`, label: `${i}`, type: "step" }));
    if (i === 7) theirs.get("nodes").delete("4"); // an edge to it stays
    if (i === 9) mine.get("edges").delete("e1-2");
    alice.root.get("todos").push(new LiveObject({ text: `alice ${i}` }));
    bob.root.get("todos").insert(`bob ${i}`, 0);
    alice.root.get("note").insert(0, `a${i} `);
    bob.root.get("note").insert(bob.root.get("note").length, ` b${i}`, { bold: true });

    text.insert(0, `A${i} `);
    other.insert(other.length, `B${i} 👋`);
    if (i % 4 === 3) other.delete(1, 2);
    if (i % 5 === 4) text.format(0, 3, { bold: true });
    users.forEach(({ doc }, n) => {
      doc.getMap("map").set(`key ${i % 3}`, [n, i]);
      // As an editor does: the document as it is, changed.
      const fragment = doc.getXmlFragment("default");
      const { doc: now, mapping } = initProseMirrorDoc(fragment, field);
      const line = field.node("paragraph", { textAlign: n ? "right" : null }, field.text(`${n}.${i}`, i % 2 ? [field.mark("bold")] : []));
      const next = now.copy(n ? now.content.append(Fragment.from(line)) : now.content.addToStart(line));
      doc.transact(() => updateYFragment(doc, fragment, next, { mapping, isOMark: new Map() }));
    });
    await pause(4);
  }

  await Promise.all(users.map(synced));
  await same(users, ({ root }) => root.get("todos").toJSON());
  const snapshot = (doc) => Buffer.from(Y.encodeSnapshot(Y.snapshot(doc))).toString("base64");
  for (const server = new Y.Doc(); ; await pause(10)) {
    Y.applyUpdate(server, new Uint8Array(await backend.getYjsDocumentAsBinaryUpdate(room)));
    if (users.every(({ doc }) => snapshot(doc) === snapshot(server))) break;
  }
  const { doc } = bob;
  const fragment = doc.getXmlFragment("default");
  const { doc: node } = initProseMirrorDoc(fragment, field);
  return {
    room,
    storage: await read(room, (root) => root.toJSON()),
    flows: await read(room, (root) => flows(root, ...keys)),
    ydocs: [{ guid: "", json: jsonOf(doc.getText("note"), doc.getMap("map"), fragment), text: `${getText(node, lines)}\n${other}` }],
    editors: { default: { state: node.toJSON(), text: getText(node, lines) } },
  };
}

const documents = () => Promise.all([tiptaps(), blockNotes(), lexicals(), plains(), storedTiptaps()]);
const acts = { documents, randomStorage, meet, work, part };
for await (const line of createInterface({ input: process.stdin })) {
  const { act, ...args } = JSON.parse(line);
  console.log(JSON.stringify(await acts[act](args)));
}
process.exit(0); // the clients would keep the process alive
