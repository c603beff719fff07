import type { ErrorReason, components } from "./types.js";

/** What is final: gRPC codes of calls that fail again however often they are made. */
const finalCodes = new Set([3, 5, 7, 11, 12, 16]);

/** A failure that the service, or a proxy in front of it, has answered with. */
export class MirrorError extends Error {
  override readonly name = "MirrorError";
  /** The machine-readable cause. Absent if the answer is not the service's. Newer services may have more. */
  readonly reason: ErrorReason | undefined;
  /** The gRPC status code. Absent if the answer is not the service's. */
  readonly code: number | undefined;
  /** The HTTP status. Absent if a stream failed after it had begun. */
  readonly status: number | undefined;
  /** How long to wait before the next attempt, in milliseconds, if the answer says so. */
  readonly retryAfter: number | undefined;

  constructor(
    message: string,
    about: {
      reason?: ErrorReason | undefined;
      code?: number | undefined;
      status?: number;
      retryAfter?: number | undefined;
    },
  ) {
    super(message);
    this.reason = about.reason;
    this.code = about.code;
    this.status = about.status;
    this.retryAfter = about.retryAfter;
  }

  /** Whether the same call cannot succeed later: the request is wrong, or the place in the feed is gone. */
  get final(): boolean {
    if (this.code !== undefined) return finalCodes.has(this.code);
    const status = this.status ?? 500;
    return status < 500 && ![408, 425, 429].includes(status);
  }
}

/** Makes an error of an answer whose status is not 2xx. */
export async function failure(response: Response): Promise<MirrorError> {
  const text = await response.text().catch(() => "");
  const seconds = Number(response.headers.get("retry-after") ?? Number.NaN);
  const { status } = response;
  const retryAfter = Number.isFinite(seconds) ? seconds * 1000 : undefined;
  return parseStatus(text, { status, retryAfter }) ?? new MirrorError(`HTTP status ${status}`, { status, retryAfter });
}

/** Makes an error of the JSON of a status. Returns undefined if it is none. */
export function parseStatus(
  json: string,
  about: { status?: number; retryAfter?: number | undefined } = {},
): MirrorError | undefined {
  let status: Partial<components["schemas"]["Status"]> | null;
  try {
    status = JSON.parse(json) as typeof status;
  } catch {
    return undefined;
  }
  if (typeof status?.code !== "number" || typeof status.message !== "string") return undefined;
  const reason = status.details?.find((detail) => detail.reason !== undefined)?.reason;
  const delay = Number.parseFloat(status.details?.find((detail) => detail.retryDelay !== undefined)?.retryDelay ?? "");
  const retryAfter = about.retryAfter ?? (Number.isFinite(delay) ? delay * 1000 : undefined);
  return new MirrorError(reason === undefined ? status.message : `${reason}: ${status.message}`, {
    ...about, reason, code: status.code, retryAfter,
  });
}
