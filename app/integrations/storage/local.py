"""Files in a folder of this machine."""

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

from app.integrations.storage.base import StoredObject
from app.integrations.storage.objects import ObjectStorage

_STAGED = re.compile(r".+#\d+")
"""Under such a name obstore writes what is not whole yet."""


class LocalStorage(ObjectStorage):
    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def _open(self) -> Any:
        from obstore.store import LocalStore  # noqa: PLC0415 - see `_store`

        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return LocalStore(self._folder, automatic_cleanup=True)

    async def objects(self, prefix: str) -> AsyncIterator[StoredObject]:
        # A sweep looks each hour: it is no reason to load what nobody has needed yet.
        if await asyncio.to_thread(self._folder.exists):
            async for one in super().objects(prefix):
                yield one

    async def sweep(self, before: datetime) -> None:
        await asyncio.to_thread(self._sweep, before.timestamp())

    def _sweep(self, before: float) -> None:
        for path in self._folder.rglob("*#*"):
            if _STAGED.fullmatch(path.name) and path.stat().st_mtime < before:
                path.unlink(missing_ok=True)
