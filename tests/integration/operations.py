"""Every operation of the API: who may call it, and a request that it takes.

A route that is not listed here fails `test_authorization.py`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, get_args
from uuid import UUID

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from sqlalchemy import update

from app.models import Message
from app.schemas.desk import Permission
from tests.client import Answer, Client
from tests.conftest import Server

PASSWORD = "a long pass phrase"
PERMISSIONS = get_args(Permission)


@dataclass(frozen=True)
class Things:
    """What one user has, to be named in requests."""

    client: Client
    name: str
    user: str
    session: str
    chat: str
    question: str
    reply: str
    """It was stopped, so it can be continued."""
    apikey: str
    link: str
    """The token by which everybody may read the chat."""
    admin: Client
    """Has every permission."""
    staff: Client
    """Of level 3."""
    service: Client
    """An external application with a key of every scope."""
    servicekey: str
    """The id of another service key."""
    plan: str = "team"
    """That nobody has."""

    @property
    def email(self) -> str:
        return f"{self.name}@example.com"

    @property
    def secrets(self) -> set[str]:
        """What no answer to anybody else may hold."""
        ids = {
            self.user,
            self.session,
            self.chat,
            self.question,
            self.reply,
            self.apikey,
        }
        return ids | {self.email, f"The chat of {self.name}", f"asked by {self.name}"}


Request = dict[str, Any]
"""The arguments of a request: `json`, `data`, `params`."""


def _nothing(_things: Things) -> Request:
    return {}


@dataclass(frozen=True)
class Operation:
    """`build` makes a request that is right for who owns the things.

    Users may call it, unless one of the last four says otherwise.
    """

    method: str
    path: str
    """With the names of `Things` in braces."""
    status: int = 200
    build: Callable[[Things], Request] = _nothing
    public: bool = field(default=False, kw_only=True)
    admin: str | None = field(default=None, kw_only=True)
    """The permission that an admin needs; "" where any admin may."""
    staff: int | None = field(default=None, kw_only=True)
    """The level that support staff needs."""
    service: bool = field(default=False, kw_only=True)
    """For external applications, each with a service key."""

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def names_things(self) -> bool:
        return "{" in self.path

    def proper(self, things: Things) -> Client:
        """Who may call it."""
        if self.admin is not None:
            return things.admin
        if self.service:
            return things.service
        return things.client if self.staff is None else things.staff

    async def send(self, client: Client, things: Things, **changes: Any) -> Answer:
        path = self.path.format(**vars(things))
        return await send(client, self.method, path, **(self.build(things) | changes))


async def send(client: Client, method: str, path: str, **options: Any) -> Answer:
    """Send a request; `path` is the whole one, and redirects are not followed."""
    headers = {**client.headers, **options.pop("headers", {})}
    async with client._session.request(
        method, client.url + path, headers=headers, allow_redirects=False, **options
    ) as response:
        return Answer(response.status, response.headers, await response.read())


def _registration(things: Things) -> Request:
    return {"json": {"email": f"new-{things.name}@example.com", "password": PASSWORD}}


def _login(things: Things) -> Request:
    return {"json": {"login": things.email, "password": PASSWORD}}


def _login_form(things: Things) -> Request:
    return {"data": {"username": things.email, "password": PASSWORD}}


def _refresh(things: Things) -> Request:
    return {"json": {"refresh_token": things.client.tokens["refresh_token"]}}


def _new_password(_things: Things) -> Request:
    return {
        "json": {"current_password": PASSWORD, "new_password": "another pass phrase"}
    }


def _profile(_things: Things) -> Request:
    return {"json": {"full_name": "Somebody New"}}


def _own_deletion(_things: Things) -> Request:
    return {"json": {"password": PASSWORD}}


def _new_chat(_things: Things) -> Request:
    return {"json": {"title": "New", "system_prompt": "Be brief."}}


def _chat_changes(_things: Things) -> Request:
    return {"json": {"title": "Changed", "archived": True}}


def _question(_things: Things) -> Request:
    return {"json": {"content": "What is the guide?"}}


def _leaf(things: Things) -> Request:
    return {"params": {"leaf": things.reply}}


def _fork(things: Things) -> Request:
    return {"json": {"message_id": things.reply}}


def _rating(_things: Things) -> Request:
    return {"json": {"value": 1, "comment": "Well said."}}


def _introspection(things: Things) -> Request:
    return {"data": {"token": things.client.tokens["access_token"]}}


def _usage_report(things: Things) -> Request:
    return {"json": {"subject": things.user, "kind": "documents", "amount": 3}}


def _new_service_key(_things: Things) -> Request:
    return {"json": {"name": "another application", "scopes": ["introspect"]}}


def _new_key(_things: Things) -> Request:
    return {"json": {"name": "a script", "scopes": ["chats:read"]}}


def _key_changes(_things: Things) -> Request:
    return {"json": {"name": "another script"}}


def _admin_refresh(things: Things) -> Request:
    return {"json": {"refresh_token": things.admin.tokens["refresh_token"]}}


def _staff_refresh(things: Things) -> Request:
    return {"json": {"refresh_token": things.staff.tokens["refresh_token"]}}


def _new_plan(_things: Things) -> Request:
    return {"json": {"name": "small", "daily_conversations": 10, "models": ["guide/*"]}}


def _assignment(_things: Things) -> Request:
    return {"json": {"plan": "pro"}}


def _limits(_things: Things) -> Request:
    return {"json": {"daily_conversations": 5000}}


def _credits(_things: Things) -> Request:
    return {"json": {"amount": 1_000_000, "note": "A present."}}


def _desk_login(_things: Things) -> Request:
    return {"json": {"login": DESK_LOGIN, "password": PASSWORD}}


V1 = "/api/v1"
DESK_LOGIN = "doorkeeper"
"""The username of an admin, and of a member of the staff, in every test."""
OPERATIONS = [
    Operation("GET", "/", public=True),
    Operation("GET", "/docs", public=True),
    Operation("GET", "/docs/oauth2-redirect", public=True),
    Operation("GET", "/redoc", public=True),
    Operation("GET", "/openapi.json", public=True),
    Operation("GET", "/health/live", public=True),
    Operation("GET", "/health/ready", public=True),
    # These two tell more to loopback or METRICS_TOKEN: see test_http.py.
    Operation("GET", "/health", public=True),
    Operation("GET", "/metrics", public=True),
    Operation("GET", "/shared/{link}", public=True),
    Operation("GET", V1 + "/shared/{link}", public=True),
    Operation("POST", f"{V1}/auth/register", 201, _registration, public=True),
    Operation("POST", f"{V1}/auth/login", 200, _login, public=True),
    Operation("POST", f"{V1}/auth/token", 200, _login_form, public=True),
    Operation("POST", f"{V1}/auth/refresh", 200, _refresh, public=True),
    Operation("POST", f"{V1}/auth/logout", 204, _refresh, public=True),
    Operation("POST", f"{V1}/auth/change-password", 204, _new_password),
    Operation("GET", f"{V1}/auth/me"),
    Operation("GET", f"{V1}/auth/sessions"),
    Operation("DELETE", V1 + "/auth/sessions/{session}", 204),
    Operation("GET", f"{V1}/users/me"),
    Operation("PATCH", f"{V1}/users/me", 200, _profile),
    Operation("POST", f"{V1}/auth/introspect", 200, _introspection, service=True),
    Operation("POST", f"{V1}/usage/report", 200, _usage_report, service=True),
    Operation(
        "POST", f"{V1}/admin/service-keys", 201, _new_service_key, admin="settings"
    ),
    Operation("GET", f"{V1}/admin/service-keys", admin="settings"),
    Operation("DELETE", V1 + "/admin/service-keys/{servicekey}", 204, admin="settings"),
    Operation("POST", f"{V1}/apikeys", 201, _new_key),
    Operation("GET", f"{V1}/apikeys"),
    Operation("PATCH", V1 + "/apikeys/{apikey}", 200, _key_changes),
    Operation("POST", V1 + "/apikeys/{apikey}/rotate"),
    Operation("DELETE", V1 + "/apikeys/{apikey}", 204),
    Operation("DELETE", f"{V1}/users/me", 204, _own_deletion),
    Operation("GET", f"{V1}/users/me/export"),
    Operation("POST", f"{V1}/chats", 201, _new_chat),
    Operation("GET", f"{V1}/chats"),
    Operation("GET", V1 + "/chats/{chat}"),
    Operation("PATCH", V1 + "/chats/{chat}", 200, _chat_changes),
    Operation("DELETE", V1 + "/chats/{chat}", 204),
    Operation("POST", V1 + "/chats/{chat}/fork", 201, _fork),
    Operation("GET", V1 + "/chats/{chat}/export"),
    Operation("POST", V1 + "/chats/{chat}/share", 201),
    Operation("DELETE", V1 + "/chats/{chat}/share", 204),
    Operation("GET", V1 + "/chats/{chat}/messages", 200, _leaf),
    Operation("POST", V1 + "/chats/{chat}/messages", 200, _question),
    Operation("GET", V1 + "/messages/{reply}"),
    Operation("PATCH", V1 + "/messages/{question}", 200, _question),
    Operation("DELETE", V1 + "/messages/{reply}", 204),
    Operation("PUT", V1 + "/messages/{reply}/rating", 200, _rating),
    Operation("GET", V1 + "/messages/{reply}/stream"),
    Operation("POST", V1 + "/messages/{reply}/stop"),
    Operation("POST", V1 + "/messages/{reply}/continue"),
    Operation("POST", V1 + "/messages/{reply}/regenerate"),
    Operation("GET", f"{V1}/models"),
    Operation("GET", f"{V1}/usage"),
    Operation("GET", f"{V1}/usage/limits"),
    Operation("POST", f"{V1}/admin/auth/login", 200, _desk_login, public=True),
    Operation("POST", f"{V1}/admin/auth/refresh", 200, _admin_refresh, public=True),
    Operation("POST", f"{V1}/admin/auth/logout", 204, _admin_refresh, public=True),
    Operation("GET", f"{V1}/admin/auth/me", admin=""),
    Operation("GET", f"{V1}/admin/plans", admin="plans"),
    Operation("POST", f"{V1}/admin/plans", 201, _new_plan, admin="plans"),
    Operation("GET", V1 + "/admin/plans/{plan}", admin="plans"),
    Operation("PATCH", V1 + "/admin/plans/{plan}", 200, _limits, admin="plans"),
    Operation("DELETE", V1 + "/admin/plans/{plan}", 204, admin="plans"),
    Operation("PUT", V1 + "/admin/users/{user}/plan", 204, _assignment, admin="plans"),
    Operation("GET", V1 + "/admin/users/{user}/limits", admin="plans"),
    Operation("PUT", V1 + "/admin/users/{user}/limits", 204, _limits, admin="plans"),
    Operation("POST", V1 + "/admin/users/{user}/limits/reset", 204, admin="plans"),
    Operation("GET", V1 + "/admin/users/{user}/credits", admin="credits"),
    Operation(
        "POST", V1 + "/admin/users/{user}/credits", 204, _credits, admin="credits"
    ),
    Operation("GET", V1 + "/staff/users/{user}/limits", staff=1),
    Operation("POST", V1 + "/staff/users/{user}/limits/reset", 204, staff=2),
    Operation("POST", V1 + "/staff/users/{user}/credits", 204, _credits, staff=3),
    Operation("POST", f"{V1}/staff/auth/login", 200, _desk_login, public=True),
    Operation("POST", f"{V1}/staff/auth/refresh", 200, _staff_refresh, public=True),
    Operation("POST", f"{V1}/staff/auth/logout", 204, _staff_refresh, public=True),
    Operation("GET", f"{V1}/staff/auth/me", staff=1),
]
PUBLIC = [o for o in OPERATIONS if o.public]
ADMINS = [o for o in OPERATIONS if o.admin is not None]
STAFF = [o for o in OPERATIONS if o.staff is not None]
SERVICES = [o for o in OPERATIONS if o.service]
_OF_OTHERS = (*PUBLIC, *ADMINS, *STAFF, *SERVICES)
PRIVATE = [o for o in OPERATIONS if o not in _OF_OTHERS]
GUARDED = [*PRIVATE, *ADMINS, *STAFF, *SERVICES]


def routes_of(app: FastAPI) -> set[str]:
    """Every route as `METHOD /path/{}`; HEAD comes with GET."""
    return {
        nameless(f"{method} {route.path}")
        for route in iter_route_contexts(app.routes)
        for method in (route.methods or {"ANY"}) - {"HEAD"}
    }


def listed_routes() -> set[str]:
    return {nameless(operation.name) for operation in OPERATIONS}


def nameless(route: str) -> str:
    """Our table names things, the routes name parameters."""
    return re.sub(r"\{[^}]*\}", "{}", route)


async def make_things(server: Server, name: str) -> Things:
    """A new user with a chat in which a reply was stopped."""
    client = await server.client(name)
    chat = await client.chat(title=f"The chat of {name}")
    events = await client.ask(chat, f"What is the guide? asked by {name}")
    reply = events[0].data["message_id"]
    async with server.runtime.database.unit_of_work() as session:
        await session.execute(
            update(Message).where(Message.id == UUID(reply)).values(status="stopped")
        )
    share = await client.post(f"/chats/{chat}/share")
    sessions = await client.get("/auth/sessions")
    key = await client.post("/apikeys", json={"name": "a script"})
    me = await client.get("/auth/me")
    return Things(
        client=client,
        name=name,
        user=me.json["id"],
        session=sessions.json["items"][0]["id"],
        chat=chat,
        question=events[0].data["user_message_id"],
        reply=reply,
        apikey=key.json["id"],
        link=share.json["token"],
        admin=await server.admin(*PERMISSIONS, name=DESK_LOGIN),
        staff=await server.staff(3, name=DESK_LOGIN),
        service=await server.service("introspect", "report"),
        servicekey=str((await server.service_key("introspect")).id),
    )
