import { MirrorError, failure, parseStatus } from "./error.js";
import { type Service, prepare } from "./service.js";
import { eventParser } from "./sse.js";
import type { Change, ChangeInclude, ChangeProgress, ChangeStart, ResourceKind, components } from "./types.js";

type Schemas = components["schemas"];

/** Which changes to follow, and from where. */
export interface WatchOptions extends Service {
  /** By default the only project that the key sees. */
  readonly projectId?: string | undefined;
  readonly roomId?: string | undefined;
  readonly roomIdPrefix?: string | undefined;
  /** By default all. */
  readonly kinds?: readonly ResourceKind[] | undefined;
  /** Start after the message that had this token. */
  readonly token?: string | undefined;
  /** Without a token, start here. By default "now". "snapshot" takes one snapshot. */
  readonly position?: ChangeStart | undefined;
  /**
   * Begin with all that is mirrored if there is no token, wherever `position` says, and again once the service no longer accepts the token. It
   * comes as changes of kind "upserted" without a time, then follows what has changed since.
   */
  readonly snapshot?: boolean | undefined;
  /**
   * Bring resources along with their changes, in `room`, `document`, `thread`, `activeUsers` or `group`: "basic" as
   * lists return them, "full" with all that is in them. The key has to be allowed to read, too. By default "none".
   */
  readonly include?: ChangeInclude | undefined;
  /** Without a token, start about a minute before this time. */
  readonly startTime?: Date | undefined;
  /** Ends it with the reason of the signal. */
  readonly signal?: AbortSignal | undefined;
  /**
   * Seconds between two signs of life of a stream, 5 to 60 and by default 15. A connection that is silent for three
   * times as long is replaced.
   */
  readonly heartbeat?: number | undefined;
  /**
   * "stream" reads a stream, and changes to long polling once three streams in a row were held back or cut off, as
   * by proxies that gather what they pass on. "poll" begins with that.
   */
  readonly transport?: "stream" | "poll" | undefined;
  /**
   * Is told why a connection ended before the next attempt, and how many have failed in a row. What it throws ends
   * the following; otherwise that goes on until it succeeds or fails for good.
   */
  readonly onRetry?: ((error: unknown, attempt: number) => void) | undefined;
}

/** What has happened since the message before. */
export interface Message {
  /** The place in the feed behind the message. Store it once the changes are handled. */
  readonly token: string;
  /** In order within a room; the items of a snapshot in the order of their keys. Empty if the message tells of none. */
  readonly changes: readonly Change[];
  /**
   * Set in a snapshot. Mark what you hold at its "begin"; what has not come among the "items" by its "end" is gone.
   * An item replaces what is marked whatever its revision: after a restore, that can be lower. Keep what has a higher
   * revision and no mark. A snapshot that was interrupted goes on without a "begin".
   */
  readonly snapshot?: "begin" | "items" | "end" | undefined;
  /** How far the service has read, if the message tells. */
  readonly progress?: ChangeProgress | undefined;
}

/** Keeps the token between two runs. */
export interface TokenStore {
  /** Returns the token that was saved last. */
  load(): string | undefined | null | Promise<string | undefined | null>;
  /** Saves a token. An error ends the following. */
  save(token: string): unknown;
}

/** Options of {@link follow}. */
export interface FollowOptions extends WatchOptions {
  /** Where the token is kept. What it loads takes precedence over `token`, `position` and `startTime`. */
  readonly tokens?: TokenStore | undefined;
  /** Is told that a snapshot begins, and that it is whole: all its items were handled. An error ends the following. */
  readonly onSnapshot?: ((phase: "begin" | "end") => unknown) | undefined;
}

/**
 * Yields the changes of a mirror as they happen, and reconnects for as long as it takes. Each comes at least once,
 * those of a room in order. A change counts as handled, and the token behind it is saved, when the loop asks for the
 * next one; those of an interrupted message come again.
 *
 * Throws a {@link MirrorError} if trying again cannot help, such as one with the reason CHANGE_TOKEN_EXPIRED unless
 * `snapshot` is set. A token that is called invalid is tried for ten minutes before: while replicas are upgraded,
 * older ones do not know the tokens of newer ones.
 */
