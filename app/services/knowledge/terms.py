"""Terms as the index has them: numbers, other ones in each project.

The project's id is the key of the hash. So a term needs no table of its own, a search
in one project cannot meet the rows of another, and who reads the index alone sees
which passages have a term in common, but no term. Two terms of a project that share a
number (once in 10^10 projects of a million terms) would be found for each other.
"""

from hashlib import blake2b
from uuid import UUID


def key_of(project_id: UUID, term: str) -> int:
    """64 bits with a sign: what both databases call an integer."""
    hashed = blake2b(term.encode(), digest_size=8, key=project_id.bytes)
    return int.from_bytes(hashed.digest(), "big", signed=True)
