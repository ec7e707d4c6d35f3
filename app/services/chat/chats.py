import base64
import binascii
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Boolean,
    Integer,
    Select,
    Uuid,
    bindparam,
    select,
    tuple_,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm.attributes import flag_modified

from app.core.database import Database, after_commit, utcnow
from app.core.exceptions import FieldError, ValidationFailedError
from app.core.statements import Statement
from app.integrations.llm.routing import Router
from app.models import Chat, Project
from app.schemas.chat import ChatCreate, ChatRead, ChatUpdate
from app.services.authorization import Principal, owned, require
from app.services.chat import branches, search
from app.services.chat.search_index import SearchIndex
from app.services.chat.turns import Turns

_KEEP_TEMPORARY = timedelta(days=1)
_NEVER_NULL = ("model", "archived", "pinned", "leaf_id")
_NEWS = {"title", "model", "system_prompt", "archived"}
"""What moves a chat up in the list; how people look at it does not."""


async def create(
    session: AsyncSession, principal: Principal, router: Router, form: ChatCreate
) -> Chat:
    """Raises BadRequestError for a model that is not on offer.

    And NotFoundError for a project that they are not in.
    """
    model = form.model or await router.providers.default_name()
    await router.candidates(model)
    if form.project_id is not None:
        await require(session, principal, Project, form.project_id)
    chat = Chat(
        user_id=principal.user_id,
        title=form.title,
        model=model,
        system_prompt=form.system_prompt,
        project_id=form.project_id,
        temporary=form.temporary,
    )
    session.add(chat)
    await session.flush()
    if chat.title is not None:
        await search.index_title(session, chat.id, chat.title)
    return chat


async def listing(
    database: Database,
    index: SearchIndex,
    principal: Principal,
    *,
    query: str | None,
    project_id: UUID | None,
    archived: bool,
    limit: int,
    cursor: str | None,
    offset: int,
) -> tuple[list[dict[str, Any]], str | None]:
    """A page and the cursor of the next one.

    Pinned chats first, then those changed last; what is found by a `query` runs by
    the last change alone. With a `project_id`, those of one's own that are bound to it.
    Rows of `ChatRead`'s fields, not objects: this is the read that people do most.
    """
    known: dict[str, Any] = {
        "owner": principal.user_id,
        "archived": archived,
        "limit": limit + 1,
        "offset": offset,
    }
    if cursor is not None:
        known |= zip(("pinned", "updated_at", "id"), _position(cursor), strict=True)
    after, bound = cursor is not None, project_id is not None
    if bound:
        known["project"] = project_id
    if query is None:
        asked = _all(after=after, bound=bound)(**known)
        rows = (await database.run(asked, brief=True)).rows
    else:
        await index.settle()
        statement = _page(after=after, bound=bound, searching=True)
        async with database.unit_of_work(read_only=True) as session:
            words = search.holding(session, principal.user_id, query)
            found = await session.execute(statement.where(*words), known)
        rows = [dict(row) for row in found.mappings()]
    page = rows[:limit]
    return page, _cursor(page[-1]) if len(rows) > limit else None


@cache
def _all(*, after: bool, bound: bool) -> Statement:
    return Statement(_page(after=after, bound=bound, searching=False))


@cache
def _page(*, after: bool, bound: bool, searching: bool) -> Select[Any]:
    """Built once: building it costs more than running it."""
    columns = [Chat.pinned, Chat.updated_at, Chat.id][searching:]
    statement = select(
        *(getattr(Chat, field) for field in ChatRead.model_fields)
    ).where(
        owned(Chat, bindparam("owner", type_=Uuid())),
        Chat.archived == bindparam("archived", type_=Boolean()),
        Chat.temporary.is_(False),
    )
    if bound:
        statement = statement.where(
            Chat.project_id == bindparam("project", type_=Uuid())
        )
    if after:
        place = [bindparam(column.key, type_=column.type) for column in columns]
        statement = statement.where(tuple_(*columns) < tuple_(*place))
    return (
        statement.order_by(*(column.desc() for column in columns))
        .limit(bindparam("limit", type_=Integer()))
        .offset(bindparam("offset", type_=Integer()))
    )


async def change(
    session: AsyncSession,
    principal: Principal,
    router: Router,
    chat_id: UUID,
    form: ChatUpdate,
) -> Chat:
    """Raises NotFoundError also for a `leaf_id` that stands in no chat of theirs."""
    if form.model is not None:
        await router.candidates(form.model)
    chat = await require(session, principal, Chat, chat_id, lock=True)
    changes = form.model_dump(exclude_unset=True)
    for required in _NEVER_NULL:
        if changes.get(required, ...) is None:
            changes.pop(required)
    if "leaf_id" in changes:
        shown = await branches.newest_leaf(session, chat_id, below=changes["leaf_id"])
        changes["leaf_id"] = shown
    for field, value in changes.items():
        setattr(chat, field, value)
    if not changes.keys() & _NEWS:
        flag_modified(chat, "updated_at")  # so it is written as it was
    await session.flush()
    if "title" in changes:
        await search.index_title(session, chat.id, chat.title)
    return chat


async def get(session: AsyncSession, principal: Principal, chat_id: UUID) -> Chat:
    return await require(session, principal, Chat, chat_id)


async def delete(
    session: AsyncSession, principal: Principal, turns: Turns, chat_id: UUID
) -> None:
    """Its messages go with it, and a reply that is being written ends."""
    await session.delete(await require(session, principal, Chat, chat_id))
    after_commit(session, lambda: turns.abandon(chat_id))


async def purge(database: Database) -> None:
    """Delete the temporary chats that nobody has used for a day."""
    await database.delete_in_chunks(
        Chat, Chat.temporary, Chat.updated_at < utcnow() - _KEEP_TEMPORARY
    )


def _cursor(chat: dict[str, Any]) -> str:
    place = (f"{chat['pinned']:d}", chat["updated_at"].isoformat(), chat["id"].hex)
    text = " ".join(place)
    return base64.urlsafe_b64encode(text.encode()).decode()


def _position(cursor: str) -> tuple[bool, datetime, UUID]:
    try:
        text = base64.urlsafe_b64decode(cursor.encode()).decode()
        pinned, time, row_id = text.split(" ")
        # Overflows at the ends of the calendar, so here and not in the statement.
        moment = datetime.fromisoformat(time).astimezone(UTC)
        return pinned == "1", moment, UUID(row_id)
    except (ValueError, OverflowError, binascii.Error) as error:
        message = "is no cursor of this list: send a `next_cursor` unchanged"
        raise ValidationFailedError(
            f"`cursor` {message}.", errors=[FieldError(path="cursor", message=message)]
        ) from error
