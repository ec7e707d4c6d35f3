"""Every operation of the API: who may call it, and a request that it takes.

A route that is not listed here fails `test_authorization.py`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from secrets import token_bytes
from typing import Any

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from app.api.shortcuts import QuickRoute
from tests.client import Answer, Client, file_form
from tests.conftest import desk_form
from tests.integration.things import (
    PASSWORD,
    Things,
    keeper,
    nobodys_address,
)

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
    everybodys: bool = field(default=False, kw_only=True)
    """What it names is nobody's own."""

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def names_things(self) -> bool:
        return "{" in self.path and not self.everybodys

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


def _address(things: Things) -> Request:
    return {"json": {"email": things.email}}


def _another_address(things: Things) -> Request:
    return {"json": {"email": f"moved-{things.name}@example.com"}}


def _verify_link(things: Things) -> Request:
    form = {"token": things.verify_link, "password": "a long pass phrase"}
    return {"json": form}


def _reset_link(things: Things) -> Request:
    return {"json": {"token": things.reset_link, "password": "another pass phrase"}}


def _same_password(_things: Things) -> Request:
    """Of an account that others log in to as well."""
    return {"json": {"current_password": PASSWORD, "new_password": PASSWORD}}


def _profile(_things: Things) -> Request:
    return {"json": {"full_name": "Somebody New"}}


def _own_deletion(_things: Things) -> Request:
    return {"json": {"password": PASSWORD}}


def _reason(_things: Things) -> Request:
    return {"json": {"reason": "They asked for it."}}


def _new_chat(_things: Things) -> Request:
    return {"json": {"title": "New", "system_prompt": "Be brief."}}


def _chat_changes(_things: Things) -> Request:
    return {"json": {"title": "Changed", "archived": True}}


def _question(_things: Things) -> Request:
    return {"json": {"content": "What is the guide?"}}


def _leaf(things: Things) -> Request:
    return {"params": {"leaf": things.reply}}


def _gateway_call(things: Things) -> Request:
    messages = [{"role": "user", "content": "What is the guide?"}]
    return {"json": {"model": things.model, "max_tokens": 9, "messages": messages}}


def _gateway_input(things: Things) -> Request:
    return {"json": {"model": things.model, "input": "What is the guide?"}}


def _fork(things: Things) -> Request:
    return {"json": {"message_id": things.reply}}


def _rating(_things: Things) -> Request:
    return {"json": {"value": 1, "comment": "Well said."}}


def _upload(_things: Things) -> Request:
    return {"data": file_form(token_bytes(9).hex().encode(), "note.txt")}


def _file_name(_things: Things) -> Request:
    return {"json": {"name": "renamed.txt"}}


def _new_project(_things: Things) -> Request:
    return {"json": {"name": "New", "instructions": "Be exact."}}


def _project_changes(_things: Things) -> Request:
    return {"json": {"name": "Changed", "archived": True}}


def _new_member(things: Things) -> Request:
    return {"json": {"email": things.newcomer, "role": "editor"}}


def _role(_things: Things) -> Request:
    return {"json": {"role": "editor"}}


def _new_document(_things: Things) -> Request:
    return {"json": {"title": "New", "text": "What is new."}}


def _new_text(_things: Things) -> Request:
    return {"json": {"text": "What is newer."}}


def _words(_things: Things) -> Request:
    return {"params": {"q": "What is the guide?"}}


def _introspection(things: Things) -> Request:
    return {"data": {"token": things.client.tokens["access_token"]}}


def _usage_report(things: Things) -> Request:
    return {"json": {"subject": things.user, "kind": "documents", "amount": 3}}


def _new_service_key(_things: Things) -> Request:
    return {"json": {"name": "another application", "scopes": ["introspect"]}}


def _new_key(_things: Things) -> Request:
    return {"json": {"name": "a script", "scopes": ["read"]}}


def _leak(_things: Things) -> Request:
    return {"json": {"key": "found somewhere", "url": "https://example.com/notes"}}


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


def _desk_login(things: Things) -> Request:
    return {"json": {"login": keeper(things.name), "password": PASSWORD}}


def _new_user(things: Things) -> Request:
    return {"json": {"email": f"made-{things.name}@example.com"}}


def _new_users(things: Things) -> Request:
    return {
        "data": f"email,full_name\nmade-{things.name}@example.com,Somebody\n",
        "headers": {"Content-Type": "text/csv"},
    }


