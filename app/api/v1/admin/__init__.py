"""What admins may do, each by a permission; the endpoints under /api/v1/admin."""

from fastapi import APIRouter

from app.api.v1.admin import auth, plans, servicekey, usage

router = APIRouter(prefix="/admin", tags=["admin"])
for module in (auth, plans, servicekey, usage):
    router.include_router(module.router)
