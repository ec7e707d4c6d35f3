"""Which addresses may use the service, and which of them its desk."""

import asyncio
from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError
from sqlalchemy import select

from app.core.exceptions import ConflictError, NotFoundError
from app.models import AuditEvent
from app.schemas.ip_rule import IpRuleCreate
from app.services import ip_rule
from app.services.audit import SYSTEM, Actor
from tests.conftest import Server

PROXY = {"TRUSTED_PROXIES": "127.0.0.1"}
DESK = "/api/v1/admin/users"


async def ask(server: Server, path: str, *forwarded: str) -> Any:
    """The status, and the code where it is refused, as `forwarded` tells the client."""
    headers = {"X-Forwarded-For": ", ".join(forwarded)} if forwarded else {}
    async with server.anonymous()._session.get(
        server.url + path, headers=headers
    ) as answer:
        refused = answer.status == 403
        return (await answer.json())["code"] if refused else answer.status


async def refused(server: Server, path: str, *forwarded: str) -> bool:
    return bool(await ask(server, path, *forwarded) == "address_refused")


async def add(server: Server, actor: Actor = SYSTEM, **facts: Any) -> Any:
    async with server.runtime.database.unit_of_work() as session:
        form = IpRuleCreate.model_validate(facts)
        return await ip_rule.create(session, server.runtime.ip_rules, actor, form)


async def remove(server: Server, rule_id: UUID, actor: Actor = SYSTEM) -> None:
    async with server.runtime.database.unit_of_work() as session:
        await ip_rule.delete(session, server.runtime.ip_rules, actor, rule_id)


async def becomes(server: Server, path: str, client: str, *, refusal: bool) -> None:
    async with asyncio.timeout(10):
        while await refused(server, path, client) is not refusal:  # noqa: ASYNC110 - it is told over HTTP alone
            await asyncio.sleep(0.01)


class TestSettings:
    async def test_nobody_is_refused_by_default(self, server: Server) -> None:
        assert await ask(server, "/api/v1/models") == 401
        assert await ask(server, DESK) != "address_refused"

    async def test_a_denied_range_may_use_nothing(self, serve: Any) -> None:
        async with serve(**PROXY, IP_DENY="192.0.2.0/24, 2001:db8::/32") as server:
            for client in ("192.0.2.7", "2001:db8::1", "::ffff:192.0.2.7"):
                assert await refused(server, "/api/v1/models", client)
                assert await refused(server, "/", client)
            assert not await refused(server, "/api/v1/models", "192.0.3.7")

    async def test_where_some_are_allowed_all_others_are_refused(
        self, serve: Any
    ) -> None:
        async with serve(**PROXY, IP_ALLOW="10.0.0.0/8", IP_DENY="10.9.0.0/16") as s:
            assert not await refused(s, "/api/v1/models", "10.1.2.3")
            assert await refused(s, "/api/v1/models", "10.9.2.3")
            assert await refused(s, "/api/v1/models", "192.0.2.7")

    async def test_the_desk_has_its_own(self, serve: Any) -> None:
        async with serve(**PROXY, DESK_IP_ALLOW="10.0.0.0/8") as server:
            for path in (DESK, "/api/v1/staff/users", "/api/v1/admin"):
                assert await refused(server, path, "192.0.2.7")
                assert not await refused(server, path, "10.1.2.3")
            for path in ("/api/v1/models", "/api/v1/administration", "/"):
                assert not await refused(server, path, "192.0.2.7")

    @pytest.mark.parametrize(
        "path",
        ["/api/v1/admin/../admin/users", "/api/v1//admin/users", "/API/v1/admin/"],
    )
    async def test_no_other_spelling_leads_to_the_desk(
        self, serve: Any, path: str
    ) -> None:
        """TRUST A3: what is judged is the path that is routed."""
        async with serve(**PROXY, DESK_IP_DENY="0.0.0.0/0") as server:
            assert await ask(server, path, "192.0.2.7") in {404, "address_refused"}

    async def test_who_watches_the_server_is_answered(self, serve: Any) -> None:
        async with serve(**PROXY, IP_DENY="0.0.0.0/0") as server:
            assert await ask(server, "/health/live", "192.0.2.7") == 200


class TestForgedHeaders:
    """TRUST P6: only hops in TRUSTED_PROXIES count."""

    async def test_without_a_trusted_proxy_nobody_is_believed(self, serve: Any) -> None:
        async with serve(IP_DENY="127.0.0.1") as server:
            assert await refused(server, "/api/v1/models", "192.0.2.7")
        async with serve(IP_DENY="192.0.2.0/24") as server:
            assert not await refused(server, "/api/v1/models", "192.0.2.7")

    async def test_what_stands_before_the_clients_own_hop_counts_for_nothing(
        self, serve: Any
    ) -> None:
        async with serve(**PROXY, IP_ALLOW="10.0.0.0/8") as server:
            assert await refused(server, "/api/v1/models", "10.1.2.3", "192.0.2.7")
            assert not await refused(server, "/api/v1/models", "192.0.2.7", "10.1.2.3")


