// Reads the fixtures, {rooms, threads} as Liveblocks' API has them, and then lines of
// [list, parameters]. Writes for each which fixtures a plain filter selects by what
// Liveblocks' published parser makes of the query: their ids, or the error.
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
};

const valueOf = (item, field) => {
  if (field._kind === "KeyedField") {
    return Object.hasOwn(item.metadata, field.key) ? item.metadata[field.key] : null;
  }
  return field.ref.name === "roomId" ? item.id : item[field.ref.name];
};

const compare = { "<": (a, b) => a < b, "<=": (a, b) => a <= b, ">": (a, b) => a > b, ">=": (a, b) => a >= b };

const holds = (item, term) => {
  const have = valueOf(item, term.field);
  switch (term._kind) {
    case "ExactCondition":
      return have === term.value.value;
    case "PrefixCondition":
      return typeof have === "string" && have.startsWith(term.prefix.value);
    case "NumericCondition":
      return typeof have === "number" && compare[term.op](have, term.value.value);
    default:
      throw new Error(`a term of another kind: ${term._kind}`);
  }
};

// Ids are compared by their bytes.
const byID = (a, b) => Buffer.compare(Buffer.from(a.id), Buffer.from(b.id));
const time = (item) => Date.parse(item.createdAt);
const orders = {
  rooms: (a, b) => time(b) - time(a) || byID(a, b),
  threads: (a, b) => time(a) - time(b) || byID(a, b),
};

const has = (accesses, id) => Object.hasOwn(accesses, id) && accesses[id].length > 0;

let fixtures;
for await (const line of createInterface({ input: process.stdin })) {
  if (fixtures === undefined) {
    fixtures = JSON.parse(line);
    continue;
  }
  const [list, params] = JSON.parse(line);
  let out;
  try {
    let found = fixtures[list];
    if (params.query) {
      const terms = parsers[list].parse(params.query).query.allOf;
      found = found.filter((item) => terms.every((term) => holds(item, term)));
    }
    if (params.organizationId) {
      found = found.filter((room) => room.organizationId === params.organizationId);
    }
    const groups = (params.groupIds ?? "").split(",").filter((id) => id !== "");
    if (params.userId || groups.length > 0) {
      found = found.filter(
        (room) => has(room.usersAccesses, params.userId) || groups.some((id) => has(room.groupsAccesses, id)),
      );
    }
    out = { ids: found.toSorted(orders[list]).map((item) => item.id) };
  } catch (err) {
    out = { error: err.message };
  }
  console.log(JSON.stringify(out));
}
