"""Which addresses may use the service, and which of them the desk.

Settings and the desk's own rules say so together, and settings win: so an admin whom a
rule of the desk shuts out gets in again by a setting. For an address, in this order:
a setting denies it; a setting allows it; a rule denies it; something is allowed at all
and it is not among that. Else it may.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.bus import Bus
from app.core.config import SecuritySettings
from app.core.database import Database, after_commit
from app.core.exceptions import ConflictError, NotFoundError
from app.core.mirror import Mirror
from app.models import IpRule
from app.schemas.ip_rule import IpRuleCreate, Scope
from app.services import audit
from app.services.audit import Actor

Network = IPv4Network | IPv6Network

_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Ranges:
    """What counts for one scope, by source and action."""

    set_allow: Sequence[Network] = ()
    set_deny: Sequence[Network] = ()
    allow: Sequence[Network] = ()
    deny: Sequence[Network] = ()

    def refuse(self, address: IPv4Address | IPv6Address | None) -> bool:
        """Whoever has no address that could be told is not among any."""
        if _among(address, self.set_deny):
            return True
        if _among(address, self.set_allow):
            return False
        if _among(address, self.deny):
            return True
        if self.set_allow or self.allow:
            return not _among(address, self.allow)
        return False


class IpRules:
    """The rules as this process knows them: those of a moment ago, at the latest."""

    def __init__(
        self, settings: SecuritySettings, *, database: Database, bus: Bus
    ) -> None:
        self._settings = settings
        self._database = database
        self._mirror = Mirror(bus, "ip_rule", read=self._read, take=self._take)
        self._take(())

    async def open(self) -> None:
        await self._mirror.open()

    async def close(self) -> None:
        await self._mirror.close()

    def refuse(self, host: str | None, *, desk: bool) -> bool:
        """Whether who comes from there may not use the service, or its desk."""
        return self._refuse(host, desk)

    def would_refuse(self, host: str | None, rules: Iterable[IpRule]) -> bool:
        """The same for the desk, if the rules were these."""
        service, desk = self._ranges(rules, "service"), self._ranges(rules, "desk")
        address = _address(host)
        return service.refuse(address) or desk.refuse(address)

    def changed(self) -> None:
        """Have all processes read the rules again."""
        self._mirror.changed()

    async def _read(self) -> Sequence[IpRule]:
        async with self._database.unit_of_work(read_only=True) as session:
            return (await session.scalars(select(IpRule))).all()

    def _take(self, rules: Sequence[IpRule]) -> None:
        service, desk = self._ranges(rules, "service"), self._ranges(rules, "desk")

        def refuse(host: str | None, at_desk: bool) -> bool:  # noqa: FBT001 - the cache takes no names
            address = _address(host)
            return service.refuse(address) or (at_desk and desk.refuse(address))

        self._refuse = lru_cache(_REMEMBERED)(refuse)

    def _ranges(self, rules: Iterable[IpRule], scope: Scope) -> Ranges:
        settings = self._settings
        of_scope = [rule for rule in rules if rule.scope == scope]
        desk = scope == "desk"
        return Ranges(
            set_allow=_networks(settings.desk_ip_allow if desk else settings.ip_allow),
            set_deny=_networks(settings.desk_ip_deny if desk else settings.ip_deny),
            allow=_networks(r.network for r in of_scope if r.action == "allow"),
            deny=_networks(r.network for r in of_scope if r.action == "deny"),
        )


async def listing(session: AsyncSession) -> Sequence[IpRule]:
    """All, in the order in which they were made."""
    return (await session.scalars(select(IpRule).order_by(IpRule.id))).all()


async def create(
    session: AsyncSession, rules: IpRules, actor: Actor, form: IpRuleCreate
) -> IpRule:
    """Raises ConflictError for one that is there, or shuts the actor out."""
    rule = IpRule(
        scope=form.scope,
        action=form.action,
        network=str(form.network),
        note=form.note,
    )
    _keep_in(rules, actor, [*await listing(session), rule])
    session.add(rule)
    try:
        await session.flush()
    except IntegrityError as error:
        raise ConflictError("There is already a rule like this.") from error
    await _tell(session, rules, actor, "ip_rule.create", rule)
    return rule


async def delete(
    session: AsyncSession, rules: IpRules, actor: Actor, rule_id: UUID
) -> None:
    """Raises NotFoundError, or ConflictError where it would shut the actor out."""
    known = await listing(session)
    rule = next((rule for rule in known if rule.id == rule_id), None)
    if rule is None:
        raise NotFoundError("There is no rule with this id.")
    _keep_in(rules, actor, [other for other in known if other is not rule])
    await session.delete(rule)
    await _tell(session, rules, actor, "ip_rule.delete", rule)


def _keep_in(rules: IpRules, actor: Actor, then: Sequence[IpRule]) -> None:
    # The command line comes from nowhere, and is never shut out.
    if actor.kind != "system" and rules.would_refuse(actor.ip, then):
        raise ConflictError(
            f"This would shut you out yourself, at {actor.ip}: allow that first.",
            code="shuts_you_out",
        )


async def _tell(
    session: AsyncSession, rules: IpRules, actor: Actor, action: str, rule: IpRule
) -> None:
    facts = {name: getattr(rule, name) for name in ("scope", "action", "network")}
    told = {"after" if action.endswith("create") else "before": facts}
    await audit.record(session, actor, action, target=("ip_rule", rule.id), **told)
    after_commit(session, rules.changed)


def _networks(ranges: Iterable[str]) -> tuple[Network, ...]:
    return tuple(ip_network(one, strict=False) for one in ranges)


def _among(
    address: IPv4Address | IPv6Address | None, ranges: Sequence[Network]
) -> bool:
    return address is not None and any(address in one for one in ranges)


def _address(host: str | None) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address((host or "").partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped  # the same client, seen through the other socket
    return address
