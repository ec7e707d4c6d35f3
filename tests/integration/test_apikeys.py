"""API keys: K1, K2, and that a revoked one is refused everywhere at once."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import aiohttp
import pytest
from sqlalchemy import select, update

from app.core.database import utcnow
from app.core.keys import KeyKind, new_key
from app.models import ApiKey, AuditEvent, Job, User, UserSession
from app.services.apikey import MOST_KEYS
from tests.client import Client
from tests.conftest import Server, ServerFactory
from tests.integration.operations import PRIVATE
from tests.integration.test_statements import counted
from tests.integration.things import mailed_link, make_things

HEADERS = ("Authorization", "X-API-Key")
by_either_header = pytest.mark.parametrize("header", HEADERS)


def with_key(server: Server, key: str, header: str = "Authorization") -> Client:
    client = server.anonymous()
    scheme = "Bearer " if header == "Authorization" else ""
    client.headers[header] = scheme + key
    return client


async def made(client: Client, **fields: Any) -> dict[str, Any]:
    answer = await client.post("/apikeys", json={"name": "a script", **fields})
    assert answer.status == 201, answer.body
    return dict(answer.json)


@by_either_header
async def test_a_key_does_what_its_owner_does(server: Server, header: str) -> None:
    owner = await server.client()
    chat = await owner.chat(title="Mine")
    client = with_key(server, (await made(owner))["key"], header)

    listed = await client.get("/chats")
    events = await client.ask(chat, "What is the guide?")

    assert [item["id"] for item in listed.json["items"]] == [chat]
    assert events[-1].name == "message_stop"
    assert (await client.get("/users/me")).json["username"] == "ada"
    assert (await client.get("/models")).status == 200


@by_either_header
async def test_what_a_key_used_is_told_of_that_key(server: Server, header: str) -> None:
    owner = await server.client()
    chat = await owner.chat()
    key = await made(owner)
    client = with_key(server, key["key"], header)
    asked = (await client.ask(chat, "What is the guide?"))[0].data
    again = f"/messages/{asked['message_id']}/regenerate"
    edit = f"/messages/{asked['user_message_id']}"
    await client.post(again, json={"stream": False})
    await client.patch(edit, json={"content": "Who?", "stream": False})
    await owner.ask(chat, "And what is a chat?")
    await server.runtime.credits.flush()

    used = (await owner.get("/usage", params={"group_by": "key"})).json["items"]

    chats = {item["key"]: item["requests"] for item in used if item["requests"]}
    assert chats == {None: 1, key["id"]: 3}


LIMITS = {
    "models": ["openai/*"],
    "requests_per_minute": 2,
    "tokens_per_minute": 5000,
    "daily_credit_limit": 0,
    "cache_seconds": 60,
}


async def test_limits_of_a_key_are_shown_changed_and_taken_away(
    server: Server,
) -> None:
    owner = await server.client()

    plain = await made(owner)
    key = await made(owner, **LIMITS)
    path = f"/apikeys/{key['id']}"
    changed = await owner.patch(path, json={"models": None, "requests_per_minute": 9})
    rotated = await owner.post(f"{path}/rotate")
    shown = (await owner.get("/apikeys")).json["items"][0]

    assert {name: key[name] for name in LIMITS} == LIMITS
    assert {name: plain[name] for name in LIMITS} == dict.fromkeys(LIMITS)
    expected = LIMITS | {"models": None, "requests_per_minute": 9}
    for read in (changed.json, rotated.json, shown):
        assert {name: read[name] for name in LIMITS} == expected
    async with server.runtime.database.unit_of_work(read_only=True) as session:
        events = await session.scalars(
            select(AuditEvent).where(AuditEvent.action == "key.change")
        )
        told = events.one().details
    assert told is not None
    assert told["before"]["models"] == ["openai/*"]
    assert "models" not in told["after"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("models", [""]),
        ("requests_per_minute", 0),
        ("tokens_per_minute", -1),
        ("daily_credit_limit", 1.5),
        ("cache_seconds", 0),
        ("cache_seconds", 86401),
    ],
)
async def test_a_wrong_limit_of_a_key_is_named(
    server: Server, field: str, value: Any
) -> None:
    owner = await server.client()

    refused = await owner.post("/apikeys", json={"name": "a script", field: value})

    assert refused.status == 422
    assert refused.json["errors"][0]["path"].startswith(field)
    assert (await owner.get("/apikeys")).json["items"] == []


@by_either_header
async def test_a_key_is_confined_to_its_models_and_pace(
    server: Server, header: str
) -> None:
    """TRUST K2: whichever header carries it; its owner is not."""
    owner = await server.client()
    chat = await owner.chat()
    key = await made(owner, models=["openai/*"])
    client = with_key(server, key["key"], header)
    question = {"content": "What is the guide?", "stream": False}
    send = f"/chats/{chat}/messages"

    foreign = await client.post(send, json=question)
    pace = {"models": ["guide/*"], "requests_per_minute": 1}
    await owner.patch(f"/apikeys/{key['id']}", json=pace)
    first = await client.post(send, json=question)
    second = await client.post(send, json=question)
    own = await owner.post(send, json=question)

    assert (foreign.status, foreign.json["code"]) == (403, "model_not_allowed")
    assert (first.status, own.status) == (201, 201)
    assert (second.status, second.json["code"]) == (429, "rate_limited")
    assert len((await owner.get(send)).json["items"]) == 4


async def test_a_key_is_shown_once_and_stored_as_a_hash(server: Server) -> None:
    """TRUST K1."""
    owner = await server.client()
    created = await owner.post("/apikeys", json={"name": "once"})
    key, prefix = created.json["key"], created.json["prefix"]

    shown = (await owner.get("/apikeys")).json["items"]
    async with server.runtime.database.unit_of_work(read_only=True) as session:
        stored = (await session.execute(select(ApiKey.__table__))).mappings().one()

    assert created.headers["Cache-Control"] == "no-store"
    assert key.startswith(f"{prefix}_")
    assert shown == [{k: v for k, v in created.json.items() if k != "key"}]
    secret = key.removeprefix(prefix)
    assert secret not in str(dict(stored))


@by_either_header
async def test_a_wrong_checksum_costs_no_query(server: Server, header: str) -> None:
    """TRUST K1: neither do SQL's metacharacters."""
    key = (await made(await server.client()))["key"]
    invented = [key[:-1] + ("0" if key[-1] != "0" else "1"), "wr_' OR '1'='1", "wr_%"]

    with counted(server) as statements:
        answers = [
            await with_key(server, text, header).get("/chats") for text in invented
        ]

    assert [a.status for a in answers] == [401] * 3
    assert {a.json["code"] for a in answers} == {"unauthenticated"}
    assert statements == []


