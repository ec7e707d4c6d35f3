/** Express: `npm install express workroom-auth`, then `node express_app.js`. */

import express from "express";
import { WorkroomAuth, require } from "workroom-auth";

const auth = new WorkroomAuth(
  process.env.WORKROOM_URL,
  process.env.WORKROOM_SERVICE_KEY,
  { cacheSeconds: Number(process.env.CACHE_SECONDS ?? 10), reportSeconds: 1 },
);
const app = express();
app.use(auth.middleware({ public: ["/health"] }));

app.get("/health", (_req, res) => res.send("ok"));

app.get("/me", ({ identity }, res) => {
  res.json({ id: identity.sub, username: identity.username, plan: identity.plan });
});

app.post("/reports", require({ scopes: ["ext:reports"] }), ({ identity }, res) => {
  auth.report(identity, "reports");
  res.json({ written: 1 });
});

app.listen(Number(process.env.PORT ?? 3000), "127.0.0.1");