class TestRules:
    async def test_take_effect_without_a_restart(self, serve: Any) -> None:
        async with serve(**PROXY) as server:
            assert not await refused(server, "/api/v1/models", "192.0.2.7")

            rule = await add(
                server, network="192.0.2.99/24", action="deny", note="Spam"
            )
            assert rule.network == "192.0.2.0/24"
            await becomes(server, "/api/v1/models", "192.0.2.7", refusal=True)

            await remove(server, rule.id)
            await becomes(server, "/api/v1/models", "192.0.2.7", refusal=False)

    async def test_hold_after_a_restart(self, serve: Any) -> None:
        async with serve() as server:
            await add(server, network="192.0.2.0/24", action="deny")
        async with serve(**PROXY) as server:
            assert await refused(server, "/api/v1/models", "192.0.2.7")

    async def test_for_the_desk_leave_the_rest_alone(self, serve: Any) -> None:
        async with serve(**PROXY) as server:
            await add(server, network="10.0.0.0/8", action="allow", scope="desk")

            await becomes(server, DESK, "192.0.2.7", refusal=True)
            assert not await refused(server, DESK, "10.1.2.3")
            assert not await refused(server, "/api/v1/models", "192.0.2.7")

    async def test_settings_let_an_admin_in_whom_a_rule_shuts_out(
        self, serve: Any
    ) -> None:
        async with serve(**PROXY, IP_ALLOW="192.0.2.7") as server:
            await add(server, network="192.0.2.0/24", action="deny")
            await add(server, network="10.0.0.0/8", action="allow")

            await becomes(server, "/api/v1/models", "10.1.2.3", refusal=False)
            assert await refused(server, "/api/v1/models", "192.0.2.8")
            assert not await refused(server, "/api/v1/models", "192.0.2.7")

    @pytest.mark.parametrize("scope", ["service", "desk"])
    async def test_cannot_shut_out_who_makes_them(
        self, server: Server, scope: str
    ) -> None:
        admin = Actor("admin", None, "192.0.2.7")
        for facts in (
            {"network": "192.0.2.0/24", "action": "deny"},
            {"network": "10.0.0.0/8", "action": "allow"},
        ):
            with pytest.raises(ConflictError, match=r"at 192\.0\.2\.7"):
                await add(server, admin, **facts, scope=scope)

        mine = await add(
            server, admin, network="192.0.2.7", action="allow", scope=scope
        )
        await add(server, admin, network="10.0.0.0/8", action="allow", scope=scope)
        with pytest.raises(ConflictError, match="shut you out"):
            await remove(server, mine.id, admin)

    async def test_are_made_once(self, server: Server) -> None:
        await add(server, network="192.0.2.0/24", action="deny")
        with pytest.raises(ConflictError, match="already"):
            await add(server, network="192.0.2.1/24", action="deny")
        with pytest.raises(NotFoundError):
            await remove(server, UUID(int=0))

    async def test_are_audited(self, server: Server) -> None:
        rule = await add(server, network="192.0.2.0/24", action="deny")

        async with server.runtime.database.unit_of_work(read_only=True) as session:
            event = (await session.scalars(select(AuditEvent))).one()
        assert (event.action, event.target_id) == ("ip_rule.create", rule.id)
        assert event.details == {
            "after": {"scope": "service", "action": "deny", "network": "192.0.2.0/24"}
        }


@pytest.mark.parametrize("network", ["", "all", "10.0.0.0/33", "10.0.0", "1.2.3.4 5"])
def test_what_is_no_range_is_refused(network: str) -> None:
    with pytest.raises(ValidationError, match="CIDR"):
        IpRuleCreate.model_validate({"network": network, "action": "deny"})


async def test_admins_list_make_and_delete_rules(serve: Any) -> None:
    async with serve(**PROXY) as server:
        admin = await server.admin("settings")
        form = {"network": "192.0.2.9/24", "action": "deny", "note": "Spam"}
        made = await admin.post("/admin/ip-rules", json=form)
        assert made.status == 201
        await becomes(server, "/api/v1/models", "192.0.2.7", refusal=True)

        listed = await admin.get("/admin/ip-rules")
        assert listed.json["items"] == [made.json]
        assert made.json | {"id": "", "created_at": ""} == {
            "id": "",
            "network": "192.0.2.0/24",
            "action": "deny",
            "scope": "service",
            "note": "Spam",
            "created_at": "",
        }
        assert (await admin.delete(f"/admin/ip-rules/{made.json['id']}")).status == 204
        await becomes(server, "/api/v1/models", "192.0.2.7", refusal=False)


async def test_an_admin_who_would_shut_themselves_out_is_told(server: Server) -> None:
    admin = await server.admin("settings")

    form = {"network": "127.0.0.0/8", "action": "deny", "scope": "desk"}
    answer = await admin.post("/admin/ip-rules", json=form)

    assert (answer.status, answer.json["code"]) == (409, "shuts_you_out")
    wrong = await admin.post("/admin/ip-rules", json=form | {"network": "10.0.0"})
    assert wrong.json["errors"][0]["path"] == "network"
