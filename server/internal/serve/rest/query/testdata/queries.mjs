// Reads lines of [language, query] and writes what Liveblocks' published parser makes of each.
import { createInterface } from "node:readline";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const require = createRequire(pathToFileURL(join(process.cwd(), "package.json")));
const { QueryParser } = require("@liveblocks/query-parser");

const parsers = {
  rooms: new QueryParser({ fields: { roomId: "string" }, indexableFields: { metadata: "token" } }),
  threads: new QueryParser({
    fields: { resolved: "boolean", visibility: "string" },
    indexableFields: { metadata: "mixed" },
    allowNull: true,
  }),
  inbox: new QueryParser({ fields: { unread: "boolean" } }),
};
const ops = { ExactCondition: ":", PrefixCondition: "^" };

for await (const line of createInterface({ input: process.stdin })) {
  const [language, text] = JSON.parse(line);
  let out;
  try {
    const terms = parsers[language].parse(text).query.allOf.map((t) => ({
      field: (t.field.base ?? t.field.ref).name,
      key: t.field.key ?? null,
      op: t.op ?? ops[t._kind],
      value: (t.prefix ?? t.value).value,
    }));
    out = { terms };
  } catch (err) {
    out = { error: err.message, checked: err.diagnostic?.source === "checker" };
  }
  console.log(JSON.stringify(out));
}
