from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.exceptions import ConflictError, FieldError
from app.models import User
from app.schemas.user import UserUpdate
from app.services.authorization import Principal


async def get(session: AsyncSession, principal: Principal) -> User:
    return await session.get_one(User, principal.user_id)


async def change(session: AsyncSession, principal: Principal, form: UserUpdate) -> User:
    """Raises ConflictError where another account has the username."""
    user = await get(session, principal)
    for field, value in form.model_dump(exclude_unset=True).items():
        setattr(user, field, value)
    try:
        await session.flush()
    except IntegrityError as error:
        raise ConflictError(
            "There is already an account with this name.",
            code="username_taken",
            errors=[FieldError(path="username", message="is taken")],
        ) from error
    return user
