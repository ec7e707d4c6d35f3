"""The rules of the house that a syntax tree can tell.

Each exception is named here with its reason, and must still be one: where the code no
longer needs it, the test says so.
"""

import ast
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from app.core.config import ROOT

LONGEST_MODULE = 400  # lines
LONGEST_TEST_MODULE = 600
LONGEST_FUNCTION = 60
FEWEST_WORDS = 2
"""Of a reason."""

COMMITS_ELSEWHERE = {
    "app/core/migrations.py: _run": "Alembic runs on a connection, not in a session",
    "app/core/sqlite.py: Connection.commit": "a driver, called by the engine",
}
ROLLS_BACK_ELSEWHERE = {
    "app/core/sqlite.py: Connection.rollback": "a driver, called by the engine",
}
READS_THE_ENVIRONMENT_ELSEWHERE = {
    "app/cli/serve.py: run": "writes it: arguments must reach a reloaded process",
    "app/cli/serve.py: _serve_with_workers": "writes it, for each worker to read",
    "app/integrations/llm/local_child.py: load": "writes it, for a library to read",
}
IMPORTS_HTTP_EXCEPTION = {
    "app/api/errors.py": "renders those of the framework",
    "app/api/shortcuts.py": "has those of the framework rendered",
    "app/middleware/admission.py": "FastAPI's parsing lets no other through",
    "app/middleware/body_limit.py": "FastAPI's parsing lets no other through",
}
CATCHES_EVERYTHING = {
    "app/tasks/worker.py: Worker._try": "the top of a worker loop: any task may fail",
    "app/middleware/front.py: Front.__call__": "the top of a request: any may fail",
    "app/services/message_log/entry.py: _text": "the text of any format",
    "app/integrations/parsing/office.py: parse": "a broken document, in a child alone",
}
_BOTO = "9 MB and 0.1 s, only where AWS is configured"
_NUMPY = "25 MB, only where passages are embedded"
_OBSTORE = "5 MB, for a process that meets a file"
IMPORTS_LATE = {
    "app/integrations/storage/objects.py: _obstore": _OBSTORE,
    "app/integrations/storage/local.py: LocalStorage._open": _OBSTORE,
    "app/integrations/storage/s3.py: S3Storage._open": _OBSTORE,
    "app/integrations/storage/s3.py: S3Storage._signed": _BOTO,
    "app/integrations/storage/s3.py: _credentials": _BOTO,
    "app/integrations/parsing/child.py: leave_network": "only on Linux",
    "app/integrations/parsing/child.py: limit": "not there on Windows",
    "app/integrations/parsing/child.py: parse": "large, and a child needs one of them",
    "app/core/passwords.py: _common_passwords": "megabytes, for registrations only",
    "app/core/database.py: Database._connect": "only where PostgreSQL is configured",
    "app/core/bus.py: RedisBus.open": "only where Redis is configured",
    "app/core/bus.py: _errors": "only where Redis is configured",
    "app/core/ratelimit.py: connect": "0.2 s, only where Redis is configured",
    "app/services/mfa.py: _qr": "50 ms, for those who enroll alone",
    "app/integrations/llm/bedrock.py: BedrockProvider._current": _BOTO,
    "app/integrations/llm/bedrock_credentials.py: found": _BOTO,
    "app/integrations/llm/bedrock_credentials.py: signed": _BOTO,
    "app/integrations/llm/local_child.py: load": "must find what was set before it",
    "app/services/knowledge/vectors.py: packed": _NUMPY,
    "app/services/knowledge/vectors.py: _matrix": _NUMPY,
    "app/services/knowledge/vectors.py: _nearest": _NUMPY,
    "app/integrations/search/words.py: _stemmer": "3 MB that an idle server spares",
}
"""`app/cli` is free to: `serve` must not wait for what other commands import."""

DOMAINS = {
    "apikey": "keys by which programs act for their owner",
    "account": "accounts that are archived, deleted, restored, erased, exported",
    "admin": "what admins may do",
    "audit": "what was done by whom",
    "auth": "logging in, sessions, tokens",
    "chat": "chats, and turns in them",
    "context": "what a model gets to see in a turn",
    "credits": "balances, leases, the ledger",
    "desk": "admins and support staff themselves",
    "embedding": "texts as vectors, for whoever asks",
    "file": "what users upload",
    "gateway": "models for other people's clients, in the formats that these speak",
    "health": "whether the process can work",
    "home": "the page at the root",
    "idempotency": "requests that are sent twice and happen once",
    "ip_rule": "which addresses may use what",
    "introspection": "what external applications ask and tell",
    "job": "background work as such",
    "knowledge": "what documents say, and finding it",
    "lockout": "failed logins",
    "login": "what every login comes to",
    "link": "links that are mailed, and prove who has an address",
    "mail": "mail to people",
    "message": "messages, and the streams of replies",
    "mfa": "second factors",
    "message_log": "what models were asked and said, for admins",
    "model": "what models there are",
    "project": "instructions and documents that people share",
    "servicekey": "keys of external applications",
    "setting": "settings that admins change",
    "plan": "plans, and the limits that users have",
    "route": "names that stand for several models",
    "oidc": "logging in by other identity providers",
    "share": "links by which everybody may read a chat",
    "staff": "what support staff may do",
    "usage": "what was used, and what is left",
    "user": "accounts and profiles",
}
"""Each has one stem in every folder: `git ls-files '*chat*'` lists a whole domain."""

