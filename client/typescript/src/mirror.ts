import { failure } from "./error.js";
import { type Service, prepare } from "./service.js";
import type { ActiveUser, Comment, Document, Room, Thread, operations } from "./types.js";

type Operation = keyof operations;
/** The query parameters of an operation of the API. */
export type Query<O extends Operation> = NonNullable<operations[O]["parameters"]["query"]>;
type Answer<O extends Operation> = operations[O]["responses"] extends {
  200: { content: { "application/json": infer T } };
}
  ? T
  : never;

/** What may go along with every call. */
export interface CallOptions {
  readonly signal?: AbortSignal | undefined;
}

/**
 * Reads a mirror. Every method fails with a {@link MirrorError} if the service refuses the call. Lists read page
 * after page while they are iterated.
 */
export class Mirror {
  readonly #service: Service;

  constructor(service: Service) {
    this.#service = service;
  }

  /** Returns a room. */
  async getRoom(query: Query<"getRoomByQuery">, options?: CallOptions): Promise<Room> {
    return there((await this.#json<"getRoomByQuery">("/v1/room", query, options)).room);
  }

  /** Lists rooms. */
  listRooms(query?: Query<"listRooms">, options?: CallOptions): AsyncGenerator<Room, void, void> {
    return this.#pages<"listRooms", Room>("/v1/rooms", query, options, (page) => [page.rooms, page.nextPageToken]);
  }

  /** Returns the Storage of a room, and how current it is. Numbers beyond 2^53 are rounded: see readStorage. */
  async getStorage(query: Query<"getStorageDocumentByQuery">, options?: CallOptions): Promise<Document> {
    return there((await this.#json<"getStorageDocumentByQuery">("/v1/storage", query, options)).document);
  }

  /** Returns a Yjs document of a room, and how current it is. */
  async getYjs(query: Query<"getYjsDocumentByQuery">, options?: CallOptions): Promise<Document> {
    return there((await this.#json<"getYjsDocumentByQuery">("/v1/ydoc", query, options)).document);
  }

  /** Returns the exact bytes of the Storage of a room. */
  readStorage(query: Query<"readStorageDocumentByQuery">, options?: CallOptions): Promise<Response> {
    return this.#call("/v1/storage:read", query, options, "*/*");
  }

  /** Returns the exact bytes of a Yjs document of a room. */
  readYjs(query: Query<"readYjsDocumentByQuery">, options?: CallOptions): Promise<Response> {
    return this.#call("/v1/ydoc:read", query, options, "*/*");
  }

  /** Returns a thread. */
  async getThread(query: Query<"getThreadByQuery">, options?: CallOptions): Promise<Thread> {
    return there((await this.#json<"getThreadByQuery">("/v1/thread", query, options)).thread);
  }

  /** Lists threads, without their comments. */
  listThreads(query?: Query<"listThreads">, options?: CallOptions): AsyncGenerator<Thread, void, void> {
    return this.#pages<"listThreads", Thread>("/v1/threads", query, options, (page) => [
      page.threads,
      page.nextPageToken,
    ]);
  }

  /** Lists comments. */
  listComments(query?: Query<"listComments">, options?: CallOptions): AsyncGenerator<Comment, void, void> {
    return this.#pages<"listComments", Comment>("/v1/comments", query, options, (page) => [
      page.comments,
      page.nextPageToken,
    ]);
  }

  /** Lists who is in a room. */
  async listActiveUsers(query: Query<"listActiveUsersByQuery">, options?: CallOptions): Promise<ActiveUser[]> {
    return (await this.#json<"listActiveUsersByQuery">("/v1/active-users", query, options)).activeUsers;
  }

  async #call(path: string, query?: object, options?: CallOptions, accept = "application/json"): Promise<Response> {
    const send = await prepare(this.#service, path, { query, accept });
    const response = await send(options?.signal);
    if (!response.ok) throw await failure(response);
    return response;
  }

  async #json<O extends Operation>(path: string, query?: object, options?: CallOptions): Promise<Answer<O>> {
    return (await (await this.#call(path, query, options)).json()) as Answer<O>;
  }

  async *#pages<O extends Operation, T>(
    path: string,
    query: object | undefined,
    options: CallOptions | undefined,
    read: (page: Answer<O>) => [items: T[], nextPageToken: string],
  ): AsyncGenerator<T, void, void> {
    let pageToken = "";
    do {
      const page = await this.#json<O>(path, pageToken ? { ...query, pageToken } : query, options);
      let items: T[];
      [items, pageToken] = read(page);
      yield* items;
    } while (pageToken);
  }
}

/** Returns what every answer has. */
function there<T>(resource: T | undefined): T {
  if (resource === undefined) throw new TypeError("the answer is not that of the service: is the url right?");
  return resource;
}
