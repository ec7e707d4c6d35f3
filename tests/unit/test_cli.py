import base64
import json
import logging
import os
import socket
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.cli import cli, doctor, main, preparing
from app.core.config import load_settings, variables
from app.core.lock import FolderLock
from tests.fakes.s3 import VARIABLES, s3_server

KEY = "correct horse battery staple, 0123456789"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and an environment without any of our settings."""
    for name in (*variables(), "SECRET_KEY_FILE"):
        monkeypatch.setenv(name, "")  # so that what a command sets is undone
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def _no_logging() -> Iterator[None]:
    """Undo what a command did to logging: its output is closed when it has run."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers = handlers
    root.setLevel(level)


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        yield sock.getsockname()[1]


def run(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(cli, arguments, env=environ)


def set_up(folder: Path, **settings: str) -> None:
    lines = ({"SECRET_KEY": KEY, "OLLAMA_BASE_URL": "off"} | settings).items()
    (folder / ".env").write_text("".join(f"{k}={v}\n" for k, v in lines))


@pytest.mark.parametrize(
    "command",
    [
        "",
        "serve",
        "migrate",
        "doctor",
        "keys generate",
        "keys rotate",
        "config explain",
    ],
)
def test_every_command_has_help(command: str) -> None:
    done = run(*command.split(), "--help")

    assert done.exit_code == 0
    assert done.stdout.startswith("Usage: ")


def test_without_a_command_it_tells_the_commands(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main([])

    assert "Usage: python -m app" in capsys.readouterr().err


class TestKeys:
    def test_that_are_not_the_right_ones_leave_everything(self, folder: Path) -> None:
        """TRUST D1."""
        set_up(folder)
        run("migrate")
        run("keys", "rotate")  # is audited, and so the chain has its key

        key = run("keys", "generate").stdout.partition("ENCRYPTION_KEY=")[2].strip()
        lost = run("keys", "rotate", ENCRYPTION_KEY=key)
        assert lost.exit_code == 1
        assert "1 sealed, 0 of them anew, 1 unreadable" in lost.stdout
        assert "does not open with the keys in ENCRYPTION_KEY" in lost.stdout

    def test_that_replace_none_say_so(self, folder: Path) -> None:
        set_up(folder)
        run("migrate")
        run("keys", "rotate")

        done = run("keys", "rotate", "--json")

        assert done.exit_code == 0
        assert json.loads(done.stdout)[0] == {
            "column": "audit_chain.key",
            "rows": 1,
            "resealed": 0,
            "unreadable": 0,
            "first_unreadable": [],
        }

    def test_need_a_database(self, folder: Path) -> None:
        set_up(folder)
        (folder / "data").mkdir()

        done = run("keys", "rotate")

        assert done.exit_code == 1
        assert done.stderr.startswith("workroom: no such table")

    def test_are_lines_for_dot_env(self, folder: Path) -> None:
        (folder / ".env").write_text(run("keys", "generate").stdout)

        security = load_settings({"ENVIRONMENT": "staging"}).security

        assert security.encryption_key is not None
        key = security.encryption_key.get_secret_value()
        assert len(base64.urlsafe_b64decode(key)) == 32


class TestConfig:
    def test_explain_tells_value_source_and_meaning(self, folder: Path) -> None:
        set_up(folder, PORT="9000")

        out = run("config", "explain", HOST="::1").stdout.splitlines()

        assert "PORT=9000  (.env)" in out
        assert "HOST=::1  (environment)" in out
        assert "DEBUG=false  (default)" in out
        assert out[out.index("PORT=9000  (.env)") + 1] == "    The port to listen on."
        assert len(out) == 2 * len(variables())

    def test_explain_masks_secrets(self, folder: Path) -> None:
        set_up(folder, DATABASE_URL="postgresql://me:hush@host/name")

        out = run("config", "explain").stdout

        assert KEY not in out
        assert "hush" not in out
        assert "SECRET_KEY=********  (.env)" in out

    def test_explain_as_json(self, folder: Path) -> None:
        set_up(folder, CORS_ORIGINS="https://a.example,https://b.example")

        rows = json.loads(run("config", "explain", "--json").stdout)

        assert [row["name"] for row in rows] == list(variables())
        assert {row["name"]: row for row in rows}["CORS_ORIGINS"] == {
            "name": "CORS_ORIGINS",
            "area": "cors",
            "value": "https://a.example,https://b.example",
            "source": ".env",
            "meaning": "Origins of other sites that may call the API, comma separated.",
        }

    def test_wrong_settings_are_told_one_by_one(self) -> None:
        done = run("config", "explain", PORT="0", LOG_LEVEL="loud")

        assert done.exit_code == 2
        problems = done.stderr.splitlines()
        assert [p.split(":")[1].strip() for p in problems] == [
            "PORT",
            "SECRET_KEY",
            "LOG_LEVEL",
        ]
        assert all(p.startswith("workroom: ") for p in problems)

    def test_example_is_for_an_environment(self) -> None:
        assert "\nENVIRONMENT=production\n" in (
            run("config", "example", "--environment", "production").stdout
        )
        assert "\n#ENVIRONMENT=development\n" in run("config", "example").stdout


class TestMigrate:
    def test_makes_the_database(self, folder: Path) -> None:
        set_up(folder)

        done = run("migrate")

        assert done.exit_code == 0, done.stderr
        assert done.stdout == "workroom: the database is up to date\n"
        assert (folder / "data" / "workroom.db").exists()

    def test_tells_a_schema_from_the_future(self, folder: Path) -> None:
        set_up(folder)
        run("migrate")
        with sqlite3.connect(folder / "data" / "workroom.db") as database:
            database.execute("UPDATE alembic_version SET version_num = 'tomorrow'")
        database.close()

        done = run("migrate")

        assert done.exit_code == 1
        assert "is at revision tomorrow" in done.stderr
        assert len(done.stderr.splitlines()) == 1

    @pytest.mark.parametrize(
        "url", ["postgresql://me:hush@127.0.0.1:1/name", "sqlite:////dev/null/x.db"]
    )
    def test_tells_a_database_that_cannot_be_reached(
        self, folder: Path, url: str
    ) -> None:
        set_up(folder, DATABASE_URL=url)

        done = run("migrate")

        assert done.exit_code == 1
        assert done.stderr.startswith("workroom: DATABASE_URL: ")
        assert "hush" not in done.stderr
        assert len(done.stderr.splitlines()) == 1


class TestDoctor:
    def test_finds_a_new_installation_well(self, folder: Path) -> None:
        set_up(folder, PORT=str(free_port()))

        done = run("doctor")

        assert done.exit_code == 0, done.stdout
        assert "ok       database: the first start makes it\n" in done.stdout
        assert "warning  models: guide (1), which quotes documents" in done.stdout
        assert not (folder / "data").exists()

    def test_finds_a_migrated_database_up_to_date(self, folder: Path) -> None:
        set_up(folder, PORT=str(free_port()))
        run("migrate")

        assert self.checks()["database"][0] == "ok"

    def test_tells_whether_the_audit_is_as_it_was_written(self, folder: Path) -> None:
        """TRUST D2."""
        set_up(folder, PORT=str(free_port()))
        run("migrate")
        run("keys", "rotate")
        assert self.checks()["audit"] == ("ok", "1 events, all as they were written")

        anchor = folder / "data" / "audit.anchor"
        line = anchor.read_bytes()
        anchor.unlink()
        assert self.checks()["audit"][0] == "warning"

        anchor.write_bytes(line)
        with closing(sqlite3.connect(folder / "data" / "workroom.db")) as database:
            database.execute("UPDATE audit_events SET action = 'user.login'")
            database.commit()
        assert self.checks(code=1)["audit"] == ("problem", "event 1 was changed")

    def test_tells_where_mail_goes(self, folder: Path) -> None:
        set_up(folder, PORT=str(free_port()))
        state, detail = self.checks()["mail"]
        assert (state, detail.endswith("sent to nobody")) == ("ok", True)

        nowhere = str(free_port())
        set_up(
            folder,
            PORT=str(free_port()),
            SMTP_HOST="127.0.0.1",
            SMTP_PORT=nowhere,
            MAIL_FROM="no-reply@example.com",
        )
        state, detail = self.checks(code=1)["mail"]
        assert state == "problem"
        assert f"127.0.0.1:{nowhere}" in detail

    def test_tells_where_files_are_kept(self, folder: Path) -> None:
        set_up(folder, PORT=str(free_port()))
        assert self.checks()["files"][0] == "ok"

        with s3_server() as url:
            bucket = {**VARIABLES, "S3_ENDPOINT_URL": url}
            set_up(folder, PORT=str(free_port()), **bucket)
            assert self.checks()["files"] == ("ok", f"kept in {url}/workroom")

            set_up(folder, PORT=str(free_port()), **{**bucket, "S3_BUCKET": "nobodys"})
            state, detail = self.checks(code=1)["files"]
        assert state == "problem"
        assert f"{url}/nobodys" in detail

    def test_tells_the_models_of_every_provider(self, folder: Path) -> None:
        set_up(
            folder,
            PORT=str(free_port()),
            OPENAI_BASE_URL="http://127.0.0.1:1/v1",
            OPENAI_MODELS="one,two",
        )

        assert self.checks()["models"] == ("ok", "openai (2), guide (1)")

    @pytest.mark.parametrize(
        ("embedder", "state"), [("my-embedder", "ok"), ("no-embedder", "warning")]
    )
    def test_tells_an_embedder_that_is_not_there(
        self, folder: Path, embedder: str, state: str
    ) -> None:
        set_up(
            folder,
            PORT=str(free_port()),
            OPENAI_BASE_URL="http://127.0.0.1:1/v1",
            OPENAI_MODELS="one,my-embedder",
            EMBEDDING_MODEL=f"openai/{embedder}",
        )

        told, detail = self.checks()["models"]

        assert told == state
        assert ("EMBEDDING_MODEL" in detail) == (state == "warning")

    def test_tells_a_model_server_that_does_not_answer(self, folder: Path) -> None:
        set_up(folder, PORT=str(free_port()), OPENAI_BASE_URL="http://127.0.0.1:1/v1")

        state, detail = self.checks()["models"]

        assert state == "warning"
        assert "OPENAI_BASE_URL lists none" in detail

    def test_tells_a_wrong_catalogue(self, folder: Path) -> None:
        set_up(folder, MODEL_CATALOGUE="nowhere.toml")

        state, detail = self.checks(code=1)["models"]

        assert state == "problem"
        assert detail.startswith("MODEL_CATALOGUE: cannot read nowhere.toml")

    def test_tells_a_database_that_needs_migrating(self, folder: Path) -> None:
        set_up(folder)
        (folder / "data").mkdir()
        sqlite3.connect(folder / "data" / "workroom.db").close()

        state, detail = self.checks(code=1)["database"]

        assert state == "problem"
        assert "is at nothing" in detail
        assert "python -m app migrate" in detail

    def test_tells_wrong_settings(self) -> None:
        checks = self.checks(code=1, SECRET_KEY="x", PORT="0")

        assert checks["settings"] == (
            "problem",
            "PORT: Input should be greater than or equal to 1",
        )
        assert "database" not in checks

    def test_tells_what_is_out_of_reach(self, folder: Path, taken_port: int) -> None:
        (folder / "file").touch()
        set_up(
            folder,
            PORT=str(taken_port),
            DATA_DIR=str(folder / "file" / "data"),
            DATABASE_URL="postgresql://me:hush@127.0.0.1:1/name",
        )

        checks = self.checks(code=1)

        states = {name: state for name, (state, _) in checks.items()}
        assert [states[n] for n in ("data folder", "database", "port")] == [
            "problem"
        ] * 3
        assert f"port {taken_port} is taken" in checks["port"][1]
        assert "hush" not in str(checks)

    def test_a_running_server_is_no_problem(
        self, folder: Path, taken_port: int
    ) -> None:
        set_up(folder, PORT=str(taken_port))
        (folder / "data").mkdir()

        with FolderLock(folder / "data"):
            assert self.checks()["port"] == (
                "ok",
                f"a server is running (pid {os.getpid()})",
            )

    @pytest.mark.parametrize(
        ("free", "state"), [(1, "problem"), (2**29, "warning"), (2**31, "ok")]
    )
    def test_tells_a_full_disk(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, free: int, state: str
    ) -> None:
        set_up(folder, PORT=str(free_port()))
        monkeypatch.setattr("shutil.disk_usage", lambda _: _Usage(free))

        assert self.checks(code=int(state == "problem"))["disk"][0] == state

    def test_tells_an_old_python_and_a_missing_manual(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("sys.version_info", (3, 10))
        monkeypatch.setattr(doctor, "ROOT", folder)

        checks = {c.name: c.state for c in doctor.examine()}

        assert checks["python"] == checks["docs"] == "problem"

    @staticmethod
    def checks(*, code: int = 0, **environ: str) -> dict[str, tuple[str, str]]:
        done = run("doctor", "--json", **environ)
        assert done.exit_code == code, done.stdout
        return {c["name"]: (c["state"], c["detail"]) for c in json.loads(done.stdout)}


class TestServeRefuses:
    def test_several_workers_without_redis(self, folder: Path) -> None:
        set_up(folder)

        assert self.refusal("--workers", "2").startswith("--workers 2 needs REDIS_URL")

    def test_keys_that_are_not_those_of_the_database(self, folder: Path) -> None:
        set_up(folder, PORT=str(free_port()))
        run("migrate")
        run("keys", "rotate")
        other = run("keys", "generate").stdout.partition("ENCRYPTION_KEY=")[2]
        set_up(folder, PORT=str(free_port()), ENCRYPTION_KEY=other.strip())

        refusal = self.refusal(code=2)

        assert refusal.startswith("ENCRYPTION_KEY: does not open what this database")

    def test_a_data_folder_that_cannot_be_made(self, folder: Path) -> None:
        (folder / "file").touch()
        set_up(folder, DATA_DIR=str(folder / "file" / "data"))

        assert self.refusal() == (
            f"DATA_DIR: cannot write into {folder}/file/data (Not a directory): name a "
            "place that this user may write"
        )

    def test_a_data_folder_in_use(self, folder: Path) -> None:
        set_up(folder)
        (folder / "data").mkdir()

        with FolderLock(folder / "data"):
            refusal = self.refusal()

        assert refusal.startswith(
            f"another Workroom server (pid {os.getpid()}) uses this data folder, data: "
        )

    def test_a_disk_without_locks(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def no_locks(_file: int, _operation: int) -> None:
            raise OSError(37, "No locks available")

        monkeypatch.setattr("fcntl.flock", no_locks)
        set_up(folder)

        assert self.refusal() == (
            "DATA_DIR: cannot lock a file in data (No locks available): name a folder "
            "on a local disk"
        )

    def test_a_taken_port(self, folder: Path, taken_port: int) -> None:
        set_up(folder)

        assert self.refusal("--port", str(taken_port)) == (
            f"port {taken_port} is taken: end what uses it, or take another: "
            f"PORT={taken_port + 1} ./start.sh"
        )

    def test_an_address_of_another_machine(self, folder: Path) -> None:
        set_up(folder)

        assert self.refusal("--host", "192.0.2.1").startswith(
            "HOST: cannot listen on 192.0.2.1 ("
        )

    def test_a_privileged_port(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def forbidden(*_: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("socket.socket.bind", forbidden)
        set_up(folder)

        assert self.refusal("--port", "80") == (
            "this user may not listen on port 80: take one above 1023: "
            "PORT=8000 ./start.sh"
        )

    def test_a_weak_key_in_production(self) -> None:
        refusal = self.refusal(
            code=2,
            ENVIRONMENT="production",
            SECRET_KEY="short",
            ALLOWED_HOSTS="a.example",
            ENCRYPTION_KEY=base64.urlsafe_b64encode(b"k" * 32).decode(),
        )

        assert refusal.startswith("SECRET_KEY: is too short or too simple")

    def test_an_unreadable_dot_env(self, folder: Path) -> None:
        (folder / ".env").write_bytes(b"\xff")

        assert self.refusal(code=2).startswith(".env: cannot be read")

    @staticmethod
    def refusal(*arguments: str, code: int = 1, **environ: str) -> str:
        done = run("serve", *arguments, **environ)
        assert done.exit_code == code, done.output
        (line,) = done.stderr.splitlines()
        return line.removeprefix("workroom: ")


class TestFirstEnv:
    def test_holds_fresh_keys_for_the_owner_alone(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        preparing.write_first_env()

        env = folder / ".env"
        assert stat.S_IMODE(env.stat().st_mode) == 0o600
        assert [p.name for p in folder.iterdir()] == [".env"]
        assert load_settings({"ENVIRONMENT": "staging"}).security.encryption_key
        assert capsys.readouterr().out.startswith(
            "workroom: wrote .env with fresh keys"
        )

    def test_never_replaces_one_that_another_start_has_just_written(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (folder / ".env").write_text("mine")
        monkeypatch.setattr(preparing, "is_first_start", lambda: True)

        preparing.write_first_env()

        assert (folder / ".env").read_text() == "mine"
        assert [p.name for p in folder.iterdir()] == [".env"]

    @pytest.mark.parametrize(
        ("name", "value"), [("SECRET_KEY", KEY), ("ENVIRONMENT", "production")]
    )
    def test_is_not_written_where_something_is_set_up(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
    ) -> None:
        monkeypatch.setenv(name, value)

        preparing.write_first_env()

        assert list(folder.iterdir()) == []

    def test_a_folder_that_cannot_be_written_is_told(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def read_only(**_: object) -> None:
            raise OSError(30, "Read-only file system")

        monkeypatch.setattr("tempfile.mkstemp", read_only)

        done = run("serve")

        assert done.exit_code == 1
        assert "cannot write .env into" in done.stderr
        assert "(Read-only file system)" in done.stderr


class _Usage:
    def __init__(self, free: int) -> None:
        self.free = free


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
