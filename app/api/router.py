"""Every router of the API: the only list of routes."""

from fastapi import APIRouter

from app.api.gateway import anthropic, models, openai
from app.api.v1 import (
    admin,
    apikey,
    auth,
    chat,
    context,
    file,
    health,
    home,
    introspection,
    link,
    message,
    mfa,
    model,
    oidc,
    project,
    share,
    staff,
    usage,
    user,
)

api = APIRouter(prefix="/api/v1")
for module in (
    auth,
    link,
    mfa,
    oidc,
    user,
    apikey,
    introspection,
    chat,
    message,
    context,
    file,
    project,
    model,
    share,
    usage,
    admin,
    staff,
):
    api.include_router(module.router)

root = APIRouter()
for module in (home, health):
    root.include_router(module.router)
root.include_router(share.page)
root.include_router(link.pages)
root.include_router(openai.router)
root.include_router(anthropic.router)
root.include_router(models.router)
root.include_router(api)
