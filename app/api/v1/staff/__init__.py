"""What support staff may do, by level; the endpoints under /api/v1/staff."""

from fastapi import APIRouter

from app.api.v1.staff import auth, usage

router = APIRouter(prefix="/staff", tags=["staff"])
for module in (auth, usage):
    router.include_router(module.router)
