// Makes random documents with Yjs itself and says what is in them:
//
//   node random.mjs SEED COUNT
//
// runs in a folder whose node_modules have yjs, and writes a line of JSON for each document:
// its update in base64, its JSON, structure and text as they have to be read, and its update
// as Yjs encodes it once it has loaded it. That is empty if Yjs itself reads something else
// in it, about once in 2,600 documents: where the left origin of an item comes after its right
// origin, its place depends on how the text around it is parted.
//
// Two to four clients edit at the same time and now and then exchange what they did. Some
// updates are put together from what the clients sent, with parts missing.
import { createRequire } from "node:module";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";

const Y = createRequire(join(process.cwd(), "package.json"))("yjs");
const [seed, count] = process.argv.slice(2).map(Number);

let state = seed >>> 0;
function random() {
  state = (state + 0x6d2b79f5) >>> 0;
  let t = state;
  t = Math.imul(t ^ (t >>> 15), t | 1);
  t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
}
const int = (n) => Math.floor(random() * n);
const pick = (...of) => of[int(of.length)];

const roots = { a: "getArray", m: "getMap", t: "getText", x: "getXmlFragment" };
const open = (doc) => [...Object.entries(roots).map(([name, get]) => doc[get](name)), doc.get("l", Y.XmlText)];

const string = () => Array.from({ length: 1 + int(6) }, () => pick("a", "b", "word ", "é", "日本", "👋", "👩‍👧", "\n", "<&\"", "\u0000", "\u2028")).join("");
const key = () => pick("a", "b", "c", "é", "👋", "", "__type", "id", "label");
const attributes = () => ({ [pick("bold", "italic", "link", "comment--AbC012/=")]: pick(true, null, null, {}, { href: string() }, 1.5) });

function plain(deep = 3) {
  return pick(
    () => null, () => undefined, () => true, () => int(200) - 100, () => -0, () => 2 ** 53 - 1, () => -(2 ** 40), () => 0.5, () => 0.1, () => 1e21,
    () => 1e-7, () => Infinity, () => 2n ** 62n, () => -3n, string, () => new Uint8Array([0, int(256)]),
    () => (deep ? Array.from({ length: int(4) }, () => plain(deep - 1)) : []),
    () => (deep ? Object.fromEntries(Array.from({ length: int(4) }, () => [key(), plain(deep - 1)])) : {}),
  )();
}

const element = () => new Y.XmlElement(pick("paragraph", "heading", "blockquote", "hardBreak", "mention", "image"));
const shared = () => pick(() => new Y.Text(string()), () => new Y.Map([[key(), value()]]), () => Y.Array.from([value(), string()]),
  () => new Y.XmlText(string()), element, () => new Y.XmlFragment(), () => new Y.Doc({ guid: `guid-${int(1000)}` }))();
// Lists take neither undefined nor BigInt but inside other values.
function value() {
  const v = plain();
  return v === undefined || typeof v === "bigint" ? [v] : v;
}
const content = () => (random() < 0.4 ? shared() : value());

function editText(text, embeds) {
  const at = int(text.length + 1);
  const length = Math.min(1 + int(4), text.length - at);
  pick(
    () => text.insert(at, string()), () => text.insert(at, string()), () => text.insert(at, string(), attributes()),
    () => length && text.delete(at, length), () => length && text.format(at, length, attributes()),
    () => text.insertEmbed(at, embeds(), random() < 0.5 ? attributes() : undefined),
    () => text instanceof Y.XmlText && text.setAttribute(key(), value()),
  )();
}

// lexical makes what @lexical/yjs puts into a text.
function lexical() {
  const type = pick("paragraph", "link", "text", "linebreak", "image", "lb-mention");
  const node = type === "text" || type === "linebreak" ? new Y.Map() : type === "paragraph" || type === "link" ? new Y.XmlText() : new Y.XmlElement();
  node[node instanceof Y.Map ? "set" : "setAttribute"]("__type", type);
  if (type === "lb-mention") for (const key of ["__userId", "__id"]) if (random() < 0.7) node.setAttribute(key, pick("", "alice", 7));
  return node;
}

function editList(list, items) {
  const at = int(list.length + 1);
  if (random() < 0.7 || at === list.length) list.insert(at, Array.from({ length: 1 + int(2) }, items));
  else list.delete(at, 1);
}

