/** Accounts of a Workroom installation for Express and other Node servers. */

import { createHash, randomUUID } from "node:crypto";

const DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const KEY = /^wr_[0-9A-Za-z]{12}_[0-9A-Za-z]{38}$/;
const CHECKSUM = 6;
const LONGEST_TOKEN = 4096;
const BATCH = 500;
const MOST_REPORTS = 100_000;
const TITLES = {
  401: ["unauthenticated", "Authentication required"],
  403: ["forbidden", "Not allowed"],
  429: ["limit_exceeded", "Limit exceeded"],
  503: ["auth_unavailable", "Authentication unavailable"],
};

/** A refusal: `status`, `headers` and `body` are the answer to send. */
export class AuthError extends Error {
  constructor(status, detail, retryAfter) {
    super(detail);
    this.name = "AuthError";
    this.status = status;
    this.headers = { "Content-Type": "application/problem+json" };
    if (status === 401) this.headers["WWW-Authenticate"] = "Bearer";
    if (status === 503) this.headers["Retry-After"] = String(retryAfter ?? 5);
    const [code, title] = TITLES[status];
    this.body = JSON.stringify({ type: "about:blank", title, status, detail, code });
  }
}

/** Who asks, as Workroom told it. */
export class Identity {
  constructor(told, { stale = false } = {}) {
    this.sub = told.sub;
    this.sid = told.sid;
    this.username = told.username ?? null;
    this.plan = told.plan ?? null;
    this.scopes = new Set(told.scope.split(" ").filter(Boolean));
    this.expiresAt = told.exp ?? null;
    this.limits = told.limits ?? {};
    this.stale = stale;
    this.told = told;
    Object.freeze(this);
  }

  hasScope(scope) {
    return this.scopes.has(scope) || this.scopes.has("*");
  }

  /** What is left of `conversations` or `credits`; null is without limit. */
  remaining(name) {
    const limit = this.limits[name];
    if (limit === null || typeof limit !== "object") return null;
    const most = "monthly" in limit ? limit.monthly : limit.limit;
    return (most ?? null) === null ? null : (limit.balance ?? limit.remaining ?? 0);
  }

  /** Throws an AuthError unless it has all `scopes`, one of `plans`, and some `left`. */
  require({ scopes = [], plans = [], left = [] } = {}) {
    for (const scope of scopes) {
      if (!this.hasScope(scope)) {
        throw new AuthError(403, `This API key lacks the scope ${scope}.`);
      }
    }
    if (plans.length > 0 && !plans.includes(this.plan)) {
      throw new AuthError(403, `This needs one of the plans: ${plans.join(", ")}.`);
    }
    for (const name of left) {
      const amount = this.remaining(name);
      if (amount !== null && amount <= 0) {
        throw new AuthError(429, `Nothing is left of your ${name}.`);
      }
    }
    return this;
  }
}

/** Asks Workroom whose a token is, and remembers the answer for a moment. */
export class WorkroomAuth {
  #base;
  #headers;
  #options;
  #cache = new Map(); // its order is that of use
  #flights = new Map();
  #generation = 0;
  #failures = 0;
  #opened = 0;
  #reports = [];
  #sending = null;
  #timer = null;

  constructor(url, serviceKey, options = {}) {
    if (!/^https?:\/\/[^/]/.test(url)) {
      throw new TypeError(`${url} is no address: write https://workroom.example`);
    }
    if (!serviceKey?.startsWith("wrs_")) {
      throw new TypeError("a service key begins with wrs_: ask an admin for one");
    }
    this.#base = url.replace(/\/+$/, "") + "/api/v1";
    this.#headers = { authorization: `Bearer ${serviceKey}` };
    this.#options = {
      cacheSeconds: 10,
      negativeSeconds: 5,
      cacheSize: 10_000,
      timeout: 2,
      onOutage: "refuse",
      staleSeconds: 300,
      breakerFailures: 5,
      breakerSeconds: 5,
      reportSeconds: 5,
      ...options,
    };
    if (!["refuse", "serveStale"].includes(this.#options.onOutage)) {
      throw new TypeError("onOutage is `refuse` or `serveStale`");
    }
  }

