"""Where in storage the bytes of a file are."""

from uuid import UUID

FOLDERS = ("originals", "thumbnails", "scaled")


def original(user_id: UUID, file_id: UUID) -> str:
    return f"originals/{user_id.hex}/{file_id.hex}"


def thumbnail(user_id: UUID, file_id: UUID) -> str:
    return f"thumbnails/{user_id.hex}/{file_id.hex}"


def scaled(user_id: UUID, file_id: UUID) -> str:
    return f"scaled/{user_id.hex}/{file_id.hex}"


def all_of(user_id: UUID) -> tuple[str, ...]:
    """The folders of a user."""
    return tuple(f"{folder}/{user_id.hex}/" for folder in FOLDERS)


def file_id(key: str) -> UUID | None:
    """Whose place it is; None for what is none of ours."""
    try:
        return UUID(hex=key.rpartition("/")[2])
    except ValueError:
        return None