def _new_staff(things: Things) -> Request:
    return {"json": desk_form(f"new-{things.name}") | {"level": 1}}


def _level(_things: Things) -> Request:
    return {"json": {"level": 2}}


def _new_ip_rule(_things: Things) -> Request:
    return {"json": {"network": nobodys_address(), "action": "deny"}}


def _new_model(things: Things) -> Request:
    return {"json": {"name": f"guide/new-{things.name}", "prices": None}}


def _new_route(things: Things) -> Request:
    return {
        "json": {
            "name": f"new-{things.name}",
            "deployments": [{"model": "guide/manual"}],
        }
    }


def _fallbacks(_things: Things) -> Request:
    return {"json": {"fallbacks": []}}


def _window(_things: Things) -> Request:
    return {"json": {"context_window": 50_000}}


def _setting(_things: Things) -> Request:
    return {"json": {"message_log_days": 30}}


def _keeping(_things: Things) -> Request:
    return {"json": {"keep_text": False}}


def _new_admin(things: Things) -> Request:
    return {"json": desk_form(f"new-{things.name}") | {"permissions": []}}


V1 = "/api/v1"


def _otp(_things: Things) -> Request:
    return {"json": {"otp": "000000"}}


def _second_factor(desk: str, **who: Any) -> list[Operation]:
    """Right in form: what a right code does is told in test_mfa.py."""
    mfa = f"{V1}{desk}/auth/mfa"
    return [
        Operation("GET", mfa, **who),
        Operation("POST", f"{mfa}/totp/enroll", **who),
        Operation("POST", f"{mfa}/totp/confirm", 409, _otp, **who),
        Operation("POST", f"{mfa}/totp/disable", 422, _otp, **who),
    ]


def _code(_things: Things) -> Request:
    return {"json": {"code": "code"}}


def _state(_things: Things) -> Request:
    return {"params": {"state": "state", "code": "code"}}


def _provider(path: str) -> list[Operation]:
    path = f"{V1}/auth/{path}"
    return [
        Operation("GET", f"{path}/login", 404, public=True),
        Operation("GET", f"{path}/callback", 404, _state, public=True),
        Operation("POST", f"{path}/exchange", 404, _code, public=True),
    ]