@by_either_header
async def test_a_known_key_costs_no_query_either(server: Server, header: str) -> None:
    client = with_key(server, (await made(await server.client()))["key"], header)
    await client.get("/chats")

    with counted(server) as statements:
        assert (await client.get("/chats")).status == 200

    assert len(statements) == 1, statements  # the list itself


async def test_an_unknown_key_a_service_key_and_an_empty_one_are_401(
    server: Server,
) -> None:
    unknown = [new_key(KeyKind.USER), new_key(KeyKind.SERVICE), "", "garbage"]

    statuses = {
        (text[:4], header): (await with_key(server, text, header).get("/chats")).status
        for text in unknown
        for header in HEADERS
    }

    assert set(statuses.values()) == {401}


@by_either_header
async def test_a_key_is_confined_to_its_scopes(server: Server, header: str) -> None:
    """TRUST K2."""
    owner = await server.client()
    chat = await owner.chat()
    reader, chatter, other = [
        with_key(server, (await made(owner, scopes=[scope]))["key"], header)
        for scope in ("read", "chat", "models")
    ]
    reply = (await chatter.ask(chat, "What is the guide?"))[0].data["message_id"]
    paths = ("/chats", f"/chats/{chat}", "/models", "/users/me", "/usage/limits")
    stream = f"/messages/{reply}/stream"

    seen = [(await reader.get(path)).status for path in (*paths, stream)]
    streamed = await chatter.get(stream)
    listed = await other.get("/models")
    refused = [
        await reader.patch(f"/chats/{chat}", json={"title": "x"}),
        await reader.post("/chats", json={}),
        *[await chatter.get(path) for path in paths],
        await other.get(stream),
        await other.get(f"/chats/{chat}"),
    ]

    assert seen == [200] * 6
    assert (streamed.status, listed.status) == (200, 200)
    assert [a.status for a in refused] == [403] * 9
    assert {a.json["code"] for a in refused} == {"insufficient_scope"}


