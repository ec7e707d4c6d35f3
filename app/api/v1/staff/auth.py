from fastapi import APIRouter, BackgroundTasks, status

from app.api.deps import AnyStaff, ClientDep, RuntimeDep, SessionDep
from app.schemas.desk import StaffRead
from app.schemas.user import Login, RefreshRequest, TokenPair
from app.services.desk import accounts

router = APIRouter(prefix="/auth")


@router.post("/login")
async def staff_login(
    session: SessionDep,
    runtime: RuntimeDep,
    client: ClientDep,
    background: BackgroundTasks,
    form: Login,
) -> TokenPair:
    done = await runtime.desk.login(session, "staff", form, client)
    if done.outdated_hash is not None:
        background.add_task(
            runtime.desk.renew_hash,
            runtime.database,
            "staff",
            outdated=done.outdated_hash,
            password=form.password,
        )
    return done.tokens


@router.post("/refresh")
async def staff_refresh(
    session: SessionDep, runtime: RuntimeDep, form: RefreshRequest
) -> TokenPair:
    return await runtime.desk.refresh(session, "staff", form.refresh_token)


@router.post("/logout", status_code=status.HTTP_204_NO_CONTENT)
async def staff_logout(
    session: SessionDep, runtime: RuntimeDep, form: RefreshRequest
) -> None:
    await runtime.desk.logout(session, form.refresh_token)


@router.get("/me")
async def staff_me(session: SessionDep, staff: AnyStaff) -> StaffRead:
    return StaffRead.model_validate(await accounts.myself(session, staff))
