"""Text as it is found, in bounded memory."""

MOST_CHARACTERS = 10_000_000
"""Of a file's text; one with more has none that is kept."""


class TooMuchText(Exception):  # noqa: N818 - no error: the file is good without
    pass


class Text:
    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._length = 0
        self.pages: list[int] = []

    def begin_page(self) -> None:
        self.pages.append(self._length)

    def add(self, piece: str) -> None:
        """Raises TooMuchText."""
        # PostgreSQL has no place for NUL in a text, and nobody a use.
        piece = piece.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")
        self._pieces.append(piece)
        self._length += len(piece)
        if self._length > MOST_CHARACTERS:
            raise TooMuchText

    def whole(self) -> str | None:
        """None where it says nothing."""
        text = "".join(self._pieces)
        return text if text.strip() else None
