"""What admins may do, each by a permission; the endpoints under /api/v1/admin."""

from fastapi import APIRouter

from app.api.v1.admin import auth, servicekey

router = APIRouter(prefix="/admin", tags=["admin"])
for module in (auth, servicekey):
    router.include_router(module.router)
