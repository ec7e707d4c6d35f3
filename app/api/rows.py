"""Pages of plain rows, for the reads that people do most.

Rows go to JSON in one step. Making objects of them, and models of these to check what
the database already knows, is most of what such a request would cost.
"""

from typing import Any

import orjson
from fastapi.responses import Response


def page_response(items: list[dict[str, Any]], following: str | None) -> Response:
    """Answer what `Page[T]` describes; `items` have `T`'s fields."""
    page = {"items": items, "next_cursor": following}
    return Response(
        orjson.dumps(page, default=str, option=orjson.OPT_UTC_Z),
        media_type="application/json",
    )
