from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Header, Request, status
from fastapi.responses import Response, StreamingResponse

from app.api.deps import CurrentUser, PageDep, RuntimeDep, SessionDep
from app.api.multipart import FileForm
from app.integrations.parsing.base import THUMBNAIL_MIME
from app.schemas.base import Page
from app.schemas.file import DownloadUrl, FileRead, FileTextRead, FileUpdate
from app.services.file import content, files, reading

# No keys of idempotency here: for those an upload would have to be kept in memory, and
# the same bytes are the same file anyway.
router = APIRouter(prefix="/files", tags=["files"])

_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            }
        },
    }
}
_SAFE = {
    # Whatever a browser makes of it, it gets no script, no origin and no network.
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cache-Control": "private, no-cache",
}
_BYTES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file, as an attachment.",
        "content": {"application/octet-stream": {}},
    },
    206: {"description": "The part of it that was asked for."},
    304: {"description": "It is the one that you have."},
}
_PICTURE: dict[int | str, dict[str, Any]] = {
    200: {"description": "A small picture.", "content": {THUMBNAIL_MIME: {}}}
}


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    responses={200: {"description": "The file that had these bytes already."}},
    response_model=FileRead,
    openapi_extra=_FORM,
)
async def upload_file(
    request: Request, runtime: RuntimeDep, user: CurrentUser, response: Response
) -> Any:
    """Upload a file; it is `pending` until it was looked into."""
    form = await FileForm.opened(request)
    file, is_new = await runtime.files.uploads.store(user, form.name, form.chunks())
    if not is_new:
        response.status_code = status.HTTP_200_OK
    return file


@router.get("")
async def list_files(
    session: SessionDep, user: CurrentUser, page: PageDep
) -> Page[FileRead]:
    """The newest first."""
    found, following = await files.listing(session, user, page)
    items = [FileRead.model_validate(file) for file in found]
    return Page(items=items, next_cursor=following)


@router.get("/{file_id}")
async def get_file(session: SessionDep, user: CurrentUser, file_id: UUID) -> FileRead:
    return FileRead.model_validate(await files.get(session, user, file_id))


@router.patch("/{file_id}")
async def rename_file(
    session: SessionDep, user: CurrentUser, file_id: UUID, form: FileUpdate
) -> FileRead:
    return FileRead.model_validate(await files.change(session, user, file_id, form))


@router.delete("/{file_id}", status_code=status.HTTP_204_NO_CONTENT)
async def delete_file(session: SessionDep, user: CurrentUser, file_id: UUID) -> None:
    await files.delete(session, user, file_id)


@router.get("/{file_id}/content", response_class=Response, responses=_BYTES)
async def download_file(
    session: SessionDep,
    runtime: RuntimeDep,
    user: CurrentUser,
    file_id: UUID,
    *,
    wanted: Annotated[str | None, Header(alias="Range")] = None,
    if_range: Annotated[str | None, Header()] = None,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """The file itself, or one range of its bytes."""
    scanned = runtime.files.scanned
    part = await content.download(
        session, user, file_id, wanted=wanted, scanned=scanned
    )
    tag = f'"{part.file.sha256}"'
    if if_range not in {None, tag}:  # what they have a part of is another one
        part = await content.download(
            session, user, file_id, wanted=None, scanned=scanned
        )
    headers = {**_SAFE, "ETag": tag, "Accept-Ranges": "bytes"}
    if if_none_match == tag:
        return Response(status_code=status.HTTP_304_NOT_MODIFIED, headers=headers)
    headers["Content-Disposition"] = content.disposition(part.file.name)
    headers["Content-Length"] = str(part.end - part.start)
    if part.is_part:
        whole = part.file.size
        headers["Content-Range"] = f"bytes {part.start}-{part.end - 1}/{whole}"
    pieces = content.pieces(runtime.storage, runtime.principals, user, part)
    return StreamingResponse(
        await content.begun(pieces),
        status_code=(
            status.HTTP_206_PARTIAL_CONTENT if part.is_part else status.HTTP_200_OK
        ),
        media_type=part.file.mime,
        headers=headers,
    )


@router.get("/{file_id}/download-url")
async def get_download_url(
    session: SessionDep,
    runtime: RuntimeDep,
    user: CurrentUser,
    file_id: UUID,
    response: Response,
) -> DownloadUrl:
    """An address of the storage itself, good for 5 minutes, where files are on S3."""
    response.headers["Cache-Control"] = "no-store"
    found = await content.address(
        session, runtime.storage, user, file_id, scanned=runtime.files.scanned
    )
    return DownloadUrl(url=found.url, expires_at=found.expires_at)


@router.get("/{file_id}/thumbnail", response_class=Response, responses=_PICTURE)
async def get_thumbnail(
    session: SessionDep, runtime: RuntimeDep, user: CurrentUser, file_id: UUID
) -> Response:
    """A small picture of an image, or of a PDF's first page."""
    pieces = await content.thumbnail(session, runtime.storage, user, file_id)
    pieces = await content.begun(pieces)
    return StreamingResponse(pieces, media_type=THUMBNAIL_MIME, headers=_SAFE)


@router.get("/{file_id}/text")
async def get_file_text(
    session: SessionDep, user: CurrentUser, file_id: UUID
) -> FileTextRead:
    """The text in it, as models and searches get it."""
    found = await reading.text_of(session, user, file_id)
    return FileTextRead(name=found.name, text=found.text, pages=found.pages)
