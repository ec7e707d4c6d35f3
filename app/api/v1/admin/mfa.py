"""An admin's own second factor."""

from fastapi import APIRouter, Response, status

from app.api.deps import (
    ClientDep,
    EnrollingAdmin,
    FreshEnrollingAdmin,
    RuntimeDep,
    SessionDep,
)
from app.schemas.mfa import EnrolmentRead, MfaRead, OtpForm, RecoveryCodesRead

router = APIRouter(prefix="/auth/mfa")
_ONCE = {"Cache-Control": "no-store"}


@router.get("")
async def admin_mfa(
    session: SessionDep, runtime: RuntimeDep, admin: EnrollingAdmin, client: ClientDep
) -> MfaRead:
    actor = admin.actor(client.ip)
    return MfaRead.model_validate(await runtime.mfa.standing(session, actor))


@router.post("/totp/enroll")
async def admin_mfa_enroll(
    session: SessionDep,
    runtime: RuntimeDep,
    admin: FreshEnrollingAdmin,
    client: ClientDep,
    response: Response,
) -> EnrolmentRead:
    response.headers.update(_ONCE)
    actor = admin.actor(client.ip)
    return EnrolmentRead.model_validate(await runtime.mfa.enroll(session, actor))


@router.post("/totp/confirm")
async def admin_mfa_confirm(
    session: SessionDep,
    runtime: RuntimeDep,
    admin: FreshEnrollingAdmin,
    client: ClientDep,
    *,
    response: Response,
    form: OtpForm,
) -> RecoveryCodesRead:
    response.headers.update(_ONCE)
    actor = admin.actor(client.ip)
    codes = await runtime.mfa.confirm(session, actor, form.otp)
    return RecoveryCodesRead(recovery_codes=codes)


@router.post("/totp/disable", status_code=status.HTTP_204_NO_CONTENT)
async def admin_mfa_disable(
    session: SessionDep,
    runtime: RuntimeDep,
    admin: FreshEnrollingAdmin,
    client: ClientDep,
    form: OtpForm,
) -> None:
    actor = admin.actor(client.ip)
    await runtime.mfa.disable(session, actor, form.otp)
