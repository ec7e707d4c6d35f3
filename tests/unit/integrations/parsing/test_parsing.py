"""U1: parsers run with limits of time and memory in a child process."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from io import BytesIO
from pathlib import Path

import psutil
import pytest
from PIL import ExifTags, Image

from app.core.config import ROOT
from app.integrations.parsing.base import (
    DOCX,
    MAX_IMAGE_BYTES,
    MAX_IMAGE_EDGE,
    PDF,
    PPTX,
    XLSX,
    ZIP,
    Parsed,
    UnreadableFileError,
)
from app.integrations.parsing.process import Parser
from tests import samples
from tests.conftest import make_settings


async def parse(tmp_path: Path, content: bytes, mime: str, **variables: str) -> Parsed:
    path, folder = tmp_path / "file", tmp_path / "found"
    path.write_bytes(content)
    folder.mkdir(exist_ok=True)
    parser = Parser(make_settings(tmp_path, **variables).storage)
    return await parser.parse(path, mime, folder)


async def refusal(tmp_path: Path, content: bytes, mime: str, **variables: str) -> str:
    with pytest.raises(UnreadableFileError) as refused:
        await parse(tmp_path, content, mime, **variables)
    return refused.value.detail


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
async def test_an_image_has_a_size_and_a_thumbnail(tmp_path: Path, kind: str) -> None:
    mime = f"image/{kind.lower()}"

    parsed = await parse(tmp_path, samples.image(kind), mime)

    assert (parsed.width, parsed.height, parsed.text) == (640, 480, None)
    assert parsed.thumbnail is not None
    with Image.open(parsed.thumbnail) as thumbnail:
        assert (thumbnail.format, thumbnail.size) == ("WEBP", (320, 240))


@pytest.mark.parametrize(
    ("content", "mime", "size"),
    [
        (samples.noise("PNG", (1600, 1000)), "image/png", (1600, 1000)),
        (samples.noise("PNG", (3000, 1500)), "image/png", (2000, 1000)),
        (samples.image("GIF", (9000, 30)), "image/gif", (2000, 7)),
    ],
    ids=["bytes", "bytes and pixels", "pixels"],
)
async def test_an_image_beyond_what_models_take_is_scaled(
    tmp_path: Path, content: bytes, mime: str, size: tuple[int, int]
) -> None:
    parsed = await parse(tmp_path, content, mime)

    assert parsed.scaled is not None
    assert parsed.scaled.stat().st_size <= MAX_IMAGE_BYTES
    with Image.open(parsed.scaled) as scaled:
        assert (scaled.format, scaled.size) == ("WEBP", size)
    assert parsed.thumbnail is not None


async def test_an_image_that_models_take_is_not_scaled(tmp_path: Path) -> None:
    content = samples.image("PNG", (MAX_IMAGE_EDGE, 30))

    assert (await parse(tmp_path, content, "image/png")).scaled is None


async def test_a_scaled_image_is_upright_keeps_its_transparency_and_tells_no_place(
    tmp_path: Path,
) -> None:
    file = BytesIO()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # to be turned by a quarter
    exif[ExifTags.Base.Make] = "A camera"
    Image.new("RGBA", (9000, 90), (0, 0, 0, 0)).save(file, "PNG", exif=exif)

    parsed = await parse(tmp_path, file.getvalue(), "image/png")

    assert parsed.scaled is not None
    with Image.open(parsed.scaled) as scaled:
        assert (scaled.mode, scaled.size) == ("RGBA", (20, 2000))
        assert scaled.getpixel((0, 0)) == (0, 0, 0, 0)
        assert not scaled.getexif()


async def test_a_pdf_has_its_text_by_pages(tmp_path: Path) -> None:
    parsed = await parse(tmp_path, samples.pdf("First words", "Second words"), PDF)

    assert parsed.text is not None
    assert parsed.page_count == 2
    assert len(parsed.pages) == 2
    assert parsed.text[: parsed.pages[1]].strip() == "First words"
    assert parsed.text[parsed.pages[1] :].strip() == "Second words"
    assert parsed.thumbnail is not None


async def test_office_documents_tell_their_structure(tmp_path: Path) -> None:
    word = await parse(tmp_path, samples.word(), ZIP)
    sheet = await parse(tmp_path, samples.sheet(), ZIP)
    slides = await parse(tmp_path, samples.slides("One", "Two"), ZIP)

    assert word.mime == DOCX
    assert (
        word.text == "# Travel\n\nTrains leave at nine.\n\nCity | Price\nBern | 42\n\n"
    )
    assert (sheet.mime, sheet.text) == (
        XLSX,
        "# Prices\n\nCity | Price\nBern | 42\n\n",
    )
    assert (slides.mime, slides.text) == (PPTX, "One\n\nTwo\n\n")
    assert slides.pages == [0, 5]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("Größe: 1 €\r\nx".encode(), "Größe: 1 €\nx"),
        ("\ufeffGröße".encode(), "Größe"),
        ("Größe".encode("utf-16"), "Größe"),
        ("Größe".encode("cp1252"), "Größe"),
    ],
    ids=["utf-8", "with a mark", "utf-16", "windows"],
)
async def test_text_is_read_in_its_encoding(
    tmp_path: Path, content: bytes, text: str
) -> None:
    assert (await parse(tmp_path, content, "text/plain")).text == text


async def test_html_is_read_as_people_see_it(tmp_path: Path) -> None:
    page = b"<h2>Fares</h2><script>alert(1)</script><p>Nine &amp; up</p>"

    parsed = await parse(tmp_path, page, "text/html")

    assert parsed.text is not None
    assert parsed.text.split("\n") == ["", "## Fares", "", "Nine & up", ""]


async def test_more_text_than_is_kept_leaves_a_good_file(tmp_path: Path) -> None:
    parsed = await parse(tmp_path, b"word " * 2_100_000, "text/plain")

    assert parsed.text is None


@pytest.mark.parametrize(
    ("content", "mime", "reason"),
    [
        (samples.flood(), "image/png", "has 50,000 x 50,000 pixels"),
        (samples.image()[:200], "image/png", "is a broken image"),
        (samples.image("JPEG"), "image/png", "is a broken image"),
        (samples.pdf("a", encrypted=True), PDF, "is encrypted"),
        (samples.pdf(), PDF, "one without pages"),
        (b"%PDF-1.7\nnothing of the kind", PDF, "is a broken PDF"),
        (samples.bomb(), ZIP, "unpacks to more than"),
        (samples.archive({"a.txt": "a"}), ZIP, "no docx, xlsx or pptx"),
        (samples.office("word/document.xml"), ZIP, "is a broken office document"),
        (samples.word()[:2000], ZIP, "is a broken ZIP archive"),
        (
            samples.office("word/document.xml", {"word/vbaProject.bin": b"x"}),
            ZIP,
            "holds macros",
        ),
        (
            samples.office("xl/workbook.xml", {"a.xml": "<!DOCTYPE x><x/>"}),
            ZIP,
            "declares XML entities",
        ),
        (b"text " * 2000 + bytes(9), "text/plain", "is no text: it holds binary"),
        (b"\x81" * 9, "text/plain", "is no text in cp1252"),
    ],
    ids=[
        "pixel flood", "cut image", "another format", "encrypted pdf", "empty pdf",
        "broken pdf", "zip bomb", "any archive", "broken docx", "cut docx", "macros",
        "entities", "binary tail", "no encoding",
    ],
)  # fmt: skip
async def test_what_cannot_be_read_says_why(
    tmp_path: Path, content: bytes, mime: str, reason: str
) -> None:
    """U1: pixel floods, zip bombs, macros and the rest are refused, with the reason."""
    assert reason in await refusal(tmp_path, content, mime)


async def test_a_parser_that_takes_too_much_memory_is_ended(tmp_path: Path) -> None:
    """U1: what unpacks to more than the limit meets that, and not this machine."""
    content = samples.image(size=(6_000, 6_500))

    reason = await refusal(
        tmp_path, content, "image/png", FILE_PARSE_BYTES=str(256 * 2**20)
    )

    assert "too much" in reason
    assert (await parse(tmp_path, content, "image/png")).width == 6_000


async def test_a_parser_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    """U1: the clock of the parent ends what the CPU's limit does not."""
    path = tmp_path / "file"
    os.mkfifo(path)  # whoever reads it waits for ever
    folder = tmp_path / "found"
    folder.mkdir()
    parser = Parser(make_settings(tmp_path, FILE_PARSE_SECONDS="1").storage)

    with pytest.raises(UnreadableFileError, match="takes longer than 1 s"):
        await parser.parse(path, "text/plain", folder)