  /** Who sent the token, from that address; throws an AuthError. */
  async check(token, { clientIp } = {}) {
    if (!token) {
      throw new AuthError(401, "Send an access token: Authorization: Bearer ...");
    }
    if (!possible(token)) throw new AuthError(401, "This token is not valid.");
    // A key may be confined to networks, so it is another one from each address.
    const ip = token.startsWith("wr_") ? clientIp : undefined;
    const key = createHash("sha256").update(`${token}\n${ip}`).digest("base64");
    let entry = this.#cached(key);
    if (!entry || entry.freshUntil <= now()) entry = await this.#flight(key, token, ip);
    if (entry.failure) {
      throw new AuthError(503, entry.failure.message, entry.failure.retryAfter);
    }
    if (!entry.identity) throw new AuthError(401, "This token is not valid.");
    const { expiresAt } = entry.identity;
    if (expiresAt !== null && expiresAt <= Date.now() / 1000) {
      throw new AuthError(401, "This token has expired.");
    }
    return entry.identity;
  }

  /**
   * Middleware for Express and Connect: `req.identity` is who asks.
   *
   * Paths in `public` need no login; "/static/*" is all that lies below.
   */
  middleware({ public: paths = [] } = {}) {
    const isPublic = publicPaths(paths);
    return (req, res, next) => {
      const path = (req.originalUrl ?? req.url).split("?", 1)[0];
      if (isPublic(path)) return next();
      const clientIp = req.ip ?? req.socket.remoteAddress;
      return this.check(sent(req.headers), { clientIp }).then(
        (identity) => {
          req.identity = identity;
          next();
        },
        (error) => refuse(error, res, next),
      );
    };
  }

  /** Have `amount` of `kind` booked to a user; false where too much waits already. */
  report(subject, kind, amount = 1) {
    if (!/^[a-z][a-z0-9_.:-]{0,63}$/.test(kind)) {
      throw new TypeError(`${kind} is no kind: use small letters, such as pages`);
    }
    if (!Number.isSafeInteger(amount) || amount < 1) {
      throw new TypeError("an amount is a whole number of at least 1");
    }
    if (this.#reports.length >= MOST_REPORTS) return false;
    const sub = subject instanceof Identity ? subject.sub : subject;
    this.#reports.push({ subject: sub, kind, amount, id: randomUUID() });
    if (this.#reports.length >= BATCH) void this.flush();
    this.#timer ??= setTimeout(() => {
      this.#timer = null;
      void this.flush();
    }, this.#options.reportSeconds * 1000).unref();
    return true;
  }

  /** Send what is to be reported; false where Workroom does not take it now. */
  flush() {
    this.#sending ??= this.#send().finally(() => {
      this.#sending = null;
    });
    return this.#sending;
  }

  /** Ask anew about a session or key, about a user, about everything. */
  forget(sid) {
    this.#forget((identity) => identity.sid === sid);
  }

  forgetUser(sub) {
    this.#forget((identity) => identity.sub === sub);
  }

  forgetAll() {
    this.#forget(() => true);
  }

  async close() {
    clearTimeout(this.#timer);
    await this.flush();
  }

  #cached(key) {
    const entry = this.#cache.get(key);
    if (entry) {
      this.#cache.delete(key);
      this.#cache.set(key, entry);
    }
    return entry;
  }

  /** The question about a token: however many ask, it is asked once. */
  #flight(key, token, clientIp) {
    let flight = this.#flights.get(key);
    if (!flight) {
      flight = this.#ask(key, token, clientIp).finally(() => {
        if (this.#flights.get(key) === flight) this.#flights.delete(key);
      });
      this.#flights.set(key, flight);
    }
    return flight;
  }

  async #ask(key, token, clientIp) {
    const generation = this.#generation;
    const begun = now();
    const { cacheSeconds, negativeSeconds, cacheSize } = this.#options;
    let identity;
    try {
      identity = await this.#introspect(token, clientIp);
    } catch (failure) {
      return this.#stale(key) ?? { failure };
    }
    const freshUntil = begun + (identity ? cacheSeconds : negativeSeconds);
    const entry = { identity, freshUntil };
    if (generation === this.#generation) {
      this.#cache.set(key, entry);
      if (this.#cache.size > cacheSize) {
        this.#cache.delete(this.#cache.keys().next().value);
      }
    }
    return entry;
  }

  async #introspect(token, clientIp) {
    const { breakerFailures, breakerSeconds } = this.#options;
    if (this.#failures >= breakerFailures) {
      if (now() - this.#opened < breakerSeconds) {
        throw new Error("Workroom has not answered of late.");
      }
      this.#opened = now(); // the others wait for how this one goes
    }
    try {
      const form = new URLSearchParams({ token });
      if (clientIp) form.set("client_ip", clientIp);
      const told = await this.#post("/auth/introspect", form);
      const identity = told.active ? new Identity(told) : null;
      this.#failures = 0;
      return identity;
    } catch (error) {
      this.#failures += 1;
      this.#opened = now();
      throw error;
    }
  }

  async #post(path, body) {
    const headers = { ...this.#headers };
    if (typeof body === "string") headers["content-type"] = "application/json";
    let response;
    try {
      response = await fetch(this.#base + path, {
        method: "POST",
        headers,
        body,
        redirect: "error",
        signal: AbortSignal.timeout(this.#options.timeout * 1000),
      });
    } catch (error) {
      throw new Error("Workroom cannot be reached.", { cause: error });
    }
    if (response.ok) return response.json();
    await response.arrayBuffer(); // so that the connection can be kept
    if (response.status === 401 || response.status === 403) {
      // No outage: this application may not ask any more, nor live on memories.
      this.forgetAll();
      throw new Error("Workroom refuses this application's service key.");
    }
    const error = new Error(`Workroom answers with ${response.status}.`);
    error.retryAfter = Number(response.headers.get("retry-after")) || undefined;
    throw error;
  }

  #stale(key) {
    const { onOutage, staleSeconds } = this.#options;
    const entry = this.#cache.get(key);
    if (onOutage !== "serveStale" || !entry?.identity) return null;
    if (entry.freshUntil + staleSeconds <= now()) return null;
    return { identity: new Identity(entry.identity.told, { stale: true }) };
  }

  async #send() {
    while (this.#reports.length > 0) {
      const batch = this.#reports.slice(0, BATCH);
      try {
        await this.#post("/usage/report", JSON.stringify({ reports: batch }));
      } catch {
        this.#timer ??= setTimeout(() => {
          this.#timer = null;
          void this.flush();
        }, this.#options.reportSeconds * 1000).unref();
        return false;
      }
      this.#reports.splice(0, batch.length);
    }
    return true;
  }

  #forget(condition) {
    // What is being asked may tell of before; who comes now asks again.
    this.#generation += 1;
    this.#flights.clear();
    for (const [key, { identity }] of this.#cache) {
      if (identity ? condition(identity) : false) this.#cache.delete(key);
    }
  }
}

