import type { IncomingMessage, ServerResponse } from "node:http";

export interface Needs {
  /** Every one of them. */
  scopes?: string[];
  /** One of them. */
  plans?: string[];
  /** Something of each: `conversations`, `credits`. */
  left?: string[];
}

export class AuthError extends Error {
  readonly status: 401 | 403 | 429 | 503;
  readonly headers: Record<string, string>;
  /** A problem document (RFC 9457). */
  readonly body: string;
}

export class Identity {
  /** The account's id: the name to store things by. */
  readonly sub: string;
  /** The id of the session or API key that was sent. */
  readonly sid: string;
  readonly username: string | null;
  readonly plan: string | null;
  /** What an API key is confined to; of who is logged in, `*`. */
  readonly scopes: ReadonlySet<string>;
  /** Seconds since the epoch. */
  readonly expiresAt: number | null;
  readonly limits: Readonly<Record<string, unknown>>;
  /** Whether Workroom could not be reached, and this is what it told before. */
  readonly stale: boolean;
  hasScope(scope: string): boolean;
  remaining(name: string): number | null;
  require(needs?: Needs): Identity;
}

export interface Options {
  /** How long an answer is good: 10. */
  cacheSeconds?: number;
  /** The same of tokens that are not valid: 5. */
  negativeSeconds?: number;
  /** How many tokens are remembered: 10,000. */
  cacheSize?: number;
  /** Seconds that Workroom may take to answer: 2. */
  timeout?: number;
  /** What to do while Workroom cannot be reached: "refuse". */
  onOutage?: "refuse" | "serveStale";
  /** For how long after `cacheSeconds` stale identities are served: 300. */
  staleSeconds?: number;
  /** After so many failures in a row Workroom is not asked: 5, */
  breakerFailures?: number;
  /** for so long: 5. */
  breakerSeconds?: number;
  /** How often usage is reported: 5. */
  reportSeconds?: number;
}

type Middleware = (
  req: IncomingMessage & { identity?: Identity },
  res: ServerResponse,
  next: (error?: unknown) => void,
) => unknown;

export class WorkroomAuth {
  constructor(url: string, serviceKey: string, options?: Options);
  check(token: string | undefined, from?: { clientIp?: string }): Promise<Identity>;
  middleware(options?: { public?: string[] }): Middleware;
  report(subject: Identity | string, kind: string, amount?: number): boolean;
  flush(): Promise<boolean>;
  forget(sid: string): void;
  forgetUser(sub: string): void;
  forgetAll(): void;
  close(): Promise<void>;
}

export function require(needs: Needs): Middleware;