async def test_a_parser_knows_nothing_of_our_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_KEY", "a secret that parsers must not hold")
    fifo, folder = tmp_path / "file", tmp_path / "found"
    os.mkfifo(fifo)
    folder.mkdir()
    parser = Parser(make_settings(tmp_path, FILE_PARSE_SECONDS="30").storage)

    with (tmp_path / "ours").open("w") as ours:
        os.set_inheritable(ours.fileno(), True)
        async with _child(parser, fifo, folder) as seen:
            environment = await asyncio.to_thread((seen / "environ").read_bytes)
            names = {one.partition(b"=")[0] for one in environment.split(b"\0")}
            opened = {one.readlink().name for one in (seen / "fd").iterdir()}
            assert (seen / "cwd").readlink() == folder

    assert names - {b""} == {
        b"PYTHONPATH", b"PYTHONDONTWRITEBYTECODE", b"OPENBLAS_NUM_THREADS",
    }  # fmt: skip
    assert fifo.name in opened
    assert "ours" not in opened


async def test_a_parser_is_alone_in_its_network(tmp_path: Path) -> None:
    """Where the kernel lets who we are make one."""
    fifo, folder = tmp_path / "file", tmp_path / "found"
    os.mkfifo(fifo)
    folder.mkdir()
    parser = Parser(make_settings(tmp_path, FILE_PARSE_SECONDS="30").storage)

    async with _child(parser, fifo, folder) as seen:
        theirs = _network_of(seen)

    assert (theirs != _network_of(Path("/proc/self"))) == _may_leave_network()


