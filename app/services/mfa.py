"""A second factor at login: codes of an authenticator app, and codes on paper.

Of users and of accounts of the desk alike: an account is named by its id, and an
`Actor` is its owner. Whoever resets a password or comes in by another provider still
needs the second factor.
"""

import base64
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import cast
from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from app.core import totp
from app.core.config import Settings
from app.core.crypto import Crypto
from app.core.database import Database, after_commit, changed_rows, utcnow
from app.core.exceptions import (
    ConflictError,
    FieldError,
    ForbiddenError,
    UnauthenticatedError,
    ValidationFailedError,
)
from app.core.tokens import fingerprint
from app.models import (
    Admin,
    Authenticator,
    DeskAccount,
    RecoveryCode,
    SupportStaff,
    User,
)
from app.services import audit, mail
from app.services.audit import Actor
from app.services.lockout import Account, AccountKind, Lockout

RECOVERY_CODES = 10
_OWNERS: dict[AccountKind, type[User | DeskAccount]] = {
    "user": User,
    "staff": SupportStaff,
    "admin": Admin,
}
_RECOVERY_BYTES = 10  # of chance in each: 16 letters and digits


class MfaRequiredError(UnauthenticatedError):
    """The password is right. It neither counts as a failure nor clears any."""

    code = "mfa_required"

    def __init__(self) -> None:
        super().__init__("Send `otp` too: a code of your authenticator app.")


class InvalidOtpError(ValidationFailedError):
    """That it was tried is stored although the request fails."""

    code = "invalid_otp"
    keeps_changes = True

    def __init__(self) -> None:
        message = "This code is not right, or was used before."
        super().__init__(message, errors=[FieldError(path="otp", message=message)])


@dataclass(frozen=True, slots=True)
class Enrolment:
    secret: str
    uri: str
    qr_svg: str


@dataclass(frozen=True, slots=True)
class Standing:
    """What an account has; `required` is what the installation asks of its kind."""

    totp: bool
    recovery_codes_left: int
    required: bool


