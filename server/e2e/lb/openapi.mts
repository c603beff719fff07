// Reads a mirror with a client that is typed by /openapi.json, without anything of this repository.
import createClient from "openapi-fetch";
import type { paths } from "./api.mjs";

declare const process: { argv: string[]; env: Record<string, string | undefined> };

const mirror = createClient<paths>({
  baseUrl: process.argv[2],
  headers: { Authorization: `Bearer ${process.env.MIRROR_API_TOKEN}` },
});

const rooms = await mirror.GET("/v1/rooms", { params: { query: { view: "full", pageSize: 10 } } });
if (rooms.error) throw new Error(rooms.error.message);
for (const { roomId, metadata } of rooms.data.rooms) {
  const tags = metadata.tags;
  console.log(`${roomId} is called ${metadata.name}, with the tags ${Array.isArray(tags) ? tags.join(", ") : "none"}`);
}

const path = { roomId: "a room" };
const storage = await mirror.GET("/v1/rooms/{roomId}/storage:read", {
  params: { path, query: { format: "plain-lson" } },
  parseAs: "text", // JSON.parse would round the number
});
console.log(`its storage is ${storage.data}`);

const failed = await mirror.GET("/v1/admin/tasks", { params: { query: { state: "failed" } } });
console.log(`${failed.data?.tasks.length} tasks failed`);

const threads = await mirror.GET("/v1/threads", {
  params: { query: { resolved: false, metadata: { color: "blue" } } },
});
if (threads.error) throw new Error(threads.error.message);
for (const thread of threads.data.threads) console.log(thread.commentCount.toFixed());

const missing = await mirror.GET("/v1/rooms/{roomId}", { params: { path: { roomId: "nowhere" } } });
console.log(missing.error?.details?.map((d) => d.reason).join());

// What the service would refuse is refused by the types.
export const wrong = () => [
  // @ts-expect-error
  mirror.GET("/v1/admin/tasks", { params: { query: { state: "FAILED" } } }),
  // @ts-expect-error
  mirror.GET("/v1/rooms", { params: { query: { page_size: 1 } } }),
  // @ts-expect-error
  mirror.GET("/v1/rooms/{roomId}"),
];