function edit(type) {
  if (type instanceof Y.XmlText) return editText(type, () => pick(lexical, lexical, () => ({ img: int(9) }))());
  if (type instanceof Y.Text) return editText(type, () => pick(() => ({ img: int(9) }), () => new Y.Map())());
  if (type instanceof Y.Map) return random() < 0.8 ? type.set(key(), content()) : type.delete(key());
  if (type instanceof Y.Array) return editList(type, content);
  if (type instanceof Y.XmlElement && random() < 0.4) return random() < 0.8 ? type.setAttribute(key(), value()) : type.removeAttribute(key());
  return editList(type, () => (random() < 0.5 ? element() : new Y.XmlText(string())));
}

// within lists a type and all types in it.
function within(type) {
  const inside = [];
  for (let item = type._start; item; item = item.right) if (!item.deleted && item.content.type) inside.push(item.content.type);
  for (const item of type._map.values()) if (!item.deleted && item.content.type) inside.push(item.content.type);
  return [type, ...inside.flatMap(within)];
}

// Unmade means that Yjs itself has failed to undo or redo, as it does now and then if it has
// collected what that was in.
class Unmade extends Error {}

function step(back) {
  try {
    back();
  } catch (cause) {
    throw new Unmade("undo or redo", { cause });
  }
}

// made is an update of a document that Yjs could make.
function made() {
  for (;;) {
    try {
      return document();
    } catch (error) {
      if (!(error instanceof Unmade)) throw error;
    }
  }
}

function document() {
  const gc = random() < 0.7;
  const sent = [];
  const docs = Array.from({ length: 2 + int(3) }, (_, n) => {
    const doc = new Y.Doc({ gc });
    doc.clientID = pick(int(100), int(2 ** 30)) * 4 + n;
    doc.on("update", (update, origin) => origin === "other" || sent.push(update));
    open(doc);
    return doc;
  });
  const undo = new Y.UndoManager(open(docs[0]));
  for (let n = 5 + int(120); n > 0; n--) {
    const doc = pick(...docs);
    doc.transact(() => {
      for (let m = 1 + int(3); m > 0; m--) edit(pick(...within(pick(...open(doc)))));
    });
    if (random() < 0.1) step(() => undo.undo());
    if (random() < 0.1) step(() => undo.redo());
    if (random() < 0.15) {
      const [from, to] = [pick(...docs), pick(...docs)];
      Y.applyUpdate(to, Y.encodeStateAsUpdate(from, Y.encodeStateVector(to)), "other");
    }
  }
  if (random() < 0.3) return Y.mergeUpdates(sent.filter(() => random() < 0.97));
  for (const doc of docs) Y.applyUpdate(docs[0], Y.encodeStateAsUpdate(doc), "other");
  return Y.encodeStateAsUpdate(docs[0]);
}

// What has to be read. toJSON makes values of what JSON.stringify can write, BigInt as text
// that is put right afterwards.
const big = (n) => ({ $big: String(n) });
const write = (v) => JSON.stringify(v).replace(/\{"\$big":"(-?\d+)"\}/g, "$1");

function toJSON(v) {
  const object = (entries) => Object.fromEntries([...entries].map(([k, w]) => [k, toJSON(w)]));
  const delta = () => v.toDelta().map((op) => ({ ...op, insert: toJSON(op.insert) }));
  if (typeof v === "bigint") return big(v);
  if (v instanceof Y.Doc) return { guid: v.guid };
  if (v instanceof Y.XmlText) return { t: "text", delta: delta(), attrs: object(Object.entries(v.getAttributes())) };
  if (v instanceof Y.Text) return delta();
  if (v instanceof Y.XmlElement) return { t: v.nodeName, attrs: object(Object.entries(v.getAttributes())), c: v.toArray().map(toJSON) };
  if (v instanceof Y.Map) return object(v.entries());
  if (v instanceof Y.Array || v instanceof Y.XmlFragment) return v.toArray().map(toJSON);
  if (Array.isArray(v)) return v.map(toJSON);
  return v && v.constructor === Object ? object(Object.entries(v)) : v;
}

// The node of ProseMirror or the texts that a child of a fragment is.
function nodes(v) {
  if (v instanceof Y.XmlElement) {
    const attrs = v.getAttributes();
    const content = join2(v.toArray().flatMap(nodes));
    return [{ type: v.nodeName, ...(Object.keys(attrs).length ? { attrs: toJSON(attrs) } : {}), ...(content.length ? { content } : {}) }];
  }
  return v.toDelta().filter((op) => typeof op.insert === "string").map(({ insert, attributes = {} }) => {
    const marks = Object.keys(attributes).sort().map((name) => ({
      type: name.replace(/--.{8}$/, ""),
      ...(attributes[name].constructor === Object && Object.keys(attributes[name]).length ? { attrs: attributes[name] } : {}),
    }));
    return { type: "text", ...(marks.length ? { marks } : {}), text: insert };
  });
}

