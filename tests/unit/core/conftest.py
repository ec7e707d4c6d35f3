import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Mapping[str, LoopFactory]:
    """What stands on sockets of its own is tried on the servers' event loop, too."""
    if item.path.name == "test_http1.py":
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}
