"""What each model that may write a reply would be asked."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.core.config import LiveSettings
from app.core.database import Database
from app.core.exceptions import AppError
from app.integrations.llm.base import ChatRequest, ModelInfo
from app.integrations.llm.blocks import require_capabilities
from app.integrations.llm.routing import Candidate
from app.models import KeyLimits
from app.services.chat.context import Context, assemble
from app.services.chat.history import ChatFacts, Said
from app.services.chat.offers import Gathered, gather
from app.services.file.attachments import Attachments, ReadAttachments
from app.services.knowledge.retrieval import Retrieval


@dataclass(frozen=True, slots=True)
class Choice:
    """A model that may write the reply, and what it would be asked."""

    candidate: Candidate
    request: ChatRequest
    context: Context

    @property
    def input_estimate(self) -> int:
        return self.context.tokens

    @property
    def model(self) -> ModelInfo:
        return self.candidate.model


class Choices:
    def __init__(
        self,
        live: LiveSettings,
        database: Database,
        attachments: Attachments,
        retrieval: Retrieval,
    ) -> None:
        self._live = live
        self._database = database
        self._attachments = attachments
        self._retrieval = retrieval

    async def of(
        self,
        chat: ChatFacts,
        branch: Sequence[Said],
        candidates: Sequence[Candidate],
        *,
        key: KeyLimits | None,
    ) -> list[Choice]:
        """Those that take what is asked of them, in the order of the candidates.

        `key` is the API key by which it is asked, if any.
        Raises the first one's refusal where none does.
        """
        rooms = [one.model.context_window - self._most(one.model) for one in candidates]
        gathered = await gather(
            self._database, self._retrieval, chat, branch, rooms, key=key
        )
        attached = await self._attachments.read(chat.user_id, branch)
        choices: list[Choice] = []
        refusals: list[AppError] = []
        for candidate in candidates:
            try:
                choices.append(self._choice(gathered, branch, attached, candidate))
            except AppError as error:
                refusals.append(error)
        if not choices:
            raise refusals[0]
        return choices

    def _choice(
        self,
        gathered: Gathered,
        branch: Sequence[Said],
        attached: ReadAttachments,
        candidate: Candidate,
    ) -> Choice:
        """Raises where this model does not take what is asked of it."""
        model, most = candidate.model, self._most(candidate.model)
        room = model.context_window - most
        context = assemble(
            attached.shown(branch, model, room=room),
            model=model,
            max_output_tokens=most,
            offers=gathered.offers(room),
        )
        request = ChatRequest(
            model.id,
            context.messages,
            context.system,
            most,
            sources=context.sources,
            question=context.question,
        )
        require_capabilities(request, model)
        return Choice(candidate, request, context)

    def _most(self, model: ModelInfo) -> int:
        """The tokens of an answer."""
        return min(self._live.current.models.max_output_tokens, model.max_output_tokens)
