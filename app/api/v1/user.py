from fastapi import APIRouter

from app.api.deps import CurrentUser, SessionDep
from app.schemas.user import UserRead, UserUpdate
from app.services import user as users

router = APIRouter(prefix="/users", tags=["users"])


@router.get("/me")
async def get_profile(session: SessionDep, user: CurrentUser) -> UserRead:
    return UserRead.model_validate(await users.get(session, user))


@router.patch("/me")
async def change_profile(
    session: SessionDep, user: CurrentUser, form: UserUpdate
) -> UserRead:
    return UserRead.model_validate(await users.change(session, user, form))