@by_either_header
async def test_no_key_reaches_the_account_itself(server: Server, header: str) -> None:
    """TRUST K2: what no scope names is refused, whatever the key may do."""
    things = await make_things(server, "ada")
    client = with_key(server, (await made(things.client))["key"], header)
    allowed = (
        "/api/v1/chats",
        "/api/v1/files",
        "/api/v1/messages",
        "/api/v1/models",
        "/api/v1/projects/{project}/documents",
        "/api/v1/usage",
        "/v1/",
    )
    forbidden = [
        o
        for o in PRIVATE
        if not o.path.startswith(allowed)
        and not o.name.startswith("GET /api/v1/projects")
        and o.name not in {"GET /api/v1/auth/me", "GET /api/v1/users/me"}
    ]

    answers = {o.name: await o.send(client, things) for o in forbidden}

    assert answers
    assert {name for name, a in answers.items() if a.status != 403} == set()
    assert {a.json["code"] for a in answers.values()} == {"login_required"}


async def test_an_idempotent_twin_does_not_get_around_a_scope(server: Server) -> None:
    """TRUST K2."""
    owner = await server.client()
    headers = {"Idempotency-Key": "one"}
    assert (await owner.post("/chats", json={}, headers=headers)).status == 201
    client = with_key(server, (await made(owner, scopes=["read"]))["key"])

    answer = await client.post("/chats", json={}, headers=headers)

    assert (answer.status, answer.json["code"]) == (403, "insufficient_scope")


@by_either_header
async def test_a_key_works_from_its_networks_only(
    serve: ServerFactory, header: str
) -> None:
    """TRUST K2 and P6: nor does a forged X-Forwarded-For help."""
    async with serve(TRUSTED_PROXIES="127.0.0.1") as server:
        owner = await server.client()
        key = (await made(owner, allowed_ips=["203.0.113.9/24", "2001:db8::1"]))["key"]
        client = with_key(server, key, header)
        statuses = {}
        for chain in ("203.0.113.77", "198.51.100.1", "203.0.113.77, 198.51.100.1",
                      "2001:db8::1", "2001:db8::2", "::ffff:203.0.113.5"):  # fmt: skip
            sent = {"X-Forwarded-For": chain}
            statuses[chain] = (await client.get("/chats", headers=sent)).status

    assert statuses == {
        "203.0.113.77": 200,
        "198.51.100.1": 401,
        "203.0.113.77, 198.51.100.1": 401,
        "2001:db8::1": 200,
        "2001:db8::2": 401,
        "::ffff:203.0.113.5": 200,
    }


@by_either_header
async def test_a_key_expires_though_it_is_cached(server: Server, header: str) -> None:
    """TRUST K2."""
    owner = await server.client()
    soon = utcnow() + timedelta(seconds=0.5)
    key = (await made(owner, expires_at=soon.isoformat()))["key"]
    client = with_key(server, key, header)
    first = await client.get("/chats")

    await asyncio.sleep((soon - utcnow()).total_seconds())

    assert first.status == 200
    assert (await client.get("/chats")).status == 401


async def test_a_revoked_key_ends_at_once_with_its_streams(
    serve: ServerFactory, fake_openai: Any
) -> None:
    """TRUST T4."""
    fake_openai.plan.faults = ["stall"]
    async with serve(OPENAI_BASE_URL=fake_openai.base_url) as server:
        owner = await server.client()
        key = await made(owner)
        client = with_key(server, key["key"])
        chat = await client.chat(model="openai/fake-small")
        async with client.asking(chat, "Say 50 words") as stream:
            await stream.until("delta")
            revoked = await owner.delete(f"/apikeys/{key['id']}")
            rest = await stream.all()

        after = await client.get("/chats")
        listed = await owner.get("/apikeys")
        again = await owner.delete(f"/apikeys/{key['id']}")

    assert revoked.status == 204
    assert rest[-1].data["problem"]["code"] == "unauthenticated"
    assert after.status == 401
    assert listed.json["items"] == []
    assert again.status == 404


