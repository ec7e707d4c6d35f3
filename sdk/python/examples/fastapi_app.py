"""FastAPI: `uvicorn fastapi_app:app`."""

import os
from typing import Annotated

from fastapi import Depends, FastAPI
from workroom_auth import Identity, WorkroomAuth
from workroom_auth.fastapi import require

auth = WorkroomAuth(
    os.environ["WORKROOM_URL"],
    os.environ["WORKROOM_SERVICE_KEY"],
    cache_seconds=float(os.environ.get("CACHE_SECONDS", "10")),
    redis_url=os.environ.get("WORKROOM_REDIS_URL"),
)
Me = Annotated[Identity, Depends(require(auth))]
Reporter = Annotated[Identity, Depends(require(auth, "ext:reports"))]

app = FastAPI()


@app.get("/health")
async def health() -> str:
    return "ok"


@app.get("/me")
async def me(identity: Me) -> dict[str, str | None]:
    return {"id": identity.sub, "username": identity.username, "plan": identity.plan}


@app.post("/reports")
async def write_report(identity: Reporter) -> dict[str, int]:
    auth.report(identity, "reports")
    return {"written": 1}