OPERATIONS = [
    Operation("GET", "/v1/models"),
    Operation("GET", "/v1/models/{model}", everybodys=True),
    Operation("POST", "/v1/chat/completions", 200, _gateway_call),
    Operation("POST", "/v1/responses", 200, _gateway_input),
    Operation("POST", "/v1/messages", 200, _gateway_call),
    Operation("POST", "/v1/messages/count_tokens", 200, _gateway_call),
    # Its one model makes none: a right request, but for that.
    Operation("POST", "/v1/embeddings", 400, _gateway_input),
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
    Operation("GET", "/verify-email", public=True),
    Operation("GET", "/reset-password", public=True),
    Operation("GET", "/forgot-password", public=True),
    Operation("GET", V1 + "/shared/{link}", public=True),
    Operation("POST", f"{V1}/auth/register", 201, _registration, public=True),
    Operation("POST", f"{V1}/auth/login", 200, _login, public=True),
    Operation("POST", f"{V1}/auth/token", 200, _login_form, public=True),
    Operation("POST", f"{V1}/auth/refresh", 200, _refresh, public=True),
    Operation("POST", f"{V1}/auth/logout", 204, _refresh, public=True),
    Operation("POST", f"{V1}/auth/verify-email", 200, _verify_link, public=True),
    Operation("POST", f"{V1}/auth/resend-verification", 202, _address, public=True),
    Operation("POST", f"{V1}/auth/forgot-password", 202, _address, public=True),
    Operation("POST", f"{V1}/auth/reset-password", 204, _reset_link, public=True),
    Operation("POST", f"{V1}/auth/change-email", 202, _another_address),
    Operation("POST", f"{V1}/auth/change-password", 204, _new_password),
    Operation("GET", f"{V1}/auth/me"),
    Operation("GET", f"{V1}/auth/sessions"),
    Operation("DELETE", V1 + "/auth/sessions/{session}", 204),
    *_second_factor(""),
    # None is configured here: see test_oidc.py.
    Operation("GET", f"{V1}/auth/oidc", public=True),
    *_provider("google"),
    *_provider("oidc/{name}"),
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
    Operation("POST", f"{V1}/apikeys/leaked", 202, _leak, public=True),
    Operation("PATCH", V1 + "/apikeys/{apikey}", 200, _key_changes),
    Operation("POST", V1 + "/apikeys/{apikey}/rotate"),
    Operation("DELETE", V1 + "/apikeys/{apikey}/previous", 204),
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
    Operation("POST", f"{V1}/files", 201, _upload),
    Operation("GET", f"{V1}/files"),
    Operation("GET", V1 + "/files/{file}"),
    Operation("PATCH", V1 + "/files/{file}", 200, _file_name),
    Operation("DELETE", V1 + "/files/{file}", 204),
    Operation("GET", V1 + "/files/{file}/content"),
    Operation("GET", V1 + "/files/{file}/thumbnail"),
    Operation("GET", V1 + "/files/{file}/text"),
    # A folder has no addresses: a right request, but for that.
    Operation("GET", V1 + "/files/{file}/download-url", 409),
    Operation("POST", f"{V1}/projects", 201, _new_project),
    Operation("GET", f"{V1}/projects"),
    Operation("GET", V1 + "/projects/{project}"),
    Operation("PATCH", V1 + "/projects/{project}", 200, _project_changes),
    Operation("DELETE", V1 + "/projects/{project}", 204),
    Operation("GET", V1 + "/projects/{project}/members"),
    Operation("POST", V1 + "/projects/{project}/members", 201, _new_member),
    Operation("PATCH", V1 + "/projects/{project}/members/{member}", 200, _role),
    Operation("DELETE", V1 + "/projects/{project}/members/{member}", 204),
    Operation("POST", V1 + "/projects/{project}/documents", 201, _new_document),
    Operation("GET", V1 + "/projects/{project}/documents"),
    Operation("GET", V1 + "/projects/{project}/documents/{document}"),
    Operation("PATCH", V1 + "/projects/{project}/documents/{document}", 200, _new_text),
    Operation("DELETE", V1 + "/projects/{project}/documents/{document}", 204),
    Operation("GET", V1 + "/projects/{project}/search", 200, _words),
    Operation("GET", V1 + "/projects/{project}/context", 200, _words),
    Operation("GET", V1 + "/chats/{chat}/context", 200, _words),
    Operation("GET", f"{V1}/models"),
    Operation("GET", V1 + "/models/{model}", everybodys=True),
    Operation("POST", f"{V1}/models", 201, _new_model, admin="models"),
    Operation("PATCH", V1 + "/models/{registered}", 200, _window, admin="models"),
    Operation("DELETE", V1 + "/models/{registered}", 204, admin="models"),
    Operation("GET", f"{V1}/admin/models", admin="models"),
    Operation("GET", f"{V1}/admin/routes", admin="models"),
    Operation("POST", f"{V1}/admin/routes", 201, _new_route, admin="models"),
    Operation("GET", V1 + "/admin/routes/{route}", admin="models"),
    Operation("PATCH", V1 + "/admin/routes/{route}", 200, _fallbacks, admin="models"),
    Operation("DELETE", V1 + "/admin/routes/{route}", 204, admin="models"),
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
    Operation("POST", V1 + "/admin/users/{user}/archive", 204, admin="users"),
    Operation("POST", V1 + "/admin/users/{user}/delete", 200, _reason, admin="users"),
    Operation("GET", f"{V1}/admin/deleted-users", admin="users"),
    Operation(
        "POST", f"{V1}/admin/auth/change-password", 204, _same_password, admin=""
    ),
    Operation("POST", f"{V1}/admin/users", 201, _new_user, admin="users"),
    Operation("GET", f"{V1}/admin/users", admin="users"),
    Operation("GET", f"{V1}/admin/users/export", admin="users"),
    Operation("POST", f"{V1}/admin/users/import", 201, _new_users, admin="users"),
    Operation("GET", V1 + "/admin/users/{user}", admin="users"),
    Operation("POST", V1 + "/admin/users/{user}/suspend", admin="users"),
    Operation("POST", V1 + "/admin/users/{user}/resend", 202, admin="users"),
    Operation("POST", V1 + "/admin/users/{suspended}/activate", admin="users"),
    Operation("POST", V1 + "/admin/users/{user}/unlock", admin="users"),
    Operation("DELETE", V1 + "/admin/users/{user}/mfa", 204, admin="users"),
    Operation("POST", f"{V1}/admin/staff", 201, _new_staff, admin="staff"),
    Operation("GET", f"{V1}/admin/staff", admin="staff"),
    Operation("GET", V1 + "/admin/staff/{staff_account}", admin="staff"),
    Operation("PATCH", V1 + "/admin/staff/{staff_account}", 200, _level, admin="staff"),
    Operation("DELETE", V1 + "/admin/staff/{staff_account}", 204, admin="staff"),
    Operation("POST", f"{V1}/admin/admins", 201, _new_admin, admin="staff"),
    Operation("GET", f"{V1}/admin/admins", admin="staff"),
    Operation("GET", V1 + "/admin/admins/{admin_account}", admin="staff"),
    Operation(
        "PATCH", V1 + "/admin/admins/{admin_account}", 200, _profile, admin="staff"
    ),
    Operation("DELETE", V1 + "/admin/admins/{admin_account}", 204, admin="staff"),
    Operation("DELETE", V1 + "/admin/staff/{staff_account}/mfa", 204, admin="staff"),
    Operation("DELETE", V1 + "/admin/admins/{admin_account}/mfa", 204, admin="staff"),
    Operation("GET", f"{V1}/admin/jobs", admin="jobs"),
    Operation("POST", V1 + "/admin/jobs/{job}/rerun", admin="jobs"),
    Operation("GET", f"{V1}/admin/audit", admin="audit"),
    Operation("GET", f"{V1}/admin/settings", admin="settings"),
    Operation("PATCH", f"{V1}/admin/settings", 200, _setting, admin="settings"),
    Operation("GET", f"{V1}/admin/ip-rules", admin="settings"),
    Operation("POST", f"{V1}/admin/ip-rules", 201, _new_ip_rule, admin="settings"),
    Operation("DELETE", V1 + "/admin/ip-rules/{ip_rule}", 204, admin="settings"),
    Operation("GET", f"{V1}/admin/message-logs", admin="logs"),
    Operation("GET", f"{V1}/admin/message-logs/export", admin="logs"),
    Operation("GET", V1 + "/admin/message-logs/{message_log}", admin="logs"),
    Operation(
        "PUT", V1 + "/admin/users/{user}/message-logs", 200, _keeping, admin="logs"
    ),
    Operation("GET", f"{V1}/admin/stats", admin=""),
    Operation("GET", f"{V1}/admin/system-health", admin=""),
    Operation(
        "POST", V1 + "/admin/deleted-users/{deleted}/restore", 204, admin="users"
    ),
    Operation("POST", V1 + "/admin/deleted-users/{deleted}/erase", admin="users"),
    Operation("GET", f"{V1}/staff/deleted-users", staff=3),
    Operation("POST", V1 + "/staff/deleted-users/{deleted}/restore", 204, staff=3),
    Operation("POST", f"{V1}/staff/auth/login", 200, _desk_login, public=True),
    Operation("POST", f"{V1}/staff/auth/refresh", 200, _staff_refresh, public=True),
    Operation("POST", f"{V1}/staff/auth/logout", 204, _staff_refresh, public=True),
    Operation("GET", f"{V1}/staff/auth/me", staff=1),
    *_second_factor("/admin", admin=""),
    *_second_factor("/staff", staff=1),
    Operation("POST", f"{V1}/staff/auth/change-password", 204, _same_password, staff=1),
    Operation("GET", f"{V1}/staff/users", staff=1),
    Operation("GET", V1 + "/staff/users/{user}", staff=1),
    Operation("POST", V1 + "/staff/users/{user}/resend", 202, staff=2),
    Operation("POST", V1 + "/staff/users/{user}/suspend", staff=3),
    Operation("POST", V1 + "/staff/users/{suspended}/activate", staff=3),
    Operation("POST", V1 + "/staff/users/{user}/unlock", staff=2),
    Operation("GET", f"{V1}/staff/message-logs", staff=3),
    Operation("GET", V1 + "/staff/message-logs/{message_log}", staff=3),
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
        if not isinstance(route.original_route, QuickRoute)  # to those that are listed
        for method in (route.methods or {"ANY"}) - {"HEAD"}
    }


def listed_routes() -> set[str]:
    return {nameless(operation.name) for operation in OPERATIONS}


def nameless(route: str) -> str:
    """Our table names things, the routes name parameters."""
    return re.sub(r"\{[^}]*\}", "{}", route)