async def test_a_suspended_users_keys_end_at_once(server: Server) -> None:
    """TRUST T4."""
    owner = await server.client()
    client = with_key(server, (await made(owner))["key"])
    user_id = UUID((await client.get("/users/me")).json["id"])
    async with server.runtime.database.unit_of_work() as session:
        await session.execute(update(User).values(status="suspended"))
    server.runtime.principals.forget_user(user_id)

    statuses = [(await c.get("/chats")).status for c in (client, owner)]

    assert statuses == [401, 401]


async def test_rotation_ends_the_old_key_and_keeps_the_rest(server: Server) -> None:
    owner = await server.client()
    old = await made(owner, scopes=["read"], allowed_ips=["127.0.0.0/8"])
    await with_key(server, old["key"]).get("/chats")

    rotated = await owner.post(f"/apikeys/{old['id']}/rotate")
    new = rotated.json

    assert rotated.headers["Cache-Control"] == "no-store"
    assert new["key"] != old["key"]
    assert new["prefix"] != old["prefix"]
    kept = ("id", "name", "scopes", "allowed_ips", "created_at")
    assert {f: new[f] for f in kept} == {f: old[f] for f in kept}
    assert (await with_key(server, old["key"]).get("/chats")).status == 401
    assert (await with_key(server, new["key"]).get("/chats")).status == 200


async def test_a_change_is_felt_by_the_next_request(server: Server) -> None:
    owner = await server.client()
    key = await made(owner)
    client = with_key(server, key["key"])
    assert (await client.get("/models")).status == 200

    changed = await owner.patch(
        f"/apikeys/{key['id']}", json={"scopes": ["chat"], "name": "narrower"}
    )

    assert changed.json["scopes"] == ["chat"]
    assert changed.json["name"] == "narrower"
    assert (await client.get("/models")).status == 403
    assert (await client.post("/chats", json={})).status == 201


@pytest.mark.parametrize(
    ("wrong", "path"),
    [
        ({"name": " "}, "name"),
        ({"scopes": []}, "scopes"),
        ({"scopes": ["everything"]}, "scopes.0"),
        ({"scopes": ["introspect"]}, "scopes.0"),
        ({"scopes": ["chats:read"]}, "scopes.0"),
        ({"scopes": ["ext:"]}, "scopes.0"),
        ({"allowed_ips": ["10.0.0.0/33"]}, "allowed_ips.0"),
        ({"allowed_ips": ["localhost"]}, "allowed_ips.0"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "2999-01-01T00:00:00"}, "expires_at"),
        ({"requests_per_hour": 3}, "requests_per_hour"),
    ],
)
async def test_a_wrong_field_is_named(
    server: Server, wrong: dict[str, Any], path: str
) -> None:
    owner = await server.client()
    answer = await owner.post("/apikeys", json={"name": "x", **wrong})

    assert answer.status == 422
    assert [error["path"] for error in answer.json["errors"]] == [path]


async def test_there_is_a_bound_on_keys(server: Server) -> None:
    owner = await server.client()
    for _ in range(MOST_KEYS):
        last = await made(owner)

    one_more = await owner.post("/apikeys", json={"name": "x"})
    await owner.delete(f"/apikeys/{last['id']}")

    assert (one_more.status, one_more.json["code"]) == (409, "too_many_keys")
    assert (await owner.post("/apikeys", json={"name": "x"})).status == 201


