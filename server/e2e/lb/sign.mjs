// Signs webhooks with Svix' own library. Reads a JSON list of {id, body} with body in base64
// and writes the list of their webhook-signature headers. The secret is WEBHOOK_SECRET, and
// the time of signing WEBHOOK_TIMESTAMP, in Unix seconds.
import { readFileSync } from "node:fs";
import { Webhook } from "svix";

const { WEBHOOK_SECRET: secret, WEBHOOK_TIMESTAMP: timestamp } = process.env;
const svix = new Webhook(secret);
const at = new Date(Number(timestamp) * 1000);
const deliveries = JSON.parse(readFileSync(0, "utf8"));
console.log(JSON.stringify(deliveries.map(({ id, body }) => svix.sign(id, at, Buffer.from(body, "base64").toString("utf8")))));
