// Reads a mirror and follows what changes in it, with the package that was installed from its tarball.
import { type Change, type Comment, Mirror, MirrorError, follow, watch } from "@liveblocks-mirror/client";

const [, , url = "", token] = process.argv;
const service = { url, key: () => process.env["MIRROR_API_TOKEN"] ?? "" };
const mirror = new Mirror(service);

if (token === undefined) {
  const { roomId, metadata } = await mirror.getRoom({ roomId: "a room" });
  console.log(`${roomId} is called ${metadata["name"]}`);
  const rooms: string[] = [];
  for await (const room of mirror.listRooms({ pageSize: 1 })) rooms.push(room.roomId);
  console.log(`the rooms are ${rooms.join(", ")}`);
  const { contentType, freshness } = await mirror.getStorage({ roomId: "a room" });
  console.log(`its storage is ${contentType} of revision ${BigInt(freshness?.revision ?? 0) > 0n ? "N" : "none"}`);
  const storage = await mirror.readStorage({ roomId: "a room", format: "plain-lson" });
  console.log(await storage.text()); // json() would round the number
  for await (const { threadId, roomId, resolved } of mirror.listThreads({ resolved: false, metadata: { color: "blue" } })) {
    const { comments = [] } = await mirror.getThread({ roomId, threadId });
    console.log(`a thread is resolved: ${resolved}, and says ${comments.map(({ text }: Comment) => text).join()}`);
  }
  console.log(`there are ${(await mirror.listActiveUsers({ roomId: "a room" })).length} users`);
  const missing = await mirror.getRoom({ roomId: "nowhere" }).catch((error: unknown) => error);
  console.log(missing instanceof MirrorError && missing.reason);
}

const over = new AbortController();
const tokens = { load: () => token, save: (token: string) => console.log(`token ${token}`) };
try {
  const options = {
    ...service, kinds: ["storage"], position: "earliest", tokens, signal: over.signal,
    onRetry: (error: unknown) => {
      // There are no replicas of another version, which may know the token.
      if (error instanceof MirrorError && error.reason === "CHANGE_TOKEN_INVALID") throw error;
    },
  } as const;
  for await (const { roomId, changeKind, kind } of follow(options)) {
    console.log(`${kind} of ${roomId} was ${changeKind}`);
    if (roomId === "last") over.abort("enough");
  }
} catch (error) {
  console.log(error instanceof MirrorError ? `${error.message}, for good: ${error.final}` : `ended: ${error}`);
}

// What the service would refuse is refused by the types.
export const wrong = async () => {
  // @ts-expect-error
  await mirror.getRoom({});
  // @ts-expect-error
  mirror.listThreads({ roomid: "x" });
  // @ts-expect-error
  for await (const change of follow({ ...service, kinds: ["RESOURCE_KIND_STORAGE"] })) change satisfies Change;
  // @ts-expect-error
  for await (const change of follow({ ...service, position: "never" })) change satisfies Change;
  // @ts-expect-error
  for await (const { changes } of watch(service)) changes satisfies Change;
  // @ts-expect-error
  (await mirror.getRoom({ roomId: "x" })).nothing;
};
