"""A server without Redis has its database to itself."""

import pytest

from tests.e2e.conftest import Begin, create_database

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_second_server_on_the_same_database_is_refused(
    begin: Begin, postgres_url: str
) -> None:
    url = await create_database(postgres_url)
    first = await begin(DATABASE_URL=url)
    second = begin.prepared(DATABASE_URL=url)

    second.spawn()

    assert await second.exit_code() == 1
    assert "another Workroom server uses this database" in second.log
    assert "set REDIS_URL" in second.log
    assert "Traceback" not in second.log
    await first.kill()
    await second.start()
