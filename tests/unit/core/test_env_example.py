import re
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from app.core.config import ROOT, ConfigError, load_settings, variables
from app.core.env_example import examples, fresh_keys, render


@pytest.mark.parametrize(("name", "text"), examples().items(), ids=examples().keys())
def test_the_file_in_the_tree_is_up_to_date(name: str, text: str) -> None:
    option = name.removeprefix(".env").removesuffix(".example").strip(".")

    assert (ROOT / name).read_text(encoding="utf-8") == text, (
        "run: python -m app config example "
        + (f"--environment {option} " if option else "")
        + f"> {name}"
    )


@pytest.mark.parametrize("text", examples().values(), ids=examples().keys())
def test_every_setting_is_there_with_its_meaning(text: str) -> None:
    lines = text.splitlines()
    settings = [line.lstrip("#").partition("=")[0] for line in lines if "=" in line]

    assert settings == list(variables())
    assert max(map(len, lines)) <= 88
    flat = " ".join(line.removeprefix("# ") for line in lines)
    assert all(str(info.description) in flat for _, info in variables().values())


def test_every_default_can_be_switched_on(tmp_path: Path) -> None:
    on = re.sub("^#(?=[A-Z])", "", render(), flags=re.MULTILINE)
    (tmp_path / ".env").write_text(on)

    switched_on = load_settings({"SECRET_KEY": "x"}, tmp_path)
    defaults = load_settings({"SECRET_KEY": "x"}, tmp_path / "empty")

    assert switched_on.server == defaults.server
    assert switched_on.models == defaults.models
    assert switched_on.cors == defaults.cors


def test_production_works_once_its_keys_are_filled_in(tmp_path: Path) -> None:
    env = tmp_path / ".env"
    env.write_text(render("production"))
    with pytest.raises(ConfigError, match="SECRET_KEY"):
        load_settings({}, tmp_path)

    settings = load_settings(fresh_keys(), tmp_path)

    assert settings.server.production
    assert settings.server.allowed_hosts == ("workroom.example.com",)


def test_development_logs_for_people(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(render("development"))

    assert load_settings(fresh_keys(), tmp_path).log.format == "console"


def test_fresh_keys_are_good_and_new(tmp_path: Path) -> None:
    keys = fresh_keys()

    load_settings(keys | {"ENVIRONMENT": "staging"}, tmp_path)
    Fernet(keys["ENCRYPTION_KEY"])
    assert keys != fresh_keys()