export async function* follow(options: FollowOptions): AsyncGenerator<Change, void, void> {
  const { tokens } = options;
  let saved = (await tokens?.load()) || undefined; // an empty one is what is left of a write that was cut off
  const from = saved === undefined ? options : { ...options, token: saved };
  for await (const { changes, token, snapshot } of watch(from)) {
    if (snapshot === "begin" || snapshot === "end") await options.onSnapshot?.(snapshot);
    yield* changes;
    if (token !== saved) await tokens?.save(token);
    saved = token;
  }
}

/**
 * As {@link follow}, but yields the messages of the feed with their tokens. For who stores the token together with
 * what the changes led to, in one transaction.
 */
export async function* watch(options: WatchOptions): AsyncGenerator<Message, void, void> {
  const { signal, onRetry } = options;
  let { token } = options;
  let polls = options.transport === "poll";
  let attempt = 0; // how many connections have failed in a row
  let cut = 0; // how many streams in a row brought no more than their greeting
  let unknown = 0; // for how long the service has called the token invalid, in milliseconds
  for (;;) {
    signal?.throwIfAborted();
    let received = 0;
    let error: unknown;
    const connection = new Connection(signal);
    try {
      const source = polls ? poll(options, token, connection) : stream(options, token, connection);
      for await (const message of source) {
        if (++received > 1) attempt = cut = 0;
        unknown = 0;
        token = message.token;
        yield message;
      }
      if (received <= 1) error = new Error("the stream ended at once");
    } catch (caught) {
      error = connection.cause(caught);
    } finally {
      connection.close();
    }
    signal?.throwIfAborted();
    if (error instanceof Misuse) throw error.cause;
    if (error !== undefined) attempt++;
    const retryAfter = error instanceof MirrorError ? (error.retryAfter ?? 0) : 0;
    const pause = Math.max(retryAfter, Math.random() * Math.min(30_000, 200 * 2 ** attempt));
    const known = reasonOf(error) !== "CHANGE_TOKEN_INVALID" || (unknown += pause) > upgrade;
    if (known && options.snapshot && token !== undefined && gone(error)) token = undefined;
    else if (known && error instanceof MirrorError && error.final) throw error;
    if (connection.suspect && received <= 1 && !(error instanceof MirrorError)) polls ||= ++cut >= 3;
    if (error !== undefined) onRetry?.(error, attempt);
    await sleep(pause, signal);
  }
}

/**
 * For how long a token that the service calls invalid may be one that another replica knows, in milliseconds: while
 * they are upgraded one by one, older ones do not know those of newer ones.
 */
const upgrade = 600_000;

function reasonOf(error: unknown): string | undefined {
  return error instanceof MirrorError ? error.reason : undefined;
}

/** Whether the service has refused a token. The reasons for that begin alike. */
function gone(error: unknown): boolean {
  return reasonOf(error)?.startsWith("CHANGE_TOKEN_") ?? false;
}

/** Tells in which part of a snapshot a response is, and returns what it brings. */
function content(
  response: Schemas["WatchChangesResponse"] | Schemas["ListChangesResponse"],
  changes: readonly Change[],
): Pick<Message, "changes" | "snapshot"> {
  if (response.snapshotItems) return { changes: response.snapshotItems.items, snapshot: "items" };
  if (response.snapshotBegin) return { changes, snapshot: "begin" };
  if (response.snapshotEnd) return { changes, snapshot: "end" };
  return { changes };
}

/** Greetings come at once; this is for a busy service. */
const greetingTimeout = 20_000;

/** Reads one stream until it ends. */
async function* stream(
  options: WatchOptions,
  token: string | undefined,
  connection: Connection,
): AsyncGenerator<Message, void, void> {
  const heartbeat = options.heartbeat ?? 15;
  const send = await configured(() =>
    prepare(options, "/v1/changes:watch", {
      body: { ...selection(options, token), heartbeatInterval: `${heartbeat}s` },
      accept: "text/event-stream",
    }),
  );
  const response = await answer(connection, send, greetingTimeout, "text/event-stream");
  if (!response.body) throw new Error("the stream has no body");
  connection.suspect = true;
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  const parse = eventParser();
  let patience = greetingTimeout;
  for (;;) {
    // Nothing is timed while who reads the messages is busy.
    const { done, value } = await connection.within(patience, reader.read());
    if (done) return;
    for (const event of parse(decoder.decode(value, { stream: true }))) {
      if (event.type === "error") throw parseStatus(event.data) ?? new Error("the stream failed");
      const message = JSON.parse(event.data) as Schemas["WatchChangesResponse"];
      patience = 3000 * heartbeat;
      const { token, progress } = message;
      yield { token, ...content(message, message.changes?.changes ?? []), progress };
    }
  }
}

