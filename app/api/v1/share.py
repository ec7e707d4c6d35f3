"""Shared branches, for everybody who has the link: as JSON and as a page."""

from collections.abc import AsyncIterator
from html import escape

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, Response, StreamingResponse

from app.api.deps import RuntimeDep, SessionDep
from app.core.database import Database
from app.core.exceptions import NotFoundError
from app.integrations.llm.base import Block
from app.models import ChatShare
from app.schemas.message import SharedMessage, SharedRead
from app.services.chat import share as shares

router = APIRouter(prefix="/shared", tags=["chats"])
page = APIRouter(include_in_schema=False)

# Revoked means gone: no cache may keep it, and no search engine may show it.
_HEADERS = {"Cache-Control": "no-store", "X-Robots-Tag": "noindex, nofollow"}
_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex, nofollow">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 1rem/1.6 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto;
  padding: 0 1rem; }}
h1 {{ font-size: 1.6rem; }}
h2 {{ font-size: .85rem; margin: 0; opacity: .7; }}
article {{ padding: .8rem 1rem; margin: 1rem 0; border-radius: .5rem; }}
article.user {{ background: color-mix(in srgb, currentColor 8%, transparent); }}
pre {{ font: inherit; white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; }}
img {{ display: block; max-width: 100%; margin: .4rem 0; }}
footer {{ font-size: .85rem; opacity: .7; }}
</style>
</head>
<body>
<h1>{title}</h1>
<main>
"""
_MESSAGE = """<article class="{role}">
<h2>{speaker}</h2>
{content}</article>
"""
_FOOT = """</main>
<footer>{note}</footer>
</body>
</html>
"""
_SPEAKERS = {"user": "Question", "assistant": "Answer"}


@router.get("/{token}", response_model=SharedRead)
async def read_shared_chat(
    session: SessionDep, runtime: RuntimeDep, token: str
) -> Response:
    """Read a shared chat; no account is needed."""
    share = await shares.opened(session, token)
    body = _json(runtime.database, share)
    return StreamingResponse(body, media_type="application/json", headers=_HEADERS)


@page.get("/shared/{token}", response_class=HTMLResponse)
async def show_shared_chat(
    session: SessionDep, runtime: RuntimeDep, token: str
) -> Response:
    try:
        share = await shares.opened(session, token)
    except NotFoundError as error:
        gone = _HEAD.format(title="Not found") + _FOOT.format(note=escape(error.detail))
        return HTMLResponse(gone, status_code=error.status, headers=_HEADERS)
    body = _html(runtime.database, share, runtime.settings.server.app_name)
    return StreamingResponse(
        body, media_type="text/html; charset=utf-8", headers=_HEADERS
    )


async def _json(database: Database, share: ChatShare) -> AsyncIterator[str]:
    empty = SharedRead(title=share.title, created_at=share.created_at, items=[])
    head, _, tail = empty.model_dump_json().partition('"items":[')
    yield head + '"items":['
    comma = ""
    async for messages in shares.messages(database, share):
        yield comma + ",".join(message.model_dump_json() for message in messages)
        comma = ","
    yield tail


async def _html(database: Database, share: ChatShare, name: str) -> AsyncIterator[str]:
    yield _HEAD.format(title=escape(share.title or "Shared chat"))
    async for messages in shares.messages(database, share):
        yield "".join(_article(message) for message in messages)
    day = share.created_at.date().isoformat()
    yield _FOOT.format(note=f"Shared from {escape(name)} on {day}, read only.")


def _article(message: SharedMessage) -> str:
    """Empty for a reply that failed before its first word."""
    parts = [_block(block) for block in message.content]
    if not parts:
        return ""
    if named := dict.fromkeys(c.source for c in message.citations):
        parts.append(f"<p>Sources: {escape(', '.join(named))}</p>\n")
    model = f" by {message.model}" if message.model else ""
    return _MESSAGE.format(
        role=message.role,
        speaker=escape(_SPEAKERS[message.role] + model),
        content="".join(parts),
    )


def _block(block: Block) -> str:
    match block["type"]:
        case "image":
            source = block["source"]
            data = f"data:{source['media_type']};base64,{source['data']}"
            return f'<img alt="Image" src="{escape(data)}">\n'
        case "document":
            return f"<p>Document: {escape(block['title'] or 'untitled')}</p>\n"
        case _:
            return f'<pre dir="auto">\n{escape(block["text"])}</pre>\n'
