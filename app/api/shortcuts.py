"""The way from a request to its endpoint, without what FastAPI does anew each time.

FastAPI looks for a route by asking one after the other, at every level of nested
routers, and then goes through all that an endpoint could ask for: some 0.4 ms of CPU
before the endpoint of a list begins. Where neither the request nor the endpoint is out
of the ordinary, `ShortCuts` calls it without FastAPI. All else, and whatever is wrong
with a request, gets FastAPI's answers; `QuickRoute` spares these the search. Ordinary
are endpoints that make their own `Response` of what coroutines give them, parameters of
the path and the query, and one JSON body.
"""

import inspect
from collections.abc import Awaitable, Callable, Iterable
from functools import lru_cache
from typing import Any

from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import request_params_to_args
from fastapi.params import Body
from fastapi.routing import APIRoute, RouteContext, iter_route_contexts
from pydantic import BaseModel, ValidationError
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api import errors
from app.core.exceptions import AppError

Call = Callable[..., Awaitable[Any]]

_LONGEST = 300
"""Bytes of a query string that is remembered."""


class Ways:
    """Every route, by how its path begins."""

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        self._ways: dict[tuple[str, str], list[_Way]] = {}
        self._plain: dict[tuple[str, str], _Way] = {}
        """Those without parameters, which are found by the path as it is."""
        for context in iter_route_contexts(list(routes)):
            if isinstance(context.original_route, APIRoute):
                way = _Way(context)
                for method in context.methods or ():
                    self._ways.setdefault((method, _place(way.path)), []).append(way)
                    if way.plain:
                        self._plain.setdefault((method, way.path), way)

    def find(self, scope: Scope) -> "tuple[_Way, dict[str, Any]] | None":
        """The way of a request, and the parameters in its path.

        None also where the application is not quite as it was when they were found.
        """
        if (
            scope["type"] != "http"
            or scope.get("root_path")
            or scope["app"].dependency_overrides
        ):
            return None
        method, path = scope["method"], scope["path"]
        if (found := self._plain.get((method, path))) is not None:
            return found, {}
        for way in self._ways.get((method, _place(path)), ()):
            if (params := way.match(path)) is not None:
                return way, params
        return None

    def short(self) -> set[tuple[str, str]]:
        """Method and path of those that go without FastAPI."""
        return {
            (method, way.path)
            for (method, _), ways in self._ways.items()
            for way in ways
            if way.short
        }


class QuickRoute(BaseRoute):
    """Stands before the routes that it leads to: they are found without a search."""

    def __init__(self, ways: Ways) -> None:
        self._ways = ways

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        found = self._ways.find(scope)
        if found is None:
            return Match.NONE, {}
        way, params = found
        return Match.FULL, {"path_params": params, "way": way, **way.scope}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        way: _Way = scope["way"]
        await way.app(scope, receive, send)


class ShortCuts:
    """The innermost middleware: what it does not answer, the application does."""

    def __init__(self, app: ASGIApp, ways: Ways) -> None:
        self._app = app
        self._ways = ways

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self._ways.find(scope)
        if found is None or not found[0].short or _has_key(scope):
            await self._app(scope, receive, send)
            return
        scope["way"], scope["path_params"] = found
        request = Request(scope, receive, send)
        try:
            response = await found[0].answer(request)
        except (AppError, HTTPException) as error:
            response = await errors.rendered(request, error)
        if response is None:
            await self._app(scope, _again(request), send)
        else:
            await response(scope, receive, send)


def _place(path: str) -> str:
    """What the paths of few routes have in common, such as `/api/v1/chats`."""
    return "/".join(path.split("/", 4)[:4])


class _Way:
    """To one route."""

    def __init__(self, context: RouteContext) -> None:
        assert context.path is not None
        assert context.endpoint is not None
        self.path = context.path
        self.app = context.app
        self.scope = {"route": context.original_route, "endpoint": context.endpoint}
        self._regex = context.path_regex
        self._convertors = context.param_convertors
        self._endpoint = context.endpoint
        self._arguments = _Arguments.of(context.endpoint, context.dependant)

    @property
    def plain(self) -> bool:
        return not self._convertors

    def match(self, path: str) -> dict[str, Any] | None:
        """The parameters in the path, where it is one of this way's."""
        found = self._regex.match(path)
        if found is None:
            return None
        return {
            name: self._convertors[name].convert(value)
            for name, value in found.groupdict().items()
        }

    @property
    def short(self) -> bool:
        return self._arguments is not None

    async def answer(self, request: Request) -> Response | None:
        """None where something is wrong with the request, which FastAPI then tells."""
        assert self._arguments is not None
        values = await self._arguments.solve(request)
        if values is None:
            return None
        response: Response = await self._endpoint(**values)
        return response


