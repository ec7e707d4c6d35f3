"""The turns of this process: how they begin, go on, and end."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from uuid import UUID

from app.core.bus import Bus
from app.core.config import LiveSettings
from app.core.database import Database, utcnow
from app.core.exceptions import BadRequestError, UnavailableError
from app.core.statements import Script
from app.integrations.llm.base import Usage
from app.integrations.llm.routes import as_one
from app.integrations.llm.routing import Candidate, Router
from app.models import Message
from app.models.message import text_of
from app.schemas.message import MessageCreate, MessageEdit, Regeneration
from app.services import idempotency
from app.services.authorization import Principal, require
from app.services.chat import history
from app.services.chat.beginning import (
    TurnInProgressError,
    begin,
    new_question,
    new_reply,
    reopen,
    require_continuable,
)
from app.services.chat.books import Books
from app.services.chat.checkpoints import Checkpoints
from app.services.chat.choices import Choice, Choices
from app.services.chat.following import Following
from app.services.chat.history import ChatFacts, Said
from app.services.chat.relay import Writer
from app.services.chat.reply import Reply, continuable
from app.services.chat.search_index import SearchIndex
from app.services.chat.slots import Slot, Slots
from app.services.chat.turn import Ending, Turn
from app.services.file.attachments import Attachments
from app.services.knowledge.retrieval import Retrieval
from app.services.principal import Principals

_STOP, _ABANDON = "turn.stop", "chat.abandon"  # what processes ask of each other
_STOP_SECONDS, _STOP_POLL_SECONDS = 5, 0.05


class Turns:
    def __init__(
        self,
        live: LiveSettings,
        *,
        database: Database,
        router: Router,
        principals: Principals,
        bus: Bus,
        books: Books,
        attachments: Attachments,
        retrieval: Retrieval,
        index: SearchIndex,
    ) -> None:
        settings = live.started
        self._choices = Choices(live, database, attachments, retrieval)
        self._slots = Slots(settings.turns)
        self._lease = timedelta(seconds=settings.turns.lease_seconds)
        self._database = database
        self._router = router
        self._running: dict[UUID, Turn] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._bus = bus
        self._books = books
        self._attachments = attachments
        self._index = index
        self._checkpoints = Checkpoints(
            settings.turns, database=database, running=self._running, bus=bus
        )
        self.following = Following(
            settings.turns,
            database=database,
            principals=principals,
            running=self._running,
            bus=bus,
        )
        self._draining = False

    # Beginning

    async def send(
        self, principal: Principal, chat_id: UUID, form: MessageCreate
    ) -> Turn:
        """Store the user's message and an empty reply, and start the turn.

        Nothing is stored where it is refused: NotFoundError, BadRequestError for the
        model, ProviderRejectedError for what the model does not take, ConflictError
        beside another turn, OverloadedError over capacity, RateLimitedError for a user
        with too many turns.
        """
        self._admit()
        files = await self._attachments.references(principal, form.file_ids)
        chat, above = await history.read(
            self._database, principal.user_id, chat_id, start=form.parent_id
        )
        question = new_question([*files, *form.blocks], above=above)
        branch = [question, *above]
        return await self._begin(
            principal, chat, branch, model=form.model, question=question
        )

    async def edit(
        self, principal: Principal, message_id: UUID, form: MessageEdit
    ) -> Turn:
        """Store another version of a user's message beside it; begin its reply."""
        self._admit()
        message = await self._message(principal, message_id)
        if message.role != "user":
            raise BadRequestError(
                "Only a user's message can be edited; a reply is regenerated."
            )
        files = await self._attachments.references(principal, form.file_ids)
        chat, (_, *above) = await self._history(principal, message)
        question = new_question([*files, *form.blocks], above=above)
        branch = [question, *above]
        return await self._begin(
            principal, chat, branch, question=question, anywhere=True
        )

    async def regenerate(
        self, principal: Principal, message_id: UUID, form: Regeneration
    ) -> Turn:
        """Begin another reply beside one that has ended."""
        self._admit()
        message = await self._message(principal, message_id)
        if message.role != "assistant":
            raise BadRequestError(
                "Only a reply can be regenerated; a user's message is edited."
            )
        if message.status == "streaming":
            raise TurnInProgressError(message.id)
        chat, (_, *above) = await self._history(principal, message)
        return await self._begin(
            principal,
            chat,
            above,
            model=form.model,
            siblings=message.siblings,
            anywhere=True,
        )

    async def _begin(
        self,
        principal: Principal,
        chat: ChatFacts,
        branch: Sequence[Said],
        *,
        model: str | None = None,
        question: Said | None = None,
        siblings: str = "",
        anywhere: bool = False,
    ) -> Turn:
        """Store a `question` that is new and an empty reply to `branch[0]`; start.

        `anywhere`: whatever the chat shows by now, for no two turns contend for the
        place of this one.
        """
        name = model or chat.model
        candidates = await self._router.candidates(name)
        reply = new_reply(
            chat,
            parent_id=branch[0].id,
            model=name,
            siblings=siblings,
            lease_expires_at=utcnow() + self._lease,
        )
        turn = await self._turn(
            principal, chat, branch, candidates, message=reply, reply=Reply()
        )
        script = begin(chat, question, reply, anywhere=anywhere)
        await self._store_and_start(principal, turn, script, conversation=True)
        if question is not None:
            self._index.add(chat.id, question.id, text_of(question.content))
        return turn

    async def preview(
        self,
        principal: Principal,
        chat: ChatFacts,
        branch: Sequence[Said],
        *,
        model: str | None,
    ) -> Choice:
        """What the first model that may answer would be asked; nothing begins."""
        candidates = await self._router.candidates(model or chat.model)
        of = await self._choices.of(chat, branch, candidates, key=principal.key)
        return of[0]

    async def default_model(self) -> str:
        return await self._router.providers.default_name()

    async def resume(self, principal: Principal, message_id: UUID) -> Turn:
        """Go on with a reply that was interrupted, stopped, cut off or failed."""
        self._admit()
        message = await self._message(principal, message_id)
        chat, branch = await self._history(principal, message)
        require_continuable(message, chat)
        name = message.model or chat.model
        if self._router.leads_to(chat.model, name):
            name = chat.model  # by the name that was asked for, and may be asked for
        candidates = await self._router.candidates(name)
        reply = Reply(
            continuable(message.content),
            message.citations,
            attempt=message.attempt + 1,
        )
        turn = await self._turn(
            principal, chat, branch, candidates, message=message, reply=reply
        )
        turn.earlier = Usage(**message.usage) if message.usage else None
        changes = {
            "status": "streaming",
            "attempt": reply.attempt,
            "content": reply.content,
            "resumed_from": str(reply.resumed_from),
            "stop_reason": None,
            "error": None,
            "lease_expires_at": utcnow() + self._lease,
        }
        await self._store_and_start(principal, turn, reopen(chat, message, changes))
        return turn

    async def _turn(
        self,
        principal: Principal,
        chat: ChatFacts,
        branch: Sequence[Said],
        candidates: Sequence[Candidate],
        *,
        message: Message,
        reply: Reply,
    ) -> Turn:
        """Raises where no model takes what is asked of it."""
        choices = await self._choices.of(chat, branch, candidates, key=principal.key)
        leans = any(choice.context.leans_on_project for choice in choices)
        project = chat.project_id if leans else None
        return Turn(
            message=message,
            choices=choices,
            router=self._router,
            reply=reply,
            question=next((one.content for one in branch if one.role == "user"), ()),
            wants_title=chat.title is None and not chat.temporary,
            leans_on=(project, chat.user_id) if project else None,
        )

    async def _store_and_start(
        self,
        principal: Principal,
        turn: Turn,
        script: Script[None],
        *,
        conversation: bool = False,
    ) -> None:
        """Raises where the user's plan, limits or credits do not allow it."""
        choices, asked = turn.choices, turn.chosen.candidate.asked
        with self._slots.taken(principal.user_id) as slot:
            turn.account = await self._books.reserve(
                principal.user_id,
                as_one(asked, [choice.model for choice in choices]),
                kind="chat",
                input_tokens=max(choice.input_estimate for choice in choices),
                output_tokens=max(choice.request.max_tokens for choice in choices),
                conversation=conversation,
                key=principal.key,
            )
            turn.account.goes_to(turn.chosen.model)
            try:
                stored = idempotency.once(script, resource_id=turn.message.id)
                await self._database.transact(stored, brief=True)
                self._start(turn, slot)
            finally:
                if not slot.kept:
                    turn.account.cancel()

    # Ending

    async def stop(self, principal: Principal, message_id: UUID) -> Message:
        """End a reply and keep its text; a reply that has ended stays as it is."""
        message = await self._message(principal, message_id)
        turn = self._running.get(message_id)
        if turn is None:
            return await self._stop_elsewhere(principal, message)
        turn.end("stopped")
        await turn.finished.wait()
        return turn.message

    async def _stop_elsewhere(self, principal: Principal, message: Message) -> Message:
        """Have another process stop the reply, and wait until it has."""
        self._bus.say(_STOP, message.id.bytes)
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                while message.status == "streaming":
                    await asyncio.sleep(_STOP_POLL_SECONDS)
                    message = await self._message(principal, message.id)
        except TimeoutError as error:
            raise UnavailableError(
                "The process that writes this reply does not answer: try again."
            ) from error
        return message

    def abandon(self, chat_id: UUID) -> None:
        """End the turns of a chat that was deleted, wherever they run."""
        self._bus.say(_ABANDON, chat_id.bytes)

    def abandon_messages(self, message_ids: Iterable[UUID]) -> None:
        """The same for replies that were deleted alone."""
        for message_id in message_ids:
            self._bus.say(_STOP, message_id.bytes)

    # The life of the process

    async def open(self, *, alone: bool) -> None:
        """Begin to save; `alone` where no other process runs turns on this database.

        Then whatever is still called streaming was left so by a process that died.
        """
        await self._bus.listen(_STOP, self._stop_here)
        await self._bus.listen(_ABANDON, self._abandon_here)
        await self._checkpoints.open(everything=alone)

    def stop_admitting(self) -> None:
        self._draining = True

    async def drain(self, seconds: float) -> None:
        """Let running replies end for so long, then interrupt the rest."""
        self.stop_admitting()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        self._end_all("interrupted", lambda _turn: True)
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        await self._checkpoints.close()
        await self._bus.unlisten(_STOP, self._stop_here)
        await self._bus.unlisten(_ABANDON, self._abandon_here)

    @property
    def running(self) -> int:
        return len(self._running)

    def _admit(self) -> None:
        if self._draining:
            raise UnavailableError("This server is shutting down: try again shortly.")

    def _stop_here(self, message_id: bytes) -> None:
        turn = self._running.get(UUID(bytes=message_id))
        if turn is not None:
            turn.end("stopped")

    def _abandon_here(self, chat_id: bytes) -> None:
        gone = UUID(bytes=chat_id)
        self._end_all("stopped", lambda turn: turn.message.chat_id == gone)

    def _start(self, turn: Turn, slot: Slot) -> None:
        slot.keep()
        self._running[turn.message.id] = turn
        task = asyncio.create_task(self._run(turn))
        task.add_done_callback(lambda _: slot.give_back())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, turn: Turn) -> None:
        writer = None
        if self._bus.shared:
            writer = Writer(self._bus, turn.message.id, turn.reply)
            turn.on_event = writer.tell
        try:
            await turn.run(self._database, self._index)
        finally:
            del self._running[turn.message.id]
            if writer is not None:
                writer.end()

    def _end_all(self, how: Ending, which: Callable[[Turn], bool]) -> None:
        for turn in self._running.values():
            if which(turn):
                turn.end(how)

    async def _message(self, principal: Principal, message_id: UUID) -> Message:
        async with self._database.unit_of_work(read_only=True) as session:
            return await require(session, principal, Message, message_id)

    async def _history(
        self, principal: Principal, message: Message
    ) -> tuple[ChatFacts, list[Said]]:
        """The message's chat, and the branch from the message up."""
        return await history.read(
            self._database, principal.user_id, message.chat_id, start=message.id
        )
