"""What support staff may do, by level; the endpoints under /api/v1/staff."""

from fastapi import APIRouter

from app.api.v1.staff import account, auth, message_logs, mfa, usage, users

router = APIRouter(prefix="/staff", tags=["staff"])
for module in (auth, mfa, users, account, message_logs, usage):
    router.include_router(module.router)
