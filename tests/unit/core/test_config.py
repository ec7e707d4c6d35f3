import base64
from pathlib import Path

import pytest
from pydantic import SecretStr

from app.core.config import (
    GROUPS,
    ConfigError,
    CorsSettings,
    Settings,
    choices,
    get_settings,
    is_first_start,
    load_settings,
    variables,
)

KEY = "correct horse battery staple, 0123456789"
FERNET = base64.urlsafe_b64encode(b"k" * 32).decode()
PRODUCTION = {
    "ENVIRONMENT": "production",
    "SECRET_KEY": KEY,
    "ENCRYPTION_KEY": FERNET,
    "ALLOWED_HOSTS": "workroom.example.com",
}


def load(folder: Path, **environ: str) -> Settings:
    return load_settings({"SECRET_KEY": KEY} | environ, folder)


def problems(folder: Path, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_settings(environ, folder)
    return str(caught.value).splitlines()


class TestLayers:
    def test_a_secret_key_is_all_it_needs(self, tmp_path: Path) -> None:
        settings = load(tmp_path)

        assert settings.server.port == 8000
        assert settings.sources == {"SECRET_KEY": "environment"}

    def test_later_layers_win(self, tmp_path: Path) -> None:
        (tmp_path / ".env").write_text("PORT=1\nHOST=h1\nAPP_NAME=one\nDEBUG=1\n")
        (tmp_path / ".env.staging").write_text("PORT=2\nHOST=h2\nAPP_NAME=two\n")
        (tmp_path / "host").write_text("h3\n")

        settings = load_settings(
            PRODUCTION
            | {
                "ENVIRONMENT": "staging",
                "PORT": "4",
                "HOST_FILE": str(tmp_path / "host"),
            },
            tmp_path,
        )

        assert (settings.server.port, settings.sources["PORT"]) == (4, "environment")
        assert settings.server.host == "h3"
        assert settings.sources["HOST"] == f"environment, file {tmp_path / 'host'}"
        assert settings.server.app_name == "two"
        assert settings.sources["APP_NAME"] == ".env.staging"
        assert (settings.server.debug, settings.sources["DEBUG"]) == (True, ".env")

    def test_a_value_beats_a_file_of_the_same_layer(self, tmp_path: Path) -> None:
        (tmp_path / "host").write_text("from-file")

        settings = load(tmp_path, HOST="direct", HOST_FILE=str(tmp_path / "host"))

        assert settings.server.host == "direct"

    def test_dot_env_may_choose_the_environment(self, tmp_path: Path) -> None:
        (tmp_path / ".env").write_text("ENVIRONMENT=staging\n")
        (tmp_path / ".env.staging").write_text(
            f"SECRET_KEY='{KEY}'\nENCRYPTION_KEY={FERNET}\n"
        )

        assert load_settings({}, tmp_path).server.environment == "staging"

    def test_an_empty_value_counts_as_none(self, tmp_path: Path) -> None:
        (tmp_path / ".env").write_text("PORT=9000\nHOST\n")

        settings = load(tmp_path, PORT="", REDIS_URL="")

        assert settings.server.port == 9000
        assert settings.redis.url is None

    def test_dot_env_values_are_taken_literally(self, tmp_path: Path) -> None:
        (tmp_path / ".env").write_text("APP_NAME='${HOME} and $x'\n")

        assert load(tmp_path).server.app_name == "${HOME} and $x"

    def test_a_byte_order_mark_is_no_part_of_a_name(self, tmp_path: Path) -> None:
        (tmp_path / ".env").write_text("PORT=9000\n", encoding="utf-8-sig")

        assert load(tmp_path).server.port == 9000

    def test_the_working_directory_and_environment_are_the_default(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in variables():
            monkeypatch.delenv(name, raising=False)
        (tmp_path / ".env").write_text("APP_NAME=Here\n")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("SECRET_KEY", KEY)
        get_settings.cache_clear()
        try:
            assert get_settings().server.app_name == "Here"
            assert get_settings() is get_settings()
        finally:
            get_settings.cache_clear()


class TestFiles:
    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (None, "cannot read {path} (No such file or directory)"),
            (b"\xff\xfe\x00", "cannot read {path} (it is not UTF-8)"),
            (b" \n", "{path} is empty"),
        ],
    )
    def test_an_unusable_secret_file_is_named(
        self, tmp_path: Path, content: bytes | None, reason: str
    ) -> None:
        path = tmp_path / "secret"
        if content is not None:
            path.write_bytes(content)

        (problem,) = problems(tmp_path, SECRET_KEY_FILE=str(path))

        assert problem.startswith(f"SECRET_KEY_FILE: {reason.format(path=path)}: ")

    def test_an_unreadable_dot_env_is_named(self, tmp_path: Path) -> None:
        (tmp_path / ".env").write_bytes(b"APP_NAME=\xff\n")

        (problem,) = problems(tmp_path)

        assert problem.startswith(".env: cannot be read (it is not UTF-8): ")

    def test_a_folder_named_dot_env_holds_no_values(self, tmp_path: Path) -> None:
        (tmp_path / ".env").mkdir()

        assert load(tmp_path).server.port == 8000


