"""Short cuts give what FastAPI gives, and only where nothing is out of the ordinary."""

from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any
from uuid import UUID

import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel, Field

from app.api import errors
from app.api.shortcuts import QuickRoute, ShortCuts, Ways
from app.core.exceptions import ForbiddenError
from app.main import create_app
from tests.conftest import SettingsFactory
from tests.unit.middleware.asgi import Answer, ask

made: list[str] = []


class Form(BaseModel):
    text: str
    count: int = Field(1, ge=0)


class Paging(BaseModel):
    limit: int = Query(20, le=100)
    tags: list[str] = []


async def one(request: Request) -> str:
    made.append("one")
    return request.headers.get("x-one", "none")


async def two(first: Annotated[str, Depends(one)]) -> str:
    if first == "forbidden":
        raise ForbiddenError("Not you.")
    return f"two of {first}"


async def opened() -> AsyncIterator[str]:
    made.append("opened")
    yield "open"
    made.append("closed")


async def doorman(request: Request) -> None:
    if "x-pass" not in request.headers:
        raise ForbiddenError("Nobody comes in here.")


async def gate(request: Request) -> None:
    made.append("gate")
    if "x-closed" in request.headers:
        raise ForbiddenError("It is closed.")


One = Annotated[str, Depends(one)]
Two = Annotated[str, Depends(two)]
Text = PlainTextResponse
inner = APIRouter(prefix="/things")
guarded = APIRouter(prefix="/guarded")


@inner.get("")
async def listing(
    a: One, b: Two, page: Annotated[Paging, Query()], *, deep: bool = False
) -> Text:
    return Text(f"{a} {b} {page} {deep}")


@inner.get("/{thing}")
async def get(thing: UUID, b: Two) -> Text:
    return Text(f"{thing!r} {b}")


@inner.post("")
async def create(b: Two, thing: dict[str, Any]) -> Text:
    return Text(f"{b} {thing}", status_code=201)


@inner.post("/{thing}")
async def change(thing: UUID, b: Two, form: Form, *, deep: bool = False) -> Text:
    return Text(f"{thing} {b} {form!r} {deep}", status_code=201)


@inner.post("/maybe/nothing")
async def maybe(b: Two, form: Form | None = None) -> Text:
    return Text(f"{b} {form!r}")


@inner.get("/as/model")
async def as_model(b: Two) -> dict[str, str]:
    return {"b": b}


@inner.get("/with/header")
async def with_header(x_one: Annotated[str, Header()]) -> Text:
    return Text(x_one)


@inner.get("/with/open")
async def with_open(held: Annotated[str, Depends(opened)]) -> Text:
    made.append("used")
    return Text(held)


@inner.get("/with/thread")
def in_a_thread(b: Two) -> Text:
    return Text(b)


@inner.get("/{thing}/{rest:path}")
async def beneath(thing: int, rest: str, request: Request) -> Text:
    return Text(f"{thing} {rest} {request.method}")


@guarded.get("")
async def inside(b: Two) -> Text:
    return Text(b)


def build(*, short: bool) -> FastAPI:
    api = APIRouter(prefix="/api")
    api.include_router(inner)
    api.include_router(guarded, dependencies=[Depends(doorman)])
    root = APIRouter()
    root.include_router(api)
    app = FastAPI(redirect_slashes=False, dependencies=[Depends(gate)])
    app.include_router(root)
    if short:
        ways = Ways(app.routes)
        app.router.routes.insert(0, QuickRoute(ways))
        app.add_middleware(ShortCuts, ways=ways)
    errors.install(app)
    return app


