"""Flask: `flask --app flask_app run`."""

import os

from flask import Flask
from workroom_auth import WorkroomAuth
from workroom_auth.flask import identity, protect, require

auth = WorkroomAuth(
    os.environ["WORKROOM_URL"],
    os.environ["WORKROOM_SERVICE_KEY"],
    cache_seconds=float(os.environ.get("CACHE_SECONDS", "10")),
)
app = Flask(__name__)
protect(app, auth, public=["/health"])


@app.get("/health")
def health() -> str:
    return "ok"


@app.get("/me")
def me() -> dict[str, str | None]:
    who = identity()
    return {"id": who.sub, "username": who.username, "plan": who.plan}


@app.post("/reports")
@require("ext:reports")
def write_report() -> dict[str, int]:
    auth.report(identity(), "reports")
    return {"written": 1}