def _has_key(scope: Scope) -> bool:
    """Whether the request may have been sent before, which is not for us to know."""
    for name, _ in scope["headers"]:  # noqa: SIM110 - any() costs twice as much
        if name == b"idempotency-key":
            return True
    return False


def _again(request: Request) -> Receive:
    """How the same request's body is received once more, if it has been read."""
    if not hasattr(request, "_body"):
        return request.receive
    message = {"type": "http.request", "body": request._body, "more_body": False}  # noqa: SLF001 - where Starlette keeps it
    unread = [message]

    async def receive() -> Message:
        return unread.pop() if unread else await request.receive()

    return receive


class _UnusualError(Exception):
    """An endpoint asks for what is left to FastAPI."""


class _Arguments:
    """What an endpoint is called with: parameters, and what coroutines make."""

    def __init__(self, dependant: Dependant) -> None:
        self._steps: list[tuple[Call, dict[str, Any]]] = []
        self._body = _body_of(dependant)
        self._sources = self._made_before(dependant)
        self._path_params = dependant.path_params
        fields = dependant.query_params
        self._asks_nothing = not (
            self._steps or self._body or self._path_params or fields
        )
        """But the request itself."""

        @lru_cache
        def query(text: bytes) -> dict[str, Any] | None:
            values, errors = request_params_to_args(fields, QueryParams(text))
            return None if errors else values

        self._query = query

    @classmethod
    def of(cls, endpoint: Call, dependant: Dependant) -> "_Arguments | None":
        """None for an endpoint that is not called this way."""
        answer = inspect.signature(endpoint, eval_str=True).return_annotation
        makes_response = isinstance(answer, type) and issubclass(answer, Response)
        if not (makes_response and inspect.iscoroutinefunction(endpoint)):
            return None
        try:
            return cls(dependant)
        except _UnusualError:
            return None

    def _made_before(self, dependant: Dependant) -> dict[str, Any]:
        """From where each argument comes that is no parameter of the request."""
        if (
            dependant.header_params
            or dependant.cookie_params
            or dependant.response_param_name
            or dependant.background_tasks_param_name
            or dependant.security_scopes_param_name
        ):
            raise _UnusualError
        sources: dict[str, Any] = {}
        for one in dependant.dependencies:
            call = _coroutine(one)
            if call not in (known for known, _ in self._steps):
                self._steps.append((call, self._made_before(one)))
            if one.name is not None:
                sources[one.name] = call
        for name in (
            dependant.request_param_name,
            dependant.http_connection_param_name,
        ):
            if name is not None:
                sources[name] = Request
        return sources

    async def solve(self, request: Request) -> dict[str, Any] | None:
        """The arguments; None where a parameter of the request is wrong."""
        if self._asks_nothing:
            return dict.fromkeys(self._sources, request)
        values = self._params(request.scope)
        if values is None:
            return None
        if self._body is not None:
            if not _sends_json(request):
                return None
            name, form = self._body
            try:
                values[name] = form.model_validate_json(await request.body())
            except ValidationError:
                return None
        made: dict[Any, Any] = {Request: request}
        for call, sources in self._steps:
            made[call] = await call(
                **{n: made[source] for n, source in sources.items()}
            )
        return values | {n: made[source] for n, source in self._sources.items()}

    def _params(self, scope: Scope) -> dict[str, Any] | None:
        text = scope["query_string"]
        query = self._query if len(text) <= _LONGEST else self._query.__wrapped__
        known = query(text)
        if known is None:
            return None
        given, values = scope["path_params"], dict(known)
        for field in self._path_params:
            values[field.name], errors = field.validate(
                given[field.alias], values, loc=()
            )
            if errors:
                return None
        return values


def _body_of(dependant: Dependant) -> tuple[str, type[BaseModel]] | None:
    """The name of the one body, and its model; None where there is no body."""
    if not dependant.body_params:
        return None
    (field, *others) = dependant.body_params
    form = field.field_info.annotation
    if (
        others
        or type(field.field_info) is not Body
        or not field.field_info.is_required()
        or not (isinstance(form, type) and issubclass(form, BaseModel))
    ):
        raise _UnusualError
    return field.name, form


def _sends_json(request: Request) -> bool:
    kind = request.headers.get("content-type", "")
    return kind.partition(";")[0].strip().lower() == "application/json"


def _coroutine(dependant: Dependant) -> Call:
    call: Any = dependant.call
    if (
        dependant.path_params
        or dependant.query_params
        or dependant.body_params
        or dependant.concurrency
    ):
        raise _UnusualError
    if not any(map(inspect.iscoroutinefunction, (call, type(call).__call__))):
        raise _UnusualError
    return call  # type: ignore[no-any-return]  # it has been looked at