async def test_what_happens_to_a_key_is_audited_and_its_owner_mailed(
    server: Server,
) -> None:
    """TRUST D2: without the key itself."""
    owner = await server.client()
    key = await made(owner, name="backup & sync")
    at = f"/apikeys/{key['id']}"
    await owner.patch(at, json={"name": "renamed"})
    rotated = (await owner.post(f"{at}/rotate")).json
    await owner.delete(at)

    async with server.runtime.database.unit_of_work(read_only=True) as session:
        events = (
            await session.scalars(
                select(AuditEvent)
                .where(AuditEvent.target_kind == "key")
                .order_by(AuditEvent.seq)
            )
        ).all()
        jobs = await session.scalars(select(Job.args).where(Job.name == "mail.send"))
        mailed = [args for args in jobs if args["template"] == "key_created"]

    assert [event.action for event in events] == [
        "key.create", "key.change", "key.rotate", "key.revoke",
    ]  # fmt: skip
    assert {str(event.target_id) for event in events} == {key["id"]}
    told = [event.details or {} for event in events]
    assert told[1]["before"]["name"] == "backup & sync"
    assert told[1]["after"]["name"] == "renamed"
    assert [args["to"] for args in mailed] == ["ada@example.com"]
    for secret in (key["key"], rotated["key"]):
        assert secret not in str(told) + str(mailed)


async def test_its_last_use_is_told(server: Server) -> None:
    owner = await server.client()
    used, unused = await made(owner), await made(owner)
    await with_key(server, used["key"]).get("/chats")

    await server.runtime.principals.keys.note_use()
    listed = {k["id"]: k for k in (await owner.get("/apikeys")).json["items"]}

    assert listed[used["id"]]["last_used_at"] >= used["created_at"]
    assert listed[unused["id"]]["last_used_at"] is None


async def test_over_redis_a_revocation_reaches_the_other_process(
    serve: ServerFactory, redis_url: str
) -> None:
    """TRUST T4: every process within a second."""
    async with serve(REDIS_URL=redis_url) as one, serve(REDIS_URL=redis_url) as other:
        owner = await one.client()
        key = await made(owner)
        client = with_key(other, key["key"])
        assert (await client.get("/chats")).status == 200

        await owner.delete(f"/apikeys/{key['id']}")
        for _ in range(100):
            after = await client.get("/chats")
            if after.status == 401:
                break
            await asyncio.sleep(0.01)

    assert after.status == 401


async def test_a_token_wins_over_a_key_that_comes_with_it(server: Server) -> None:
    ada, bob = await server.client(), await server.client("bob")
    ada.headers["X-API-Key"] = (await made(bob))["key"]

    assert (await ada.get("/users/me")).json["username"] == "ada"


async def test_the_http_session_is_not_needed(server: Server) -> None:
    """As curl would send it."""
    key = (await made(await server.client()))["key"]
    async with aiohttp.ClientSession(headers={"x-api-key": key}) as session:
        answer = await session.get(f"{server.url}/api/v1/chats")

    assert answer.status == 200


async def test_keys_are_made_and_changed_after_a_fresh_login_alone(
    server: Server,
) -> None:
    """TRUST T5: a leaked key can still be revoked at once."""
    owner = await server.client()
    key = (await made(owner))["id"]
    async with server.runtime.database.unit_of_work() as session:
        for found in await session.scalars(select(UserSession)):
            found.authenticated_at -= timedelta(minutes=10, seconds=1)
    server.runtime.principals.forget(*[UUID(one) for one in await _sessions(owner)])

    answers = [
        await owner.post("/apikeys", json={"name": "another"}),
        await owner.request("PATCH", f"/apikeys/{key}", json={"name": "x"}),
        await owner.post(f"/apikeys/{key}/rotate"),
    ]

    assert [a.status for a in answers] == [403] * 3
    assert {a.json["code"] for a in answers} == {"fresh_login_required"}
    assert (await owner.request("DELETE", f"/apikeys/{key}")).status == 204


async def _sessions(client: Client) -> list[str]:
    return [one["id"] for one in (await client.get("/auth/sessions")).json["items"]]


async def test_a_reset_password_ends_the_keys_for_good(server: Server) -> None:
    """TRUST T4, L2: somebody else may have made them."""
    owner = await server.client("ada")
    client = with_key(server, (await made(owner))["key"])
    assert (await client.get("/users/me")).status == 200

    token = await mailed_link(server, "reset", "ada@example.com")
    form = {"token": token, "password": "another pass phrase"}
    assert (
        await server.anonymous().post("/auth/reset-password", json=form)
    ).status == 204

    assert (await client.get("/users/me")).status == 401