NO_DOMAIN = {
    "app/models/base.py": "ids, times, naming convention of all tables",
    "app/schemas/base.py": "types that all schemas share",
    "app/services/authorization.py": "who may see what, of every domain",
    "app/services/paging.py": "pages of lists, of every domain",
    "app/services/keyring.py": "keys of every kind, as they come with requests",
    "app/services/principal.py": "who is asking, for every domain",
    "app/services/sealed.py": "the sealed columns of every domain",
    "app/services/refresh.py": "refresh tokens, of users and of the desk",
    "app/services/runtime.py": "all that a process holds",
    "app/tasks/worker.py": "runs the tasks of every domain",
}
FOLDERS_OF_DOMAINS = ("models", "schemas", "services", "api/v1", "tasks")

_IGNORE = re.compile(
    r"#\s*(?:noqa(?::\s*[A-Z]+[0-9]+(?:,\s*[A-Z]+[0-9]+)*)?"
    r"|type:\s*ignore(?:\[[a-z-]+(?:,\s*[a-z-]+)*\])?"
    r"|pragma:\s*no cover)(?P<rest>.*)"
)

Where = tuple[str, ast.AST]


def modules(*folders: str) -> list[Path]:
    return sorted(p for folder in folders for p in (ROOT / folder).rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def nodes(*folders: str) -> list[Where]:
    """Every node, and where it stands: `app/x.py`, `app/x.py: Class.method`."""
    return [
        found
        for path in modules(*folders)
        for found in _walk(ast.parse(path.read_bytes()), name_of(path), ())
    ]


def _walk(node: ast.AST, module: str, outer: tuple[str, ...]) -> Iterator[Where]:
    for child in ast.iter_child_nodes(node):
        yield f"{module}: {'.'.join(outer)}" if outer else module, child
        inner = outer
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inner = (*outer, child.name)
        yield from _walk(child, module, inner)


def calls_of(method: str) -> set[str]:
    return {
        where
        for where, node in nodes("app")
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == method
    }


def imported_names(node: ast.AST) -> Iterator[str]:
    """What an import brings, as `module.name`."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(
    ("method", "elsewhere"),
    [("commit", COMMITS_ELSEWHERE), ("rollback", ROLLS_BACK_ELSEWHERE)],
)
def test_only_the_unit_of_work_commits_and_rolls_back(
    method: str, elsewhere: dict[str, str]
) -> None:
    outside = {w for w in calls_of(method) if not w.startswith("app/core/database.py")}

    assert outside == elsewhere.keys()


def test_only_the_settings_read_the_environment() -> None:
    reading = {
        where
        for where, node in nodes("app")
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "os"
            and node.attr in {"environ", "environb", "getenv", "putenv"}
        )
        or {"os.environ", "os.getenv"} & set(imported_names(node))
    }
    elsewhere = {w for w in reading if not w.startswith("app/core/config/loading.py")}

    assert elsewhere == READS_THE_ENVIRONMENT_ELSEWHERE.keys()


def test_the_framework_s_errors_stay_in_the_api() -> None:
    importing = {
        where
        for where, node in nodes("app")
        if any(name.endswith(".HTTPException") for name in imported_names(node))
    }

    assert importing == IMPORTS_HTTP_EXCEPTION.keys()


def test_nothing_catches_everything() -> None:
    catching = {
        where
        for where, node in nodes("app", "alembic")
        if isinstance(node, ast.ExceptHandler) and _is_blanket(node.type)
    }

    assert catching == CATCHES_EVERYTHING.keys()


def _is_blanket(caught: ast.expr | None) -> bool:
    if caught is None:
        return True
    names = caught.elts if isinstance(caught, ast.Tuple) else [caught]
    blanket = {"Exception", "BaseException"}
    return any(isinstance(name, ast.Name) and name.id in blanket for name in names)


def test_imports_stand_at_the_top() -> None:
    late = {
        where
        for where, node in nodes("app")
        if isinstance(node, ast.Import | ast.ImportFrom) and ": " in where
    }
    free = {where for where in late if where.startswith("app/cli/")}

    assert late - free == IMPORTS_LATE.keys()


def test_every_ignore_says_why() -> None:
    silent = [
        f"{name_of(path)}:{line}: {comment}"
        for path in [
            *modules("app", "alembic", "tests", "benchmarks"),
            ROOT / "main.py",
        ]
        for line, comment in comments(path)
        if (found := _IGNORE.search(comment))
        and len(found["rest"].strip(" -#").split()) < FEWEST_WORDS
    ]

    assert silent == []


def comments(path: Path) -> list[tuple[int, str]]:
    with path.open("rb") as file:
        return [
            (token.start[0], token.string)
            for token in tokenize.tokenize(file.readline)
            if token.type == tokenize.COMMENT
        ]


def test_no_module_is_too_long() -> None:
    lengths = {
        name_of(path): len(path.read_text(encoding="utf-8").splitlines())
        for path in modules("app", "tests")
    }
    too_long = {
        name
        for name, length in lengths.items()
        if length > (LONGEST_MODULE if name.startswith("app/") else LONGEST_TEST_MODULE)
    }

    assert too_long == set()


def test_no_function_is_too_long() -> None:
    too_long = [
        f"{where}: {node.name}"
        for where, node in nodes("app")
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > LONGEST_FUNCTION
    ]

    assert too_long == []


def test_a_domain_has_one_stem_in_every_folder() -> None:
    stems = {
        name_of(path): path.relative_to(ROOT / "app" / folder).parts[0]
        for folder in FOLDERS_OF_DOMAINS
        for path in modules(f"app/{folder}")
        if path.stem != "__init__"
    }
    others = {n for n, stem in stems.items() if stem.removesuffix(".py") not in DOMAINS}

    assert others == NO_DOMAIN.keys()
    used = {stem.removesuffix(".py") for stem in stems.values()}
    assert DOMAINS.keys() <= used
