"""What admins may do, each by a permission; the endpoints under /api/v1/admin."""

from fastapi import APIRouter

from app.api.v1.admin import (
    account,
    admins,
    audit,
    auth,
    ip_rules,
    message_logs,
    mfa,
    models,
    operations,
    plans,
    routes,
    servicekey,
    settings,
    staff,
    usage,
    users,
)

router = APIRouter(prefix="/admin", tags=["admin"])
for module in (
    auth,
    mfa,
    users,
    account,
    staff,
    admins,
    operations,
    audit,
    ip_rules,
    message_logs,
    models,
    plans,
    routes,
    servicekey,
    settings,
    usage,
):
    router.include_router(module.router)