class TestProblems:
    def test_every_wrong_variable_is_named_at_once(self, tmp_path: Path) -> None:
        port, pool, key = problems(tmp_path, PORT="0", DB_POOL_SIZE="many")

        assert port == "PORT: Input should be greater than or equal to 1"
        assert pool.startswith("DB_POOL_SIZE: Input should be a valid integer")
        assert key == (
            "SECRET_KEY: is not set: put it into .env "
            "(`python -m app keys generate` prints fresh keys)"
        )

    @pytest.mark.parametrize(
        ("variable", "value"),
        [
            ("ENVIRONMENT", "prod"),
            ("DEBUG", "perhaps"),
            ("ENCRYPTION_KEY", "short"),
            ("ENCRYPTION_KEY", "ä" * 44),
            ("ENCRYPTION_KEY", f"{FERNET},"),
            ("ACCESS_TOKEN_MINUTES", "0"),
            ("ACCESS_TOKEN_MINUTES", "inf"),
            ("SHUTDOWN_SECONDS", "nan"),
            ("BCRYPT_ROUNDS", "3"),
            ("LOG_LEVEL", "loud"),
            ("TRUSTED_PROXIES", "10.0.0.0/8,10.0.0.0/33"),
            ("TRUSTED_PROXIES", "*"),
            ("PUBLIC_URL", "workroom.example.com"),
            ("DATABASE_URL", "mysql://host/name"),
            ("CORS_ORIGINS", "https://a.example/path"),
            ("CORS_ORIGINS", "https://a.example/"),
            ("CORS_ORIGINS", "a.example"),
            ("CORS_ORIGINS", "ftp://a.example"),
            ("CORS_ORIGINS", "https://"),
        ],
    )
    def test_a_wrong_value_is_named(
        self, tmp_path: Path, variable: str, value: str
    ) -> None:
        (problem,) = problems(tmp_path, **{"SECRET_KEY": KEY, variable: value})

        assert problem.startswith(f"{variable}: ")

    def test_a_problem_never_shows_a_secret(self, tmp_path: Path) -> None:
        found = problems(tmp_path, ENCRYPTION_KEY="hush-hush", SECRET_KEY=KEY)

        assert "hush-hush" not in "".join(found)

    def test_any_origin_never_goes_with_credentials(self, tmp_path: Path) -> None:
        assert load(tmp_path, CORS_ORIGINS="*").cors.origins == ("*",)

        (problem,) = problems(
            tmp_path, SECRET_KEY=KEY, CORS_ORIGINS="*", CORS_CREDENTIALS="true"
        )

        assert problem.startswith("CORS_ORIGINS: * is never allowed")


class TestProduction:
    def test_a_complete_one_loads(self, tmp_path: Path) -> None:
        settings = load_settings(PRODUCTION, tmp_path)

        assert settings.server.production
        assert not settings.server.shows_docs

    @pytest.mark.parametrize("environment", ["staging", "production"])
    @pytest.mark.parametrize(
        ("variable", "value"),
        [
            ("SECRET_KEY", "short-0123456789"),
            ("SECRET_KEY", "ab" * 32),
            ("ENCRYPTION_KEY", ""),
            ("CORS_ORIGINS", "*"),
        ],
    )
    def test_weak_settings_are_refused(
        self, tmp_path: Path, environment: str, variable: str, value: str
    ) -> None:
        environ = PRODUCTION | {"ENVIRONMENT": environment, variable: value}

        (problem,) = problems(tmp_path, **environ)

        assert problem.startswith(f"{variable}: ")

    @pytest.mark.parametrize(
        ("variable", "value"), [("DEBUG", "true"), ("ALLOWED_HOSTS", "")]
    )
    def test_only_production_refuses_these(
        self, tmp_path: Path, variable: str, value: str
    ) -> None:
        environ = PRODUCTION | {variable: value}

        (problem,) = problems(tmp_path, **environ)

        assert problem.startswith(f"{variable}: ")
        load_settings(environ | {"ENVIRONMENT": "staging"}, tmp_path)

    def test_development_takes_a_weak_key(self, tmp_path: Path) -> None:
        load_settings({"SECRET_KEY": "x"}, tmp_path)


