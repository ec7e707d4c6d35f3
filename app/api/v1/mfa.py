"""One's own second factor."""

from fastapi import APIRouter, Response, status

from app.api.deps import AnyUser, ClientDep, CurrentUser, RuntimeDep, SessionDep
from app.schemas.mfa import EnrolmentRead, MfaRead, OtpForm, RecoveryCodesRead
from app.services import user as users
from app.services.audit import Actor

router = APIRouter(prefix="/auth/mfa", tags=["auth"])
_ONCE = {"Cache-Control": "no-store"}


@router.get("")
async def read(session: SessionDep, runtime: RuntimeDep, user: AnyUser) -> MfaRead:
    standing = await runtime.mfa.standing(session, user.user_id, "user")
    return MfaRead.model_validate(standing)


@router.post("/totp/enroll")
async def enroll(
    session: SessionDep,
    runtime: RuntimeDep,
    user: AnyUser,
    client: ClientDep,
    *,
    response: Response,
) -> EnrolmentRead:
    response.headers.update(_ONCE)
    owner = await users.get(session, user)
    actor = Actor("user", user.user_id, client.ip)
    made = await runtime.mfa.enroll(session, actor, label=owner.email)
    return EnrolmentRead.model_validate(made)


@router.post("/totp/confirm")
async def confirm(
    session: SessionDep,
    runtime: RuntimeDep,
    user: AnyUser,
    client: ClientDep,
    *,
    response: Response,
    form: OtpForm,
) -> RecoveryCodesRead:
    response.headers.update(_ONCE)
    actor = Actor("user", user.user_id, client.ip)
    codes = await runtime.mfa.confirm(session, actor, form.otp)
    runtime.principals.reload(session, user)
    return RecoveryCodesRead(recovery_codes=codes)


@router.post("/totp/disable", status_code=status.HTTP_204_NO_CONTENT)
async def disable(
    session: SessionDep,
    runtime: RuntimeDep,
    user: CurrentUser,
    client: ClientDep,
    form: OtpForm,
) -> None:
    actor = Actor("user", user.user_id, client.ip)
    await runtime.mfa.disable(session, actor, form.otp)
