import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, beforeEach, test } from "node:test";
import { AuthError, Identity, WorkroomAuth, require } from "../index.js";

const SERVICE_KEY = "wrs_000000000000_secret";
const KEY = "wr_000000000000_000000000000000000000000000000004M0v2D";
const SUB = "01900000-0000-7000-8000-000000000001";
const SID = "01900000-0000-7000-8000-000000000002";
const ACTIVE = { active: true, sub: SUB, sid: SID, kind: "user", username: "ada", scope: "*" };

let asked = [];
let answers = {};
let status = 200;
let reports = [];

const fake = createServer(async (req, res) => {
  let body = "";
  for await (const chunk of req) body += chunk;
  assert.equal(req.headers.authorization, `Bearer ${SERVICE_KEY}`);
  if (req.url === "/api/v1/usage/report") {
    if (status === 200) reports.push(...JSON.parse(body).reports);
    res.writeHead(status).end("{}");
    return;
  }
  const form = Object.fromEntries(new URLSearchParams(body));
  asked.push(form);
  res.writeHead(status).end(JSON.stringify(answers[form.token] ?? { active: false }));
});
await new Promise((done) => fake.listen(0, "127.0.0.1", done));
const url = `http://127.0.0.1:${fake.address().port}`;
after(() => fake.close(() => {}) && fake.closeAllConnections());

beforeEach(() => {
  asked = [];
  answers = { token: ACTIVE };
  status = 200;
  reports = [];
});

const connect = (options) => new WorkroomAuth(url, SERVICE_KEY, options);
const refusedWith = (code) => (error) => error instanceof AuthError && error.status === code;

test("an answer is asked for once, by however many at once", async () => {
  const auth = connect();
  const found = await Promise.all([1, 2, 3].map(() => auth.check("token")));
  await auth.check("token");
  assert.deepEqual(found.map((identity) => identity.username), ["ada", "ada", "ada"]);
  assert.equal(asked.length, 1);
});

test("refusals are remembered too", async () => {
  const auth = connect();
  await assert.rejects(auth.check("wrong"), refusedWith(401));
  await assert.rejects(auth.check("wrong"), refusedWith(401));
  assert.equal(asked.length, 1);
});

test("what cannot be a token is not asked about", async () => {
  const auth = connect();
  for (const token of [undefined, "", "wr_wrong", `${KEY.slice(0, -1)}0`, SERVICE_KEY]) {
    await assert.rejects(auth.check(token), refusedWith(401));
  }
  assert.deepEqual(asked, []);
});

test("a key is another one from each address", async () => {
  answers[KEY] = ACTIVE;
  const auth = connect();
  for (const clientIp of ["203.0.113.1", "203.0.113.1", "203.0.113.2"]) {
    await auth.check(KEY, { clientIp });
  }
  assert.deepEqual(asked.map((form) => form.client_ip), ["203.0.113.1", "203.0.113.2"]);
});

test("the cache is bounded and old answers are asked for anew", async () => {
  const auth = connect({ cacheSize: 1 });
  answers.other = ACTIVE;
  for (const token of ["token", "other", "token"]) await auth.check(token);
  assert.equal(asked.length, 3);
  const forgetful = connect({ cacheSeconds: 0 });
  await forgetful.check("token");
  answers = {};
  await assert.rejects(forgetful.check("token"), refusedWith(401));
});

test("it fails closed, or serves whom it knew", async () => {
  const closed = connect({ cacheSeconds: 0 });
  const lenient = connect({ cacheSeconds: 0, onOutage: "serveStale" });
  for (const auth of [closed, lenient]) await auth.check("token");
  status = 500;
  await assert.rejects(closed.check("token"), refusedWith(503));
  assert.equal((await lenient.check("token")).stale, true);
  await assert.rejects(lenient.check("never seen"), refusedWith(503));
});

test("a refused service key is no outage", async () => {
  const auth = connect({ cacheSeconds: 0, onOutage: "serveStale" });
  await auth.check("token");
  status = 401;
  await assert.rejects(auth.check("token"), refusedWith(503));
  await assert.rejects(auth.check("token"), refusedWith(503));
});

test("who does not answer is left in peace", async () => {
  status = 500;
  const auth = connect({ breakerFailures: 3, breakerSeconds: 60 });
  for (let n = 0; n < 10; n += 1) await assert.rejects(auth.check("token"), refusedWith(503));
  assert.equal(asked.length, 3);
});

test("what is forgotten is asked anew", async () => {
  const auth = connect();
  for (const forget of [() => auth.forget(SID), () => auth.forgetUser(SUB), () => auth.forgetAll()]) {
    await auth.check("token");
    forget();
  }
  await auth.check("token");
  assert.equal(asked.length, 4);
});

test("scopes, plans and limits", () => {
  const limits = { conversations: { limit: 5, remaining: 0 }, credits: { monthly: null, balance: 0 } };
  const key = new Identity({ ...ACTIVE, scope: "ext:a", plan: "free", limits });
  assert.equal(key.require({ scopes: ["ext:a"], plans: ["free"], left: ["credits"] }), key);
  assert.throws(() => key.require({ scopes: ["ext:b"] }), refusedWith(403));
  assert.throws(() => key.require({ plans: ["pro"] }), refusedWith(403));
  assert.throws(() => key.require({ left: ["conversations"] }), refusedWith(429));
});

test("reports go out once, and again where they were not taken", async () => {
  const auth = connect({ reportSeconds: 3600 });
  auth.report(SUB, "pages", 3);
  status = 503;
  assert.equal(await auth.flush(), false);
  status = 200;
  await auth.close();
  assert.deepEqual(reports.map(({ kind, amount }) => [kind, amount]), [["pages", 3]]);
  assert.throws(() => auth.report(SUB, "Pages"), TypeError);
});

test("middleware lets in, refuses, and knows public paths", async () => {
  const auth = connect();
  const chain = [
    auth.middleware({ public: ["/", "/static/*"] }),
    (req, res, next) => (req.url === "/admin" ? require({ scopes: ["ext:x"] })(req, res, next) : next()),
  ];
  answers.key = { ...ACTIVE, scope: "" };
  const app = createServer((req, res) => {
    const run = (n) => (chain[n] ? chain[n](req, res, () => run(n + 1)) : res.end(req.identity?.sub));
    run(0);
  });
  await new Promise((done) => app.listen(0, "127.0.0.1", done));
  const get = async (path, headers = {}) =>
    (await fetch(`http://127.0.0.1:${app.address().port}${path}`, { headers })).status;
  const bearer = { authorization: "Bearer token" };

  assert.equal(await get("/private", bearer), 200);
  assert.equal(await get("/private", { "x-api-key": "token" }), 200);
  assert.equal(await get("/private"), 401);
  assert.equal(await get("/private", { authorization: "Basic token" }), 401);
  assert.equal(await get("/"), 200);
  assert.equal(await get("/static/a.css"), 200);
  assert.equal(await get("/static"), 401);
  assert.equal(await get("/static/%2e%2e/private"), 401);
  assert.equal(await get("/admin", { "x-api-key": "key" }), 403);
  assert.equal(await get("/admin", bearer), 200);
  app.close();
  app.closeAllConnections();
});