class TestValues:
    def test_lists_are_comma_separated(self, tmp_path: Path) -> None:
        settings = load(tmp_path, ALLOWED_HOSTS=" a.example, b.example,, ")

        assert settings.server.allowed_hosts == ("a.example", "b.example")

    def test_code_may_give_lists_as_they_are(self) -> None:
        assert CorsSettings(origins=("https://a.example",)).origins == (
            "https://a.example",
        )

    def test_proxies_are_addresses_and_ranges(self, tmp_path: Path) -> None:
        settings = load(tmp_path, TRUSTED_PROXIES="10.1.2.3/8,::1")

        assert settings.server.trusted_proxies == ("10.1.2.3/8", "::1")

    def test_several_encryption_keys_may_be_set(self, tmp_path: Path) -> None:
        keys = load(tmp_path, ENCRYPTION_KEY=f"{FERNET}, {FERNET}").security

        assert keys.encryption_key == SecretStr(f"{FERNET}, {FERNET}")

    @pytest.mark.parametrize(
        ("environ", "url"),
        [
            ({}, "http://127.0.0.1:8000"),
            ({"HOST": "0.0.0.0", "PORT": "80"}, "http://127.0.0.1:80"),
            ({"HOST": "::"}, "http://[::1]:8000"),
            ({"HOST": "fe80::1"}, "http://[fe80::1]:8000"),
            ({"PUBLIC_URL": "https://a.example/"}, "https://a.example"),
        ],
    )
    def test_the_address_for_people(
        self, tmp_path: Path, environ: dict[str, str], url: str
    ) -> None:
        assert load(tmp_path, **environ).server.url == url

    @pytest.mark.parametrize(
        ("environ", "url"),
        [
            ({"DATA_DIR": "/d"}, "sqlite+aiosqlite:////d/workroom.db"),
            ({"DATABASE_URL": "sqlite:///x.db"}, "sqlite+aiosqlite:///x.db"),
            ({"DATABASE_URL": "postgres://h/n"}, "postgresql+asyncpg://h/n"),
            ({"DATABASE_URL": "postgresql://h/n"}, "postgresql+asyncpg://h/n"),
            ({"DATABASE_URL": "postgresql+asyncpg://h/n"}, "postgresql+asyncpg://h/n"),
        ],
    )
    def test_the_database_gets_an_async_driver(
        self, tmp_path: Path, environ: dict[str, str], url: str
    ) -> None:
        assert load(tmp_path, **environ).database_url == url

    @pytest.mark.parametrize(
        ("environ", "shown"),
        [({}, True), ({"DOCS_ENABLED": "false"}, False)],
    )
    def test_docs_are_shown_unless_switched_off(
        self, tmp_path: Path, environ: dict[str, str], *, shown: bool
    ) -> None:
        assert load(tmp_path, **environ).server.shows_docs is shown

    @pytest.mark.parametrize(
        ("environ", "redirects"),
        [({}, True), ({"HTTPS_REDIRECT": "false"}, False)],
    )
    def test_production_redirects_to_https_unless_switched_off(
        self, tmp_path: Path, environ: dict[str, str], *, redirects: bool
    ) -> None:
        settings = load_settings(PRODUCTION | environ, tmp_path)

        assert settings.server.redirects_to_https is redirects
        assert not load(tmp_path).server.redirects_to_https

    def test_production_shows_docs_only_when_asked(self, tmp_path: Path) -> None:
        settings = load_settings(PRODUCTION | {"DOCS_ENABLED": "true"}, tmp_path)

        assert settings.server.shows_docs


class TestFirstStart:
    def test_nothing_set_up_is_a_first_start(self, tmp_path: Path) -> None:
        assert is_first_start({}, tmp_path)

    @pytest.mark.parametrize(
        "environ",
        [{"SECRET_KEY": "x"}, {"ENVIRONMENT": "production"}],
    )
    def test_settings_in_the_environment_are_a_set_up(
        self, tmp_path: Path, environ: dict[str, str]
    ) -> None:
        assert not is_first_start(environ, tmp_path)

    def test_so_is_a_dot_env_even_a_dangling_link(self, tmp_path: Path) -> None:
        (tmp_path / ".env").symlink_to("nowhere")

        assert not is_first_start({}, tmp_path)


class TestVariables:
    def test_every_setting_has_a_name_a_meaning_and_a_group(self) -> None:
        fields = [f for group in GROUPS.values() for f in group.model_fields.values()]

        assert len(variables()) == len(fields)
        assert all(info.description for info in fields)
        assert {group for group, _ in variables().values()} == set(GROUPS)

    def test_choices_are_those_of_a_literal(self) -> None:
        assert choices(variables()["LOG_FORMAT"][1]) == ("json", "console")
        assert choices(variables()["PORT"][1]) == ()
