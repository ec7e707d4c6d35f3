"""Messages with blocks that no small model would take or write, as turns store them."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from uuid_utils.compat import uuid7

from app.models import Chat, Message
from tests.conftest import Server


async def store_branch(
    server: Server, chat: str, contents: Sequence[list[dict[str, Any]]]
) -> None:
    """Add messages to a chat, a question and a reply in turn."""
    async with server.runtime.database.unit_of_work() as session:
        row = await session.get_one(Chat, UUID(chat))
        for number, content in enumerate(contents):
            role = "assistant" if number % 2 else "user"
            message = Message(
                id=uuid7(), chat_id=row.id, parent_id=row.leaf_id, role=role,
                content=content,
            )  # fmt: skip
            session.add(message)
            await session.flush()
            row.leaf_id = message.id
