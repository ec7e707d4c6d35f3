"""Files that go with messages: a message names them, and a turn reads them as it runs.

What a model gets of a file depends on the model: images and PDFs as they are where it
takes them, else the text that was found in them.
"""

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import func, select

from app.core.database import Database
from app.core.exceptions import FieldError, NotFoundError, ValidationFailedError
from app.integrations.llm.base import Block, ModelInfo, Source
from app.integrations.llm.blocks import FileBlock
from app.integrations.llm.tokens import DOCUMENT_TOKENS, estimate_blocks
from app.integrations.parsing.base import MAX_IMAGE_BYTES, PDF, SCALED_MIME
from app.integrations.storage.base import MissingObjectError, Storage
from app.models import File, FileText
from app.schemas.message import MAX_DOCUMENT_BYTES
from app.services.authorization import Principal, visible_to
from app.services.chat.framing import framed
from app.services.chat.history import Said
from app.services.file import places

MOST_PAGES = 100
"""Of a PDF that goes to a model as it is: Anthropic's limit, and Bedrock's."""

MOST_SENT = 18_000_000
"""Characters of base64 in a request, whatever its tokens: Bedrock takes 20 MB."""

_MOST_TEXT = 4_000_000
"""Characters of all files' texts in a turn: more than any model's window holds."""


@dataclass(frozen=True, slots=True)
class _Attached:
    """A file as far as it could be read: `data` is its bytes in base64."""

    file: File
    text: FileText | None
    data: str | None

    @property
    def source(self) -> Source | None:
        if self.text is None:
            return None
        return Source(
            self.file.name,
            self.text.text,
            pages=self.text.pages,
            id=str(self.file.id),
        )


