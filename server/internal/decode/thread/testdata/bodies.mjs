// Makes random bodies of comments and reads Markdown:
//
//   node bodies.mjs make SEED COUNT
//
// writes a line of JSON for each body: the body, the plain text and the Markdown that
// Liveblocks' own package makes of it, whether our Markdown has to be the same but for
// characters that are escaped without need, and what a reader is to see.
//
//   node bodies.mjs read
//
// reads lines of JSON, each a string of Markdown, and writes what a reader sees: a list
// of [character, marks, href] without white space, by a program that knows Markdown.
//
// It runs in a folder whose node_modules have @liveblocks/node and marked.
import { createRequire } from "node:module";
import { join } from "node:path";
import { createInterface } from "node:readline";

const require = createRequire(join(process.cwd(), "package.json"));
const marks = ["bold", "italic", "strikethrough", "code"];

async function make(seed, count) {
  const { stringifyCommentBody } = require("@liveblocks/node");
  let state = seed >>> 0;
  const random = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  const int = (n) => Math.floor(random() * n);
  const pick = (...of) => of[int(of.length)];
  const string = (n, ...of) => Array.from({ length: n }, () => pick(...of)).join("");
  const letter = () => pick("a", "B", "7", "é", "日");
  const special = ["*", "_", "~", "`", "``", "#", "+", "-", ">", "<b>", "&amp;", "&", "|", "[x]", "!", "(", ")", "{", "}", "1.", ".", ":", "=", "\\", "\\*", "a", "b", " ", "👋"];

  // Next to a letter Markdown only takes markers around letters, and asterisks of two
  // marks are ambiguous there, so such text stands apart. marked looks for markers and
  // escapes within code, at least if that has backticks or marks of its own, and takes
  // for markers what CommonMark does not if marks are nested around punctuation.
  const core = () => pick(letter, () => letter() + string(int(4), ...special, "\n") + letter(), () => " " + string(1 + int(4), ...special, "\n", "\n\n", "  ") + " ")();
  const marked = () => Object.fromEntries(marks.filter(() => random() < 0.3).map((m) => [m, random() < 0.9]));
  const urls = {
    "https://example.org": "https://example.org", "https://example.org/": "https://example.org/", "#": "#", "/path": "/path",
    "http://example.org/a_b?c=1&d=*#e": "http://example.org/a_b?c=1&d=*#e", "www.example.org/x": "https://www.example.org/x",
    "https://example.org/wiki/A_(b)": "https://example.org/wiki/A_(b)", "https://example.org/a b": "https://example.org/a%20b",
    "javascript:alert(1)": "", " javascript:alert(1)": "", "java\nscript:alert(1)": "", "tel:123": "", "": "",
  };
  const url = () => pick(...Object.keys(urls));
  const link = () => ({ type: "link", url: url(), ...(random() < 0.5 ? { text: pick("this", "a_b", "[x]", "*", "") } : {}) });
  const mention = () => ({ type: "mention", ...pick({ kind: "user" }, { kind: "group", userIds: ["u"] }, {}), id: pick("bob", "a_b", "*", "") });
  const text = () => {
    const t = { text: core(), ...marked() };
    if (t.code) t.text = t.text.replace(t.bold || t.italic || t.strikethrough ? /[`*_~\\]/g : /[`\\]/g, "x");
    return t;
  };
  const few = (t) => marks.filter((m) => t[m]).length < 2;
  const apart = (t) => ({ ...t, text: ` ${letter()}${t.text.replace(/\n/g, " ")}${letter()} ` });
  const texts = () => {
    const t = text();
    if (few(t)) return t.text.startsWith(" ") ? [{ text: "x" }, t, { text: "x" }] : [t];
    return [{ text: "x" }, apart(t), ...Array.from({ length: int(3) }, () => apart(text())), { text: "x" }];
  };
  const wild = () => pick(texts, texts, texts, () => [{ text: " " }], () => [link()], () => [mention()])();

  // What both write alike: marks around words that stand apart, and code without
  // other marks or anything to escape.
  const word = () => letter() + string(int(3), "a", "*", "_", "[", "(", "!", "{", "é") + letter();
  const tame = () => [pick(() => ({ text: word() + " " + word(), bold: random() < 0.5, italic: random() < 0.5, strikethrough: random() < 0.3 }),
    () => ({ text: "code here", code: true }), link, () => ({ ...mention(), id: pick("bob", "a-b") }))(), { text: " and " }];

  for (let i = 0; i < count; i++) {
    const alike = random() < 0.4;
    const content = Array.from({ length: int(3) }, () => ({
      type: "paragraph",
      children: alike ? [{ text: "It " }, ...Array.from({ length: int(4) }, tame).flat()]
        : random() < 0.1 ? [{ text: core(), code: true }] : Array.from({ length: int(6) }, wild).flat(),
    }));
    const body = { version: 1, content };
    const seen = content.flatMap((p) => p.children).flatMap((c) => {
      const shown = c.type === "mention" ? (c.id && "@" + c.id) : (c.text ?? c.url);
      return [...shown.replace(/\s/g, "")].map((r) => [r, marks.filter((m) => c[m]).join(), urls[c.url] ?? ""]);
    });
    const plain = await stringifyCommentBody(body, { format: "plain" });
    const markdown = await stringifyCommentBody(body, { format: "markdown" });
    console.log(JSON.stringify({ body, plain, markdown, alike, seen }));
  }
}

async function read() {
  const { marked } = require("marked");
  const entities = { "&lt;": "<", "&gt;": ">", "&quot;": '"', "&#39;": "'", "&amp;": "&" };
  const unescape = (s) => s.replace(/&(lt|gt|quot|#39|amp);/g, (e) => entities[e]);
  const tags = { strong: "bold", em: "italic", del: "strikethrough", code: "code" };
  for await (const line of createInterface({ input: process.stdin })) {
    const seen = [];
    const on = [];
    let href = "";
    for (const [part, tag, attribute] of marked.parse(JSON.parse(line)).matchAll(/<(\/?\w+)(?: href="([^"]*)")?>|&[a-z#0-9]+;|[^\s<]/gu)) {
      const name = tag?.replace("/", "");
      if (!tag) seen.push([unescape(part), marks.filter((m) => on.includes(m)).join(), href]);
      // An address of mail is a link for some readers whatever it stands in.
      else if (name === "a") href = unescape(attribute ?? "").replace(/^mailto:.*/, "");
      else if (tags[name]) tag === name ? on.push(tags[name]) : on.pop();
      else if (name !== "p" && name !== "br") seen.push([part, "", ""]);
    }
    console.log(JSON.stringify(seen));
  }
}

const [mode, ...numbers] = process.argv.slice(2);
await (mode === "make" ? make(...numbers.map(Number)) : read());
