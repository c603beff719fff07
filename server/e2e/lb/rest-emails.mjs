// Prepares the email for a notification with the real package, reading through the mirror.
// The event is on stdin; it writes what the package has prepared.
import { text } from "node:stream/consumers";

console.warn = console.error = () => {}; // of versions
const { Liveblocks } = await import("@liveblocks/node");
const { prepareThreadNotificationEmailAsHtml } = await import("@liveblocks/emails");

const { MIRROR_URL, MIRROR_KEY } = process.env;
const mirror = new Liveblocks({ secret: MIRROR_KEY, baseUrl: MIRROR_URL });
const email = await prepareThreadNotificationEmailAsHtml(mirror, JSON.parse(await text(process.stdin)), {
  resolveUsers: ({ userIds }) => userIds.map((id) => ({ name: `Name of ${id}` })),
});
console.log(JSON.stringify(email));
