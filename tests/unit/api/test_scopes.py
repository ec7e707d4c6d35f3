"""TRUST K2: which scopes let a key in where, path by path."""

from uuid import uuid4

import pytest

from app.api.scopes import check_scope, scopes_for
from app.core.exceptions import ForbiddenError
from app.schemas.apikey import SCOPES
from app.services.authorization import Principal

READING = ("GET", "HEAD")
CHANGING = ("POST", "PUT", "PATCH", "DELETE")
NOBODY: set[str] = set()


@pytest.mark.parametrize(
    ("path", "reading", "changing"),
    [
        ("/v1/chat/completions", NOBODY, {"chat"}),
        ("/v1/responses", NOBODY, {"chat"}),
        ("/v1/messages", NOBODY, {"chat"}),
        ("/v1/messages/count_tokens", NOBODY, {"chat"}),
        ("/v1/embeddings", NOBODY, {"embeddings"}),
        ("/v1/models", {"models", "read"}, NOBODY),
        ("/v1/models/guide/manual", {"models", "read"}, NOBODY),
        ("/v1/files", {"files", "read"}, {"files"}),
        ("/v1/files/file-1/content", {"files", "read"}, {"files"}),
        ("/v1/fine_tuning/jobs", {"finetune"}, {"finetune"}),
        ("/v1/fine_tuning/jobs/1/cancel", {"finetune"}, {"finetune"}),
        ("/api/v1/chats", {"read"}, {"chat"}),
        ("/api/v1/chats/1/messages", {"read"}, {"chat"}),
        ("/api/v1/chats/1/share", {"read"}, {"chat"}),
        ("/api/v1/messages/1", {"read"}, {"chat"}),
        ("/api/v1/messages/1/stop", {"read"}, {"chat"}),
        ("/api/v1/messages/1/stream", {"read", "chat"}, NOBODY),
        ("/api/v1/models", {"models", "read"}, NOBODY),
        ("/api/v1/models/guide/manual", {"models", "read"}, NOBODY),
        ("/api/v1/files", {"files", "read"}, {"files"}),
        ("/api/v1/files/1", {"files", "read"}, {"files"}),
        ("/api/v1/finetune", {"finetune"}, {"finetune"}),
        ("/api/v1/finetune/1", {"finetune"}, {"finetune"}),
        ("/api/v1/datasets", {"finetune"}, {"finetune"}),
        ("/api/v1/datasets/1/rows", {"finetune"}, {"finetune"}),
        ("/api/v1/usage", {"read"}, NOBODY),
        ("/api/v1/usage/limits", {"read"}, NOBODY),
        ("/api/v1/users/me", {"read"}, NOBODY),
        ("/api/v1/auth/me", {"read"}, NOBODY),
    ],
)
def test_what_each_path_needs(path: str, reading: set[str], changing: set[str]) -> None:
    assert [set(scopes_for(method, path)) for method in READING] == [reading] * 2
    assert [set(scopes_for(method, path)) for method in CHANGING] == [changing] * 4


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/metrics",
        "/v1",
        "/v1/messages/batches",
        "/v1/chat/completions/1",
        "/v1/embeddings/",
        "/v1/modelsx",
        "/v1/fine_tuning",
        "/x/v1/models",
        "/api/v1/v1/models",
        "/api/v1/chatsx",
        "/api/v1/apikeys",
        "/api/v1/apikeys/1/rotate",
        "/api/v1/auth/sessions",
        "/api/v1/auth/mfa",
        "/api/v1/auth/introspect",
        "/api/v1/usage/report",
        "/api/v1/users/me/export",
        "/api/v1/admin/models",
        "/api/v1/chats/1/messages\n/../../admin",
        "//api/v1/chats",
    ],
)
def test_what_is_not_listed_is_for_nobody(path: str) -> None:
    needed = {scopes_for(method, path) for method in (*READING, *CHANGING)}

    assert needed == {()}


def test_every_scope_lets_in_somewhere_and_no_other_does() -> None:
    paths = (
        "/v1/chat/completions",
        "/v1/embeddings",
        "/v1/models",
        "/v1/files",
        "/v1/fine_tuning/jobs",
        "/api/v1/chats",
    )
    asked = [scopes_for(method, path) for method in ("GET", "POST") for path in paths]

    assert {scope for scopes in asked for scope in scopes} == SCOPES.keys()


def with_scopes(*scopes: str) -> Principal:
    return Principal(user_id=uuid4(), session_id=uuid4(), scopes=frozenset(scopes))


def test_one_of_several_scopes_is_enough() -> None:
    for scope in ("models", "read"):
        check_scope(with_scopes(scope), "GET", "/v1/models")

    with pytest.raises(ForbiddenError, match="lacks the scope models or read") as error:
        check_scope(with_scopes("chat", "ext:models"), "GET", "/v1/models")
    assert error.value.code == "insufficient_scope"


def test_no_scope_at_all_is_no_way_in() -> None:
    with pytest.raises(ForbiddenError):
        check_scope(with_scopes(), "GET", "/api/v1/chats")