class Mfa:
    def __init__(self, settings: Settings, crypto: Crypto, lockout: Lockout) -> None:
        self._settings = settings.login
        self._issuer = settings.server.app_name
        self._crypto = crypto
        self._lockout = lockout
        self._on_removal: list[Callable[[UUID], None]] = []

    def required(self, kind: AccountKind, level: int = 1) -> bool:
        """Whether accounts of a kind, and a support level, must have it."""
        return self._settings.requires_mfa(kind, level)

    async def standing(
        self, session: AsyncSession, actor: Actor, *, level: int = 1
    ) -> Standing:
        found = await session.execute(
            select(Authenticator.id, func.count(RecoveryCode.id))
            .outerjoin(RecoveryCode)
            .where(
                Authenticator.account_id == _id(actor),
                Authenticator.confirmed_at.is_not(None),
            )
            .group_by(Authenticator.id)
        )
        row = found.one_or_none()
        return Standing(
            totp=row is not None,
            recovery_codes_left=row[1] if row else 0,
            required=self.required(_kind(actor), level),
        )

    async def enroll(self, session: AsyncSession, actor: Actor) -> Enrolment:
        """Make a secret, in the place of one that was never confirmed.

        Raises ConflictError where there is a confirmed one.
        """
        account_id = _id(actor)
        await session.execute(
            delete(Authenticator).where(
                Authenticator.account_id == account_id,
                Authenticator.confirmed_at.is_(None),
            )
        )
        if await self._find(session, account_id) is not None:
            raise ConflictError(
                "There is a second factor already: disable it first.",
                code="mfa_already_enabled",
            )
        secret = totp.new_secret()
        made = Authenticator(id=uuid7(), account_id=account_id)
        made.secret = self._crypto.seal(secret, place=_place(made))
        session.add(made)
        try:
            await session.flush()
        except IntegrityError as error:  # a twin enrolled at the same moment
            raise ConflictError("Another request is enrolling: try again.") from error
        label = await _address(session, actor)
        uri = totp.uri(secret, issuer=self._issuer, label=label)
        return Enrolment(secret=secret, uri=uri, qr_svg=_qr(uri))

    async def confirm(self, session: AsyncSession, actor: Actor, otp: str) -> list[str]:
        """Prove that the app has the secret; gives the recovery codes, only here."""
        found = await self._find(session, _id(actor))
        if found is None or found.confirmed_at is not None:
            raise ConflictError(
                "There is no second factor to confirm: enroll first.",
                code="mfa_not_enrolled",
            )
        if not self._spend_code(found, _plain(otp)):
            raise InvalidOtpError
        found.confirmed_at = utcnow()
        codes = [_new_recovery_code() for _ in range(RECOVERY_CODES)]
        session.add_all(
            RecoveryCode(authenticator_id=found.id, code_hash=fingerprint(_plain(code)))
            for code in codes
        )
        await _tell(session, actor, "enable")
        return codes

    async def disable(self, session: AsyncSession, actor: Actor, otp: str) -> None:
        """Give it up; takes a code, and counts wrong ones as failed logins.

        Who must have one can then do nothing but enroll another, as on a new phone.
        """
        account = Account(_kind(actor), "", _id(actor))
        attempt = await self._lockout.begin(session, account, actor.ip)
        if attempt.locked or not await self.accepts(session, _id(actor), otp):
            attempt.failed()
            raise InvalidOtpError
        await self._lockout.passed(session, attempt)
        await self.remove(session, _id(actor))
        await _tell(session, actor, "disable")

    async def take_away(
        self,
        session: AsyncSession,
        actor: Actor,
        kind: AccountKind,
        owner: User | DeskAccount,
    ) -> None:
        """By an admin, for one who has lost the device and the recovery codes."""
        await self.remove(session, owner.id)
        await audit.record(session, actor, "mfa.remove", target=(kind, owner.id))
        await mail.send(
            session,
            "mfa_changed",
            to=owner.email,
            user_id=owner.id if kind == "user" else None,
            change="taken away by an admin",
            **mail.circumstances(utcnow(), None),
        )

    async def remove(self, session: AsyncSession, account_id: UUID) -> None:
        """Delete all that is kept of it, where a device is lost or the account ends."""
        await session.execute(
            delete(Authenticator).where(Authenticator.account_id == account_id)
        )
        if self._settings.mfa_required:
            for callback in self._on_removal:
                after_commit(session, partial(callback, account_id))

    def on_removal(self, callback: Callable[[UUID], None]) -> None:
        """Have it called with who has lost one, where it is asked for of anybody."""
        self._on_removal.append(callback)

    async def enabled(self, session: AsyncSession, account_id: UUID) -> bool:
        return bool(
            await session.scalar(
                select(Authenticator.id).where(
                    Authenticator.account_id == account_id,
                    Authenticator.confirmed_at.is_not(None),
                )
            )
        )

    async def owes(
        self, session: AsyncSession, account_id: UUID, kind: AccountKind, level: int = 1
    ) -> bool:
        """Whether the installation asks an account for what it does not have yet."""
        required = self.required(kind, level)
        return required and not await self.enabled(session, account_id)

    async def require(self, database: Database, account_id: UUID) -> None:
        """Raises ForbiddenError while an account that owes it has not enrolled."""
        async with database.unit_of_work(read_only=True) as session:
            if await self.enabled(session, account_id):
                return
        raise ForbiddenError(
            "This installation asks for a second factor: enroll one first, by "
            "POST .../auth/mfa/totp/enroll.",
            code="mfa_enrollment_required",
        )

    async def accepts(self, session: AsyncSession, account_id: UUID, otp: str) -> bool:
        """Spend a code of the app or a recovery code: each is good once."""
        found = await self._find(session, account_id)
        if found is None or found.confirmed_at is None:
            return False
        given = _plain(otp)
        return self._spend_code(found, given) or await _spend_recovery_code(
            session, found, given
        )

    async def _find(
        self, session: AsyncSession, account_id: UUID
    ) -> Authenticator | None:
        """Held until the transaction's end: two requests cannot spend one code."""
        return await session.scalar(
            select(Authenticator)
            .where(Authenticator.account_id == account_id)
            .with_for_update()
            .execution_options(populate_existing=True)
        )

    def _spend_code(self, found: Authenticator, given: str) -> bool:
        secret = self._crypto.open(found.secret, place=_place(found))
        step = totp.matching_step(secret, given, after=found.last_step)
        if step is not None:
            found.last_step = step
        return step is not None


async def _spend_recovery_code(
    session: AsyncSession, found: Authenticator, given: str
) -> bool:
    spent = await session.execute(
        delete(RecoveryCode).where(
            RecoveryCode.authenticator_id == found.id,
            RecoveryCode.code_hash == fingerprint(given),
        )
    )
    return changed_rows(spent) > 0


async def _tell(session: AsyncSession, actor: Actor, what: str) -> None:
    await audit.record(session, actor, f"mfa.{what}")
    await mail.send(
        session,
        "mfa_changed",
        to=await _address(session, actor),
        user_id=actor.id if actor.kind == "user" else None,
        change=f"{what}d",
        **mail.circumstances(utcnow(), actor.ip),
    )


async def _address(session: AsyncSession, actor: Actor) -> str:
    owner = _OWNERS[_kind(actor)]
    found = await session.execute(select(owner.email).where(owner.id == _id(actor)))
    return found.scalar_one()


def _id(actor: Actor) -> UUID:
    assert actor.id is not None
    return actor.id


def _kind(actor: Actor) -> AccountKind:
    assert actor.kind not in {"system", "service"}
    return cast("AccountKind", actor.kind)


def _place(row: Authenticator) -> str:
    return f"authenticators.secret:{row.id}"


def _plain(otp: str) -> str:
    """As people type it, with gaps and in any case, to what is compared."""
    return "".join(otp.split()).replace("-", "").lower()


def _new_recovery_code() -> str:
    text = base64.b32encode(secrets.token_bytes(_RECOVERY_BYTES)).decode().lower()
    return "-".join(text[i : i + 4] for i in range(0, len(text), 4))


def _qr(uri: str) -> str:
    import segno  # noqa: PLC0415 - 50 ms, for those who enroll alone

    out = BytesIO()
    segno.make(uri, error="m", micro=False).save(
        out, kind="svg", scale=4, xmldecl=False, nl=False
    )
    return out.getvalue().decode()
