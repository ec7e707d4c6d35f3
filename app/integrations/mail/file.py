"""Mail as `.eml` files, which mail programs open: for installations without SMTP."""

import asyncio
import os
import re
from email import policy
from email.message import EmailMessage
from email.parser import BytesHeaderParser
from pathlib import Path

import structlog

_log = structlog.get_logger()


class FileMailer:
    """Writes into `folder`; only who runs the server may read there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def deliver(self, message: EmailMessage) -> None:
        """The same message again replaces its file, so it is never there twice."""
        path = await asyncio.to_thread(self._write, message)
        _log.info("mail written", file=str(path))

    async def forget(self, address: str) -> None:
        await asyncio.to_thread(self._delete, address)

    def _delete(self, address: str) -> None:
        for path in self._folder.glob("*.eml"):
            with path.open("rb") as file:
                message = BytesHeaderParser(policy=policy.default).parse(file)
            if address in {to.addr_spec for to in message["To"].addresses}:
                path.unlink(missing_ok=True)

    def _write(self, message: EmailMessage) -> Path:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = re.sub(r"[^\w-]", "", message["Message-ID"].partition("@")[0])
        path = self._folder / f"{name}.eml"
        unfinished = path.with_suffix(".part")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        with os.fdopen(os.open(unfinished, flags, 0o600), "wb") as file:
            file.write(message.as_bytes(policy=policy.SMTP))
        unfinished.replace(path)
        return path