def _network_of(process: Path) -> Path:
    return (process / "ns/net").readlink()


def _may_leave_network() -> bool:
    """As util-linux finds it out."""
    user = [] if os.geteuid() == 0 else ["--user"]
    command = ["unshare", *user, "--net", "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(
    ("does", "refused"),
    [
        ("open('x', 'wb').write(bytes(65 * 2**20))", "File too large"),
        ("[open('/dev/null') for _ in range(65)]", "Too many open files"),
        ("bytes(2**30)", "MemoryError"),
        (
            # Root may do what others may not.
            "os.geteuid() or os.setresuid(65534, 65534, 65534); os.fork()",
            "BlockingIOError",
        ),
    ],
    ids=["large file", "many files", "memory", "children"],
)
def test_a_parser_can_do_no_more_than_it_must(
    tmp_path: Path, does: str, refused: str
) -> None:
    """U1: whatever a file makes of its parser."""
    script = (
        "import os; from app.integrations.parsing.child import limit; "
        "limit(60, 2**29); "
    )
    environment = {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}

    done = subprocess.run(
        [sys.executable, "-c", script + does],
        capture_output=True,
        check=False,
        cwd=tmp_path,
        env=environment,
        text=True,
    )

    assert done.returncode == 1
    assert refused in done.stderr


@asynccontextmanager
async def _child(parser: Parser, fifo: Path, folder: Path) -> AsyncIterator[Path]:
    """What /proc tells of the child that reads from `fifo`, which then ends it."""
    parsing = asyncio.create_task(parser.parse(fifo, "text/plain", folder))
    # Opening it waits until the child does, by when it runs as it always will.
    with await asyncio.to_thread(fifo.open, "wb") as file:
        (child,) = psutil.Process().children()
        yield Path(f"/proc/{child.pid}")
        file.write(b"text")
    parsing.cancel()
    with suppress(asyncio.CancelledError):
        await parsing


def _imported(module: str) -> set[str]:
    """The names of all top-level packages that importing it loads."""
    script = f"import sys, {module}; print(*{{n.split('.')[0] for n in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True
    )
    return set(done.stdout.split())


def test_a_server_loads_no_parser() -> None:
    """What reads files costs an idle server nothing."""
    loaded = _imported("app.main")

    heavy = {"PIL", "pypdfium2", "openpyxl", "docx", "lxml", "obstore"}
    assert loaded & heavy == set()