/** Middleware after `auth.middleware()`: only who fulfils `needs`, see Identity. */
export function require(needs) {
  return (req, res, next) => {
    try {
      if (!req.identity) throw new AuthError(401, "Nobody has logged in.");
      req.identity.require(needs);
    } catch (error) {
      refuse(error, res, next);
      return;
    }
    next();
  };
}

function refuse(error, res, next) {
  if (!(error instanceof AuthError)) {
    next(error);
    return;
  }
  res.writeHead(error.status, error.headers);
  res.end(error.body);
}

function sent(headers) {
  const { authorization } = headers;
  if (authorization) {
    const [scheme, token] = authorization.split(" ", 2);
    return scheme.toLowerCase() === "bearer" ? token : undefined;
  }
  return headers["x-api-key"];
}

function publicPaths(paths) {
  const exact = new Set(paths.filter((path) => !path.endsWith("/*")));
  const below = paths.filter((p) => p.endsWith("/*")).map((p) => p.slice(0, -1));
  return (path) =>
    exact.has(path) ||
    (below.some((start) => path.startsWith(start)) && !/(^|\/)\.\.(\/|$)|%2e|%2f|\\/i.test(path));
}

/** Whether a token may be one: a key with a wrong checksum never is. */
function possible(token) {
  if (token.length > LONGEST_TOKEN || token.startsWith("wrs_")) return false;
  if (!token.startsWith("wr_")) return true;
  return KEY.test(token) && checksum(token.slice(0, -CHECKSUM)) === token.slice(-CHECKSUM);
}

function checksum(body) {
  let crc = 0xffffffff;
  for (const byte of Buffer.from(body)) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit += 1) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  let number = (crc ^ 0xffffffff) >>> 0;
  let digits = "";
  for (let place = 0; place < CHECKSUM; place += 1) {
    digits = DIGITS[number % 62] + digits;
    number = Math.floor(number / 62);
  }
  return digits;
}

function now() {
  return performance.now() / 1000;
}
