/** Where a service is, and how to call it. */
export interface Service {
  /** The address of its HTTP API, such as "https://mirror.example.com". Relative to the page in a browser. */
  readonly url: string | URL;
  /**
   * The key, or the token of an issuer, that calls are made with. A function is asked before each call; an error of
   * it ends what made the call.
   */
  readonly key?: string | (() => string | Promise<string>) | undefined;
  /** What to call it with, by default the global fetch. */
  readonly fetch?: typeof globalThis.fetch | undefined;
}

/** What of a call differs from others. */
export interface Call {
  readonly query?: object | undefined;
  /** Makes it a POST. */
  readonly body?: object | undefined;
  readonly accept?: string;
}

/**
 * Prepares a call, which the result makes. What is wrong with the settings is thrown here, so that nobody tries it
 * again.
 */
export async function prepare(
  service: Service,
  path: string,
  call: Call,
): Promise<(signal?: AbortSignal | undefined) => Promise<Response>> {
  const base = String(service.url).replace(/\/+$/, "");
  const url = new URL(base + path, typeof location === "undefined" ? undefined : location.href);
  for (const [name, value] of Object.entries(call.query ?? {})) addParameter(url.searchParams, name, value);
  const headers = new Headers({ Accept: call.accept ?? "application/json" });
  const key = typeof service.key === "function" ? await service.key() : service.key;
  if (key) headers.set("Authorization", `Bearer ${key}`);
  const init: RequestInit = { headers, cache: "no-store" };
  if (call.body) {
    headers.set("Content-Type", "application/json");
    init.method = "POST";
    init.body = JSON.stringify(call.body);
  }
  const send = service.fetch ?? globalThis.fetch;
  return (signal) => send(url, signal ? { ...init, signal } : init);
}

function addParameter(to: URLSearchParams, name: string, value: unknown): void {
  if (value === undefined || value === null) return;
  if (Array.isArray(value)) {
    for (const one of value) addParameter(to, name, one);
  } else if (typeof value === "object") {
    for (const [key, member] of Object.entries(value)) addParameter(to, `${name}[${key}]`, member);
  } else {
    to.append(name, String(value));
  }
}