APPS = [build(short=False), build(short=True)]
ID = str(UUID(int=7))
T = "/api/things"
CASES: list[tuple[str, str, dict[str, str]]] = [
    (T, "", {}),
    (T, "limit=7&tags=a&tags=b&deep=1&unknown=x", {"X-One": "1"}),
    (T, "limit=7&limit=8", {}),
    (T, "limit=101&deep=perhaps", {}),
    (T, "limit=seven", {"X-One": "forbidden"}),
    (T, "limit=7" + "&x=1" * 200, {}),
    (T, "", {"X-One": "forbidden"}),
    (T, "", {"X-Closed": "today"}),
    (f"{T}/", "", {}),
    (f"{T}/{ID}", "", {"X-One": "2"}),
    (f"{T}/no-id", "", {}),
    (f"{T}/7/a/b%20c", "", {}),
    (f"{T}/seven/a", "", {}),
    (f"{T}/with/header", "", {"X-One": "3"}),
    (f"{T}/with/header", "", {}),
    (f"{T}/with/thread", "", {}),
    (f"{T}/as/model", "", {}),
    ("/api/guarded", "", {}),
    ("/api/guarded", "", {"X-Pass": "yes"}),
    ("/api/nothing", "", {}),
    ("/", "", {}),
]


async def both(
    path: str,
    query: str,
    headers: dict[str, str],
    *,
    method: str = "GET",
    chunks: Sequence[bytes] = (b"",),
) -> list[Answer]:
    answers = []
    for app in APPS:
        made.clear()
        answer = await ask(
            app,
            headers,
            chunks=chunks,
            path=path,
            query_string=query.encode(),
            method=method,
        )
        answer.headers.append(("made", " ".join(made)))
        answers.append(answer)
    return answers


@pytest.mark.parametrize(("path", "query", "headers"), CASES)
@pytest.mark.parametrize("again", [False, True])
async def test_answers_are_those_of_fastapi(
    path: str, query: str, headers: dict[str, str], *, again: bool
) -> None:
    if again:  # what is remembered of a query must not have changed
        await both(path, query, headers)
    usual, short = await both(path, query, headers)

    assert short == usual


@pytest.mark.parametrize("method", ["HEAD", "POST", "DELETE", "OPTIONS"])
async def test_so_are_those_to_other_methods(method: str) -> None:
    for path in (T, f"{T}/{ID}", "/api/nothing"):
        usual, short = await both(path, "", {}, method=method)

        assert short == usual


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b'{"text": "a", "count": 2}', JSON),
        (
            b'{"text": "\xc3\xa9", "more": null}',
            {"Content-Type": "Application/JSON; x"},
        ),
        (b'{"text": "a"}', {**JSON, "X-One": "forbidden"}),
        (b'{"text": "a", "count": -1}', JSON),
        (b'{"text": 1}', JSON),
        (b"[]", JSON),
        (b"null", JSON),
        (b'{"text": ', JSON),
        (b'{"text": "\xff"}', JSON),
        (b"", JSON),
        (b"text=a", {"Content-Type": "application/x-www-form-urlencoded"}),
        (b'{"text": "a"}', {}),
        (b'{"text": "a"}', {**JSON, "Idempotency-Key": "k"}),
    ],
)
async def test_so_are_those_to_bodies(body: bytes, headers: dict[str, str]) -> None:
    """Also in pieces, and though the body was read before FastAPI gets to it."""
    for path in (f"{T}/{ID}", f"{T}/no-id", f"{T}/maybe/nothing"):
        for chunks in ([body], [body[:5], b"", body[5:]]):
            for query in ("", "deep=perhaps"):
                usual, short = await both(
                    path, query, headers, method="POST", chunks=chunks
                )

                assert short.status == usual.status
                assert short.body == usual.body


async def test_what_a_dependency_opens_is_closed() -> None:
    usual, short = await both(f"{T}/with/open", "", {})

    assert short == usual
    assert short.header("made") == "gate opened used closed"


async def test_overrides_of_dependencies_hold() -> None:
    async def another() -> str:
        return "another"

    app = build(short=True)
    app.dependency_overrides[two] = another

    answer = await ask(app, path="/api/guarded", headers={"X-Pass": "yes"})

    assert answer.body == b"another"


def test_the_busiest_calls_go_without_fastapi(
    settings_with: SettingsFactory,
) -> None:
    (ways,) = (
        middleware.kwargs["ways"]
        for middleware in create_app(settings_with()).user_middleware
        if "ways" in middleware.kwargs
    )
    assert isinstance(ways, Ways)

    assert ways.short() >= {
        ("GET", "/api/v1/chats"),
        ("GET", "/api/v1/chats/{chat_id}/messages"),
        ("POST", "/api/v1/chats/{chat_id}/messages"),
    }
