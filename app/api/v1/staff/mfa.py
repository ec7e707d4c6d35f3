"""The second factor of a member of the staff."""

from fastapi import APIRouter, Response, status

from app.api.deps import (
    ClientDep,
    EnrollingStaff,
    FreshEnrollingStaff,
    RuntimeDep,
    SessionDep,
)
from app.schemas.mfa import EnrolmentRead, MfaRead, OtpForm, RecoveryCodesRead

router = APIRouter(prefix="/auth/mfa")
_ONCE = {"Cache-Control": "no-store"}


@router.get("")
async def staff_mfa(
    session: SessionDep, runtime: RuntimeDep, staff: EnrollingStaff, client: ClientDep
) -> MfaRead:
    actor = staff.actor(client.ip)
    return MfaRead.model_validate(
        await runtime.mfa.standing(session, actor, level=staff.level)
    )


@router.post("/totp/enroll")
async def staff_mfa_enroll(
    session: SessionDep,
    runtime: RuntimeDep,
    staff: FreshEnrollingStaff,
    client: ClientDep,
    response: Response,
) -> EnrolmentRead:
    response.headers.update(_ONCE)
    actor = staff.actor(client.ip)
    return EnrolmentRead.model_validate(await runtime.mfa.enroll(session, actor))


@router.post("/totp/confirm")
async def staff_mfa_confirm(
    session: SessionDep,
    runtime: RuntimeDep,
    staff: FreshEnrollingStaff,
    client: ClientDep,
    *,
    response: Response,
    form: OtpForm,
) -> RecoveryCodesRead:
    response.headers.update(_ONCE)
    actor = staff.actor(client.ip)
    codes = await runtime.mfa.confirm(session, actor, form.otp)
    return RecoveryCodesRead(recovery_codes=codes)


@router.post("/totp/disable", status_code=status.HTTP_204_NO_CONTENT)
async def staff_mfa_disable(
    session: SessionDep,
    runtime: RuntimeDep,
    staff: FreshEnrollingStaff,
    client: ClientDep,
    form: OtpForm,
) -> None:
    actor = staff.actor(client.ip)
    await runtime.mfa.disable(session, actor, form.otp)
