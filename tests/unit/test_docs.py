"""The manual is true where a test can tell: links, settings, codes, examples."""

import json
import re
import subprocess
import textwrap
from pathlib import Path

import pytest

from app.core.config import ROOT, variables
from app.integrations.search.passages import Document, passages, slug

PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *(p for p in (ROOT / "docs").rglob("*.md") if "adr" not in p.parts),
    ]
)
NOT_OURS = {
    "ANTHROPIC_DEFAULT_HAIKU_MODEL",  # one of Claude Code's own
    "HF_HOME",  # a variable of the Hugging Face hub's library
    "OLLAMA_HOST",  # a variable of Ollama's own
    "SSL_CERT_FILE",  # one of OpenSSL's
}
OF_EXAMPLES = {"BASE", "CHAT", "DESK", "END", "KEY", "LAST", "LOGIN", "MESSAGE",
               "REFRESH",
               "REPLY", "TOKEN", "WHOLE", "WORKROOM_AUTH"}  # fmt: skip

pages = pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))


_CODE_IN_CALL = re.compile(r"""\bcode=["']([a-z_]+)["']""")
_CODE_IN_CLASS = re.compile(
    r"""^    (?:status, )?code(?:, title)?(?:: str)? = (?:\d+, )?"([a-z_]+)\"""",
    re.MULTILINE,
)
_BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[tuple[str, str]]:
    """Each code block's language and text."""
    found = _BLOCK.findall(page.read_text(encoding="utf-8"))
    return [(language, textwrap.dedent(body)) for _, language, body in found]


def anchors(page: Path) -> set[str]:
    lines = _BLOCK.sub("", page.read_text(encoding="utf-8"))
    return {slug(title) for title in re.findall(r"^#+ (.*)$", lines, re.MULTILINE)}


@pages
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.is_file(), target
        assert not anchor or anchor in anchors(linked), target


@pages
def test_a_passages_anchor_is_one_of_its_pages(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    found = {p.anchor for p in passages(Document("page", text))}

    assert found <= anchors(page) | {""}


@pages
def test_settings_that_are_named_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"`([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)(?:=[^`]*)?`", text))
    for _, body in blocks(page):
        named |= set(re.findall(r"^(?:\$ )?([A-Z][A-Z0-9_]+)=", body, re.MULTILINE))
    known = set(variables())

    files = {f"{name}_FILE" for name in known}
    assert named - known - files <= NOT_OURS | OF_EXAMPLES


def test_every_setting_is_in_the_configuration_guide() -> None:
    guide = (ROOT / "docs/guides/configuration.md").read_text(encoding="utf-8")
    rows = set(re.findall(r"^\| `([A-Z0-9_]+)` \|", guide, re.MULTILINE))

    assert rows == set(variables())


def test_every_error_code_is_in_the_troubleshooting_guide() -> None:
    guide = (ROOT / "docs/guides/troubleshooting.md").read_text(encoding="utf-8")
    rows = set(re.findall(r"^\| `([a-z_]+)` \| \d{3} \|", guide, re.MULTILINE))
    raised = {
        code
        for module in (ROOT / "app").rglob("*.py")
        for pattern in (_CODE_IN_CALL, _CODE_IN_CLASS)
        for code in pattern.findall(module.read_text(encoding="utf-8"))
    }

    assert raised - rows == {"provider_error"}  # the base of the others, never raised


@pages
def test_examples_are_well_formed(page: Path) -> None:
    for language, body in blocks(page):
        if language == "json":
            json.loads(body)
        elif language in {"sh", "bash"}:
            checked = subprocess.run(
                ["sh", "-n"], input=body, text=True, capture_output=True, check=False
            )
            assert checked.returncode == 0, checked.stderr + body


def test_the_quickstart_can_be_run_against_any_server() -> None:
    runnable = [b for lang, b in blocks(ROOT / "docs/QUICKSTART.md") if lang == "sh"]

    assert runnable[0].startswith("BASE=${BASE:-http://127.0.0.1:8000}\n")
    assert not any("127.0.0.1" in body for body in runnable[1:])


def test_every_promise_is_held_by_tests_that_name_it() -> None:
    page = (ROOT / "docs/SECURITY.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| ([A-Z]\d+) \| .* \| (.*) \| (.*) \|$", page, flags=re.MULTILINE
    )

    assert len(rows) > 30  # else the table has another form
    for promise, modules, tests in rows:
        for module in re.findall(r"`(.+?)`", modules):
            assert (ROOT / "app" / module).exists(), module
        held_by = re.findall(r"`(.+?)`", tests)
        assert held_by, promise
        for test in held_by:
            text = (ROOT / "tests" / test).read_text(encoding="utf-8")
            assert re.search(rf"\b{promise}\b", text), f"{test} does not name {promise}"


@pages
def test_no_page_holds_a_path_of_somebodys_machine(page: Path) -> None:
    text = page.read_text(encoding="utf-8")

    assert not re.search(r"(?<![\w.])/(?:home|root|Users|work|tmp)/", text)
