"""Which paths need no login."""

from __future__ import annotations

from collections.abc import Callable, Collection


def public_paths(paths: Collection[str]) -> Callable[[str], bool]:
    """Tells whether a path is one of these; `/static/*` is all that lies below."""
    if isinstance(paths, str):
        raise TypeError("public paths are several: write them as a list")
    exact = frozenset(path for path in paths if not path.endswith("/*"))
    below = tuple(path[:-1] for path in paths if path.endswith("/*"))
    return lambda path: (
        path in exact or (path.startswith(below) and ".." not in path.split("/"))
    )