class Attachments:
    def __init__(self, database: Database, storage: Storage) -> None:
        self._database = database
        self._storage = storage

    async def references(
        self, principal: Principal, file_ids: Sequence[UUID]
    ) -> list[Block]:
        """The blocks by which a message names files.

        Raises NotFoundError for one that is not theirs, and ValidationFailedError for
        one that is not ready.
        """
        if not file_ids:
            return []
        mine = visible_to(principal, File).where(File.id.in_(file_ids))
        async with self._database.unit_of_work(read_only=True) as session:
            files = {file.id: file for file in await session.scalars(mine)}
        return [
            _reference(files.get(file_id), place)
            for place, file_id in enumerate(file_ids)
        ]

    async def read(self, owner: UUID, branch: Sequence[Said]) -> "ReadAttachments":
        """Read what a branch's messages name, the newest first, while it can go."""
        ids = list(dict.fromkeys(UUID(b["file_id"]) for b in _named(branch)))
        if not ids:
            return NO_ATTACHMENTS
        files, texts = await self._rows(owner, ids)
        found: dict[UUID, _Attached] = {}
        room = MOST_SENT - _sent_already(branch)
        for file_id in ids:
            if (file := files.get(file_id)) is None:
                continue
            data = None
            size = -(-(file.scaled_size or file.size) // 3) * 4
            if _goes_as_it_is(file) and size <= room:
                data = await self._base64(file)
                room -= size
            found[file_id] = _Attached(file, texts.get(file_id), data)
        return ReadAttachments(found)

    async def _rows(
        self, owner: UUID, ids: Sequence[UUID]
    ) -> tuple[Mapping[UUID, File], Mapping[UUID, FileText]]:
        mine = (
            select(File, func.length(FileText.text))
            .join(FileText, FileText.file_id == File.id, isouter=True)
            .where(File.user_id == owner, File.id.in_(ids))
        )
        async with self._database.unit_of_work(read_only=True) as session:
            found = (await session.execute(mine)).all()
            files = {file.id: file for file, _ in found}
            lengths = {file.id: length for file, length in found if length is not None}
            wanted, room = [], _MOST_TEXT
            for file_id in ids:
                room -= lengths.get(file_id, 0)
                if file_id in lengths and room >= 0:
                    wanted.append(file_id)
            texts = await session.scalars(
                select(FileText).where(FileText.file_id.in_(wanted))
            )
            return files, {one.file_id: one for one in texts}

    async def _base64(self, file: File) -> str | None:
        place = places.scaled if file.scaled_size else places.original
        key = place(file.user_id, file.id)
        try:
            content = b"".join([piece async for piece in self._storage.read(key)])
        except MissingObjectError:
            return None
        return base64.b64encode(content).decode()


@dataclass(frozen=True, slots=True)
class ReadAttachments:
    """What a turn read of files; `shown` puts it where the messages name them."""

    _found: Mapping[UUID, _Attached]

    def shown(
        self, branch: Sequence[Said], model: ModelInfo, *, room: int
    ) -> Sequence[Said]:
        """The branch, newest first, as this model gets it.

        Raises ValidationFailedError where it takes no file of the last question, or
        where they take more than `room` tokens. Files of earlier messages that it does
        not take are named, and no more.
        """
        if not self._found and not any(_named(branch)):
            return branch
        asked = next((said for said in branch if said.role == "user"), None)
        shown: list[Said] = []
        for said in branch:
            if not any(_named([said])):
                shown.append(said)
                continue
            content = self._content(said.content, model, is_question=said is asked)
            files = self._content(said.summary_files or (), model, is_question=False)
            if said is asked:
                _check_room(content, model, room)
            shown.append(said._replace(content=content, summary_files=files))
        return shown

    def _content(
        self, blocks: Sequence[Block], model: ModelInfo, *, is_question: bool
    ) -> list[Block]:
        content: list[Block] = []
        for block in blocks:
            if block["type"] != "file":
                content.append(block)
                continue
            try:
                content.append(self._block(block, model))
            except _NotShownError as error:
                if is_question:
                    raise _wrong(f"{block['name']} {error}") from error
                content.append(_note(f"The file {block['name']} {error}"))
        return content

    def _block(self, reference: Block, model: ModelInfo) -> Block:
        """Raises _NotShownError where this model gets nothing of it."""
        one = self._found.get(UUID(reference["file_id"]))
        if one is None:
            raise _NotShownError("has been deleted")
        if one.file.kind == "image":
            return _image(one, model)
        if one.file.mime == PDF and (block := _pdf(one, model)) is not None:
            return block
        if one.text is not None:
            text = framed("attachment", one.file.name, one.text.text)
            return _block(one, {"type": "text", "text": text})
        if one.file.has_text:
            raise _NotShownError("is too long to be sent beside the others")
        raise _NotShownError(f"has no text, and {model.name} cannot read it without")


NO_ATTACHMENTS = ReadAttachments({})


class _NotShownError(Exception):
    """Why a model gets nothing of a file, to follow the file's name."""


def _named(branch: Sequence[Said]) -> Iterator[Block]:
    """Also what a summary tells of."""
    for said in branch:
        yield from (b for b in said.content if b["type"] == "file")
        yield from said.summary_files or ()


def _sent_already(branch: Sequence[Said]) -> int:
    """The characters of what stands in the messages themselves."""
    return sum(
        len(block["source"].get("data", ""))
        for said in branch
        for block in said.content
        if block["type"] in {"image", "document"}
    )


def _reference(file: File | None, place: int) -> Block:
    if file is None:
        raise NotFoundError(f"There is no file with the id at `file_ids.{place}`.")
    if file.status != "ready":
        raise _wrong(
            "is still being looked into: try again shortly"
            if file.status == "pending"
            else f"was rejected: {file.why}",
            path=f"file_ids.{place}",
        )
    return {
        "type": "file",
        "file_id": str(file.id),
        "name": file.name,
        "mime": file.mime,
        "kind": file.kind,
        "size": file.size,
    }


def _goes_as_it_is(file: File) -> bool:
    if file.kind == "image":
        return (file.scaled_size or file.size) <= MAX_IMAGE_BYTES
    return (
        file.mime == PDF
        and file.size <= MAX_DOCUMENT_BYTES
        and (file.pages or 0) <= MOST_PAGES
    )


def _image(one: _Attached, model: ModelInfo) -> Block:
    if "vision" not in model.capabilities:
        raise _NotShownError(f"is an image, and {model.name} takes none")
    if one.data is None:
        raise _NotShownError(
            f"is too large: models take images of {MAX_IMAGE_BYTES:,} bytes, and "
            f"{MOST_SENT * 3 // 4:,} of all in a chat"
        )
    mime = SCALED_MIME if one.file.scaled_size else one.file.mime
    return _block(one, {"type": "image", "source": _source(mime, one.data)})


def _pdf(one: _Attached, model: ModelInfo) -> Block | None:
    """As it is, where the model takes that and it leaves room for a chat."""
    pages = one.file.pages or 1
    if (
        one.data is None
        or "documents" not in model.capabilities
        or (one.text is not None and pages * DOCUMENT_TOKENS > model.context_window / 2)
    ):
        return None
    sent = {"type": "document", "source": _source(PDF, one.data)}
    block = _block(one, sent | {"title": one.file.name})
    block.pages = pages
    return block


def _block(one: _Attached, sent: Block) -> FileBlock:
    block = FileBlock(sent)
    block.source = one.source
    return block


def _source(mime: str, data: str) -> Block:
    return {"type": "base64", "media_type": mime, "data": data}


def _note(text: str) -> Block:
    return {"type": "text", "text": f"[{text}.]"}


def _check_room(content: Sequence[Block], model: ModelInfo, room: int) -> None:
    tokens = estimate_blocks(b for b in content if isinstance(b, FileBlock))
    if tokens > room:
        raise _wrong(
            f"take about {tokens:,} tokens, and {model.name} takes {max(room, 0):,}: "
            "attach less, or add them to a project, which is searched"
        )


def _wrong(message: str, *, path: str = "file_ids") -> ValidationFailedError:
    return ValidationFailedError(
        f"`{path}` {message}.", errors=[FieldError(path=path, message=message)]
    )
