// What the scripts of this folder share: the dev server's backend and its users.
import { createClient } from "@liveblocks/client";
import { Liveblocks } from "@liveblocks/node";
import WebSocket from "ws";

const { LIVEBLOCKS_BASE_URL: baseUrl } = process.env;
export const backend = new Liveblocks({ secret: "sk_localdev", baseUrl });
export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// client is a user's browser.
export function client(userId, userInfo = { name: userId }) {
  return createClient({
    baseUrl,
    polyfills: { WebSocket, fetch: globalThis.fetch },
    authEndpoint: async () => {
      const session = backend.prepareSession(userId, { userInfo });
      session.allow("*", session.FULL_ACCESS);
      return JSON.parse((await session.authorize()).body);
    },
  });
}

export async function enter(user, roomId) {
  const { room, leave } = user.enterRoom(roomId, { initialPresence: {} });
  return { room, leave, root: (await room.getStorage()).root };
}

// synced waits until the server has confirmed every change of a client.
export async function synced({ room }) {
  while (room.getStorageStatus() !== "synchronized") await pause(10);
}

// same waits until all clients read the same, and returns it.
export async function same(clients, read) {
  for (;;) {
    const all = clients.map((c) => JSON.stringify(read(c)));
    if (all.every((one) => one === all[0])) return JSON.parse(all[0]);
    await pause(10);
  }
}
