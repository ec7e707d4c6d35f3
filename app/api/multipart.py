"""A form with one file in it, read as it comes: nothing is spooled anywhere.

Starlette's own reader stores a whole file on disk before an endpoint sees any of it.
Reference: RFC 7578.
"""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Self

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.core.exceptions import (
    BadRequestError,
    FieldError,
    UnsupportedMediaTypeError,
    ValidationFailedError,
)

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_MOST_PARTS = 20
_MOST_HEADERS = 8  # of a part
_LONGEST_HEADER = 4096  # bytes
_LONGEST_FIELD = 64 * 2**10


class FileForm:
    """`name` is the file's, `chunks` its bytes; `fields` are whole after those."""

    def __init__(self, request: Request) -> None:
        self.name = ""
        self.fields: dict[str, str] = {}
        self._body = request.stream()
        self._parser = _parser(request, self._callbacks())
        self._parts = 0
        self._headers: dict[bytes, bytes] = {}
        self._header_name = self._header_value = b""
        self._field: str | None = None
        self._value = b""
        self._ready: list[bytes] = []
        self._found = self._in_file = self._ended = False

    @classmethod
    async def opened(cls, request: Request) -> Self:
        """Read up to the file.

        Raises UnsupportedMediaTypeError for another body, BadRequestError for a broken
        one, ValidationFailedError where no part named `file` is a file.
        """
        form = cls(request)
        while not form._found:
            if not await form._read():
                raise _no_file()
        return form

    async def chunks(self) -> AsyncIterator[bytes]:
        """Raises BadRequestError where the form ends before its end."""
        while True:
            ready, self._ready = self._ready, []
            for chunk in ready:
                yield chunk
            if not ready and not await self._read():
                return

    async def _read(self) -> bool:
        """Take the next piece of the body; False at its end."""
        piece = await anext(self._body, b"")
        if not piece:
            if not self._ended:
                raise BadRequestError("The form breaks off before its end.")
            return False
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise BadRequestError("This is no well-formed form.") from error
        return True

    def _callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._begin_part,
            "on_header_field": self._add_header_name,
            "on_header_value": self._add_header_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": self._add,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }

    def _begin_part(self) -> None:
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise BadRequestError(f"A form may have {_MOST_PARTS} parts.")
        self._headers = {}

    def _add_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _add_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _end_header(self) -> None:
        self._headers[self._header_name.lower()] = self._header_value
        self._header_name = self._header_value = b""

    def _end_headers(self) -> None:
        _, told = parse_options_header(self._headers.get(b"content-disposition", b""))
        name = told.get(b"name", b"").decode(errors="replace")
        if name == "file" and b"filename" in told:
            if self._found:
                raise ValidationFailedError(
                    "Send one file at a time.",
                    errors=[FieldError(path="file", message="is there twice")],
                )
            self._found = self._in_file = True
            self.name = told[b"filename"].decode(errors="replace")
        else:
            self._field, self._value = name, b""

    def _add(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self._ready.append(data[start:end])
            return
        self._value += data[start:end]
        if len(self._value) > _LONGEST_FIELD:
            raise BadRequestError(f"The field {self._field!r} is too long.")

    def _end_part(self) -> None:
        if not self._in_file and self._field:
            self.fields[self._field] = self._value.decode(errors="replace")
        self._in_file, self._field = False, None

    def _end(self) -> None:
        self._ended = True


def _parser(request: Request, callbacks: "MultipartCallbacks") -> MultipartParser:
    told, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary")
    if told != b"multipart/form-data" or not boundary:
        raise UnsupportedMediaTypeError(
            "Send a form: multipart/form-data, with `file`."
        )
    try:
        return MultipartParser(
            boundary,
            callbacks,
            max_header_count=_MOST_HEADERS,
            max_header_size=_LONGEST_HEADER,
        )
    except FormParserError as error:
        raise BadRequestError("The form's boundary is too long.") from error


def _no_file() -> ValidationFailedError:
    return ValidationFailedError(
        "There is no file in this form.",
        errors=[FieldError(path="file", message="is missing")],
    )