// Neighbouring texts with the same marks are one.
function join2(list) {
  const joined = [];
  for (const node of list) {
    const last = joined.at(-1);
    if (last?.type === "text" && node.type === "text" && "text" in last && "text" in node && JSON.stringify(last.marks) === JSON.stringify(node.marks)) last.text += node.text;
    else joined.push(node);
  }
  return joined;
}

const BLOCK = Symbol("block");
const typeOf = (v) => (v instanceof Y.Map ? v.get("__type") : v instanceof Y.XmlElement || v instanceof Y.XmlText ? v.getAttribute("__type") : undefined);
const isType = (v) => v instanceof Y.AbstractType;

// pieces are the strings to be read in a type, and where its blocks begin and end.
function pieces(v) {
  if (v instanceof Y.Map) return [...v.keys()].sort(byBytes).map((k) => v.get(k)).filter(isType).flatMap(block);
  if (v instanceof Y.Array) return v.toArray().filter(isType).flatMap(block);
  const text = v instanceof Y.Text;
  const parts = text ? v.toDelta().map((op) => op.insert) : v.toArray();
  const beside = parts.some((p) => typeof p === "string" || (!text && p instanceof Y.XmlText));
  const ofLexical = parts.some((p) => isType(p) && typeof typeOf(p) === "string" && typeOf(p));
  let dropped = ofLexical;
  return parts.flatMap((p) => {
    if (typeof p === "string") return dropped ? [] : [p];
    if (!isType(p)) return [];
    const type = typeOf(p);
    dropped = ofLexical;
    if (p instanceof Y.Map && type === "linebreak") return ["\n"];
    if (p instanceof Y.Map && typeof type === "string" && type) {
      dropped = false;
      return [];
    }
    if (p.nodeName === "hardBreak") return ["\n"];
    if (p.nodeName === "mention") {
      const label = [p.getAttribute("label"), p.getAttribute("id")].find((l) => typeof l === "string" && l);
      return label ? [`@${label}`] : [];
    }
    if (p instanceof Y.XmlElement && type === "lb-mention") {
      const known = (key, sign) => [p.getAttribute(key)].filter((id) => typeof id === "string" && id).map((id) => sign + id);
      return [...known("__userId", "@"), ...known("__id", "")].slice(0, 1);
    }
    return beside || (!text && p instanceof Y.XmlText) ? pieces(p) : block(p);
  });
}
const block = (v) => [BLOCK, ...pieces(v), BLOCK];
const byBytes = (a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b));

function toText(types) {
  let out = "";
  let line = false;
  for (const piece of types.flatMap(block)) {
    if (piece === BLOCK) line = true;
    else if (piece) {
      if (line && out && !out.endsWith("\n")) out += "\n";
      line = false;
      out += piece;
    }
  }
  return out;
}

// read loads an update and returns the document with what is in its roots, as JSON.
function read(update) {
  const doc = new Y.Doc();
  Y.applyUpdate(doc, update);
  const there = [...doc.share.keys()].filter((name) => doc.share.get(name)._start || doc.share.get(name)._map.size);
  const [a, m, t, x, l] = open(doc);
  const all = Object.fromEntries(Object.entries({ a, l, m, t, x }).filter(([name]) => there.includes(name)));
  const json = write(Object.fromEntries(Object.entries(all).map(([name, type]) => [name, toJSON(type)])));
  return { doc, all, json };
}

for (let n = 0; n < count; n++) {
  const update = made();
  const { doc, all, json } = read(update);
  const fragment = "x" in all ? { type: "doc", ...content2(join2(all.x.toArray().flatMap(nodes))) } : null;
  const again = Y.encodeStateAsUpdate(doc);
  console.log(JSON.stringify({
    update: Buffer.from(update).toString("base64"), json, fragment: write(fragment), text: toText(Object.values(all)),
    again: isDeepStrictEqual(JSON.parse(read(again).json), JSON.parse(json)) ? Buffer.from(again).toString("base64") : "",
  }));
}

function content2(content) {
  return content.length ? { content } : {};
}
