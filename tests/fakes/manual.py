"""A manual in which nothing is found, for a guide that is asked of something else."""

from collections.abc import Collection, Sequence

from app.integrations.search.lexical import Frequency, Hit


class NoManual:
    async def search(self, query: str, limit: int) -> Sequence[Hit]:  # noqa: ARG002 - the port's signature
        return []

    async def frequency(self, terms: Collection[str]) -> Frequency:  # noqa: ARG002 - the same
        return Frequency(0, {})
