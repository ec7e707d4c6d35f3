"""One's own second factor."""

from fastapi import APIRouter, Response, status

from app.api.deps import (
    ClientDep,
    EnrollingUser,
    FreshEnrollingUser,
    RuntimeDep,
    SessionDep,
)
from app.schemas.mfa import EnrolmentRead, MfaRead, OtpForm, RecoveryCodesRead
from app.services.audit import Actor

router = APIRouter(prefix="/auth/mfa", tags=["auth"])
_ONCE = {"Cache-Control": "no-store"}


@router.get("")
async def mfa(
    session: SessionDep, runtime: RuntimeDep, user: EnrollingUser, client: ClientDep
) -> MfaRead:
    actor = Actor("user", user.user_id, client.ip)
    return MfaRead.model_validate(await runtime.mfa.standing(session, actor))


@router.post("/totp/enroll")
async def mfa_enroll(
    session: SessionDep,
    runtime: RuntimeDep,
    user: FreshEnrollingUser,
    client: ClientDep,
    response: Response,
) -> EnrolmentRead:
    response.headers.update(_ONCE)
    actor = Actor("user", user.user_id, client.ip)
    return EnrolmentRead.model_validate(await runtime.mfa.enroll(session, actor))


@router.post("/totp/confirm")
async def mfa_confirm(
    session: SessionDep,
    runtime: RuntimeDep,
    user: FreshEnrollingUser,
    client: ClientDep,
    *,
    response: Response,
    form: OtpForm,
) -> RecoveryCodesRead:
    response.headers.update(_ONCE)
    actor = Actor("user", user.user_id, client.ip)
    codes = await runtime.mfa.confirm(session, actor, form.otp)
    return RecoveryCodesRead(recovery_codes=codes)


@router.post("/totp/disable", status_code=status.HTTP_204_NO_CONTENT)
async def mfa_disable(
    session: SessionDep,
    runtime: RuntimeDep,
    user: FreshEnrollingUser,
    client: ClientDep,
    form: OtpForm,
) -> None:
    actor = Actor("user", user.user_id, client.ip)
    await runtime.mfa.disable(session, actor, form.otp)
