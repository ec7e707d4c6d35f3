from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, BackgroundTasks, Form, Response, status

from app.api.deps import (
    AccountsDep,
    AuthDep,
    ClientDep,
    CurrentUser,
    RuntimeDep,
    SessionDep,
)
from app.schemas.base import Page
from app.schemas.link import Accepted
from app.schemas.user import (
    Login,
    PasswordChange,
    PasswordForm,
    RefreshRequest,
    SessionRead,
    TokenPair,
    UserCreate,
    UserRead,
)
from app.services import user as users

router = APIRouter(prefix="/auth", tags=["auth"])


@router.post(
    "/register",
    status_code=status.HTTP_201_CREATED,
    responses={
        status.HTTP_202_ACCEPTED: {
            "model": Accepted,
            "description": "Where addresses must be verified: the link is mailed.",
        }
    },
)
async def register(
    session: SessionDep,
    accounts: AccountsDep,
    client: ClientDep,
    response: Response,
    form: UserCreate,
) -> UserRead | Accepted:
    user = await accounts.register(session, form, client)
    if user is not None:
        return UserRead.model_validate(user)
    response.status_code = status.HTTP_202_ACCEPTED
    return Accepted()


@router.post("/login")
async def login(
    session: SessionDep,
    runtime: RuntimeDep,
    client: ClientDep,
    background: BackgroundTasks,
    form: Login,
) -> TokenPair:
    done = await runtime.auth.login(session, form, client)
    if done.outdated_hash is not None:
        background.add_task(
            runtime.auth.renew_hash,
            runtime.database,
            outdated=done.outdated_hash,
            password=form.password,
        )
    return done.tokens


@router.post("/token")
async def token(
    session: SessionDep,
    runtime: RuntimeDep,
    client: ClientDep,
    background: BackgroundTasks,
    form: Annotated[PasswordForm, Form()],
) -> TokenPair:
    """Log in by an OAuth2 password form, as Swagger's Authorize button does."""
    as_json = Login(login=form.username, password=form.password, otp=form.otp)
    return await login(session, runtime, client, background, as_json)


@router.post("/refresh")
async def refresh(
    session: SessionDep, auth: AuthDep, form: RefreshRequest
) -> TokenPair:
    return await auth.refresh(session, form.refresh_token)


@router.post("/logout", status_code=status.HTTP_204_NO_CONTENT)
async def logout(session: SessionDep, auth: AuthDep, form: RefreshRequest) -> None:
    await auth.logout(session, form.refresh_token)


@router.post("/change-password", status_code=status.HTTP_204_NO_CONTENT)
async def change_password(
    session: SessionDep,
    auth: AuthDep,
    user: CurrentUser,
    client: ClientDep,
    form: PasswordChange,
) -> None:
    await auth.change_password(session, user, form, client)


@router.get("/me")
async def me(session: SessionDep, user: CurrentUser) -> UserRead:
    return UserRead.model_validate(await users.get(session, user))


@router.get("/sessions")
async def sessions(
    session: SessionDep, auth: AuthDep, user: CurrentUser
) -> Page[SessionRead]:
    return Page(items=await auth.sessions(session, user))


@router.delete("/sessions/{session_id}", status_code=status.HTTP_204_NO_CONTENT)
async def end_session(
    session: SessionDep, auth: AuthDep, user: CurrentUser, session_id: UUID
) -> None:
    await auth.end_session(session, user, session_id)