/** How long a poll waits for a change, in seconds. */
const pollWait = 30;

/** Asks again and again. */
async function* poll(
  options: WatchOptions,
  token: string | undefined,
  connection: Connection,
): AsyncGenerator<Message, void, void> {
  // The first answer comes at once: without a token, "now" is when it was given. So do those of a snapshot.
  for (let wait = 0; ; wait = pollWait) {
    const send = await configured(() =>
      prepare(options, "/v1/changes:list", {
        body: { ...selection(options, token), pageSize: 1000, waitDuration: `${wait}s` },
      }),
    );
    const response = await answer(connection, send, wait * 1000 + greetingTimeout, "application/json");
    const page = (await connection.within(greetingTimeout, response.json())) as Schemas["ListChangesResponse"];
    token = page.nextToken;
    const { caughtUp, readTime } = page;
    const progress = readTime === undefined ? { caughtUp } : { caughtUp, readTime };
    yield { token, ...content(page, page.changes), progress };
  }
}

function selection(options: WatchOptions, token: string | undefined): object {
  const { projectId, roomId, roomIdPrefix, kinds, include } = options;
  const filter = { projectId, roomId, roomIdPrefix, kinds, include };
  if (token !== undefined) return { ...filter, token };
  if (options.startTime && !options.snapshot) return { ...filter, startTime: options.startTime.toISOString() };
  return { ...filter, position: options.snapshot ? "snapshot" : (options.position ?? "now") };
}

/** Makes a call, and checks that the service answers it as it should. */
async function answer(
  connection: Connection,
  send: (signal: AbortSignal) => Promise<Response>,
  timeout: number,
  media: string,
): Promise<Response> {
  const response = await connection.within(timeout, send(connection.signal));
  if (!response.ok) throw await connection.within(greetingTimeout, failure(response));
  const type = response.headers.get("content-type") ?? "nothing";
  if (type.startsWith(media)) return response;
  const { status } = response;
  throw new MirrorError(`the answer is ${type} instead of ${media}: is the url that of the service?`, { status });
}

/** Wraps an error of the caller's own, which no attempt mends. */
class Misuse extends Error {}

async function configured<T>(make: () => Promise<T>): Promise<T> {
  try {
    return await make();
  } catch (cause) {
    throw new Misuse("the settings of the call are wrong", { cause });
  }
}

/** One connection, and what ends it. */
class Connection {
  /** Whether a proxy may have held it back or cut it off. */
  suspect = false;
  readonly #controller = new AbortController();
  readonly #outer: AbortSignal | undefined;
  readonly #abort = (): void => this.#controller.abort(this.#outer?.reason);

  constructor(outer: AbortSignal | undefined) {
    this.#outer = outer;
    outer?.addEventListener("abort", this.#abort);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Returns the result of some work, or ends the connection if that takes longer. */
  async within<T>(milliseconds: number, work: Promise<T>): Promise<T> {
    const { signal } = this;
    let fail = (): void => {};
    const timer = setTimeout(() => {
      this.suspect = true;
      this.#controller.abort(new Error(`nothing arrived for ${milliseconds / 1000} seconds`));
    }, milliseconds);
    try {
      return await new Promise<T>((resolve, reject) => {
        work.then(resolve, reject);
        fail = () => reject(signal.reason);
        signal.addEventListener("abort", fail);
        if (signal.aborted) fail();
      });
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", fail);
    }
  }

  /** Returns why the connection ended, if that was decided here, and otherwise the error. */
  cause(error: unknown): unknown {
    return this.signal.aborted ? this.signal.reason : error;
  }

  /** Ends the connection, if it still stands. */
  close(): void {
    this.#outer?.removeEventListener("abort", this.#abort);
    this.#controller.abort();
  }
}

function sleep(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const abort = (): void => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", abort);
      resolve();
    }, milliseconds);
    signal?.addEventListener("abort", abort, { once: true });
  });
}
