"""What a turn would get to see, by the turn's own way, without beginning one."""

from uuid import UUID

from uuid_utils.compat import uuid7

from app.core.database import Database
from app.models import Project
from app.schemas.context import (
    ContextQuery,
    ContextRead,
    QuotableRead,
    SentMessage,
    ShareRead,
)
from app.services.authorization import Principal, require
from app.services.chat import history
from app.services.chat.choices import Choice
from app.services.chat.history import ChatFacts, Said
from app.services.chat.turns import Turns


async def of_project(
    database: Database,
    turns: Turns,
    principal: Principal,
    project_id: UUID,
    *,
    asked: ContextQuery,
) -> ContextRead:
    """Of the first turn of a new chat there; NotFoundError for who is not in it."""
    async with database.unit_of_work(read_only=True) as session:
        await require(session, principal, Project, project_id)
    chat = ChatFacts(
        id=uuid7(),
        user_id=principal.user_id,
        project_id=project_id,
        model=asked.model or await turns.default_model(),
        title=None,
        system_prompt=None,
        temporary=False,
        leaf_id=None,
    )
    return _shown(await turns.preview(principal, chat, [_said(asked.q)], model=None))


async def of_chat(
    database: Database,
    turns: Turns,
    principal: Principal,
    chat_id: UUID,
    *,
    asked: ContextQuery,
) -> ContextRead:
    """Of the next turn of a chat."""
    chat, above = await history.read(database, principal.user_id, chat_id, start=None)
    branch = [_said(asked.q), *above]
    return _shown(await turns.preview(principal, chat, branch, model=asked.model))


def _said(question: str) -> Said:
    """Blank, it costs next to nothing, and nothing is searched for."""
    content = [{"type": "text", "text": question or " "}]
    return Said(uuid7(), None, "user", "complete", content)


def _shown(choice: Choice) -> ContextRead:
    context = choice.context
    return ContextRead(
        model=choice.model.name,
        context_window=choice.model.context_window,
        max_output_tokens=choice.request.max_tokens,
        budget=context.budget,
        tokens=context.tokens,
        sources=[ShareRead.model_validate(one) for one in context.shares()],
        system=context.system,
        messages=[SentMessage.model_validate(one) for one in context.messages],
        quotable=[QuotableRead.model_validate(one) for one in context.sources],
    )
