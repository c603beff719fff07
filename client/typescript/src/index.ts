export { MirrorError } from "./error.js";
export { follow, watch } from "./follow.js";
export type { FollowOptions, Message, TokenStore, WatchOptions } from "./follow.js";
export { Mirror } from "./mirror.js";
export type { CallOptions, Query } from "./mirror.js";
export type { Service } from "./service.js";
export type * from "./types.js";
