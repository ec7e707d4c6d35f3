"""Several server processes on one port, kept alive by uvicorn's supervisor."""

import socket
from typing import Any

import uvicorn
from uvicorn.supervisors import multiprocess

from app.cli.server import Server
from app.core.config import get_settings


class Worker(multiprocess.Process):
    """A process that runs our server, which tells running replies of its end."""

    @property
    def server(self) -> uvicorn.Server:
        if self._server is None:
            self._server = Server(self.config, get_settings(), announce=False)
        return self._server

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_server": None}


class Supervisor(multiprocess.Multiprocess):
    """Starts as many workers as asked for, and another where one has died."""

    def __init__(self, config: uvicorn.Config, sock: socket.socket) -> None:
        # The library makes its processes by this name, first ones and later ones.
        multiprocess.Process = Worker  # type: ignore[misc]  # see above
        super().__init__(config, [sock])
