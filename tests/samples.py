"""Files of every kind, and of those that nobody should send."""

import io
import struct
import zlib
from collections.abc import Mapping
from random import Random
from zipfile import ZIP_DEFLATED, ZipFile

import docx
import openpyxl
from PIL import Image

_TYPES = (
    b"<Types xmlns='http://schemas.openxmlformats.org/package/2006/content-types'/>"
)


def image(kind: str = "PNG", size: tuple[int, int] = (640, 480)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (200, 30, 30)).save(file, kind)
    return file.getvalue()


def noise(kind: str, size: tuple[int, int]) -> bytes:
    """The image that no format makes small; the same each time."""
    file = io.BytesIO()
    pixels = Random(1).randbytes(3 * size[0] * size[1])
    Image.frombytes("RGB", size, pixels).save(file, kind)
    return file.getvalue()


def flood(width: int = 50_000, height: int = 50_000) -> bytes:
    """A small PNG that says it has so many pixels."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [_chunk(b"IHDR", head), _chunk(b"IDAT", zlib.compress(bytes(1000)))]
    )


def _chunk(name: bytes, data: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(name + data))
    return struct.pack(">I", len(data)) + name + data + check


def pdf(*pages: str, encrypted: bool = False) -> bytes:
    """A page for each text."""
    kids = " ".join(f"{4 + 2 * n} 0 R" for n in range(len(pages)))
    size = "/MediaBox [0 0 612 792]"
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} {size} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for n, text in enumerate(pages):
        drawn = f"BT /F1 24 Tf 72 700 Td ({text}) Tj ET"
        fonts = "/Resources << /Font << /F1 3 0 R >> >>"
        objects += [
            f"<< /Type /Page /Parent 2 0 R {fonts} /Contents {5 + 2 * n} 0 R >>",
            f"<< /Length {len(drawn)} >>\nstream\n{drawn}\nendstream",
        ]
    secret = ""
    if encrypted:  # by a password that nobody knows
        objects.append(
            f"<< /Filter /Standard /V 1 /R 2 /P -4 /O <{'41' * 32}> /U <{'42' * 32}> >>"
        )
        secret = f" /Encrypt {len(objects)} 0 R /ID [<{'43' * 16}> <{'43' * 16}>]"
    return _assembled(objects, secret)


def _assembled(objects: list[str], secret: str) -> bytes:
    file, places = io.BytesIO(), []
    file.write(b"%PDF-1.4\n")
    for number, one in enumerate(objects, 1):
        places.append(file.tell())
        file.write(f"{number} 0 obj\n{one}\nendobj\n".encode())
    start = file.tell()
    file.write(f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode())
    file.writelines(f"{place:010} 00000 n \n".encode() for place in places)
    trailer = f"<< /Size {len(objects) + 1} /Root 1 0 R{secret} >>"
    file.write(f"trailer\n{trailer}\nstartxref\n{start}\n%%EOF\n".encode())
    return file.getvalue()


def word() -> bytes:
    document = docx.Document()
    document.add_heading("Travel", level=1)
    document.add_paragraph("Trains leave at nine.")
    table = document.add_table(rows=2, cols=2)
    for cell, text in zip(
        [cell for row in table.rows for cell in row.cells],
        ("City", "Price", "Bern", "42"),
        strict=True,
    ):
        cell.text = text
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()


def sheet() -> bytes:
    workbook = openpyxl.Workbook()
    rows = workbook.active
    rows.title = "Prices"
    rows.append(["City", "Price"])
    rows.append(["Bern", 42])
    file = io.BytesIO()
    workbook.save(file)
    return file.getvalue()


def slides(*texts: str) -> bytes:
    space = "http://schemas.openxmlformats.org/drawingml/2006/main"
    entries = {
        f"ppt/slides/slide{n}.xml": f"<s xmlns:a='{space}'><a:p><a:r><a:t>{text}</a:t>"
        "</a:r></a:p></s>"
        for n, text in enumerate(texts, 1)
    }
    return office("ppt/presentation.xml", entries)


def office(main: str, entries: Mapping[str, str | bytes] | None = None) -> bytes:
    """A ZIP that says it is an office document."""
    return archive({"[Content_Types].xml": _TYPES, main: "<x/>", **(entries or {})})


def archive(entries: Mapping[str, str | bytes]) -> bytes:
    file = io.BytesIO()
    with ZipFile(file, "w", ZIP_DEFLATED) as zipped:
        for name, content in entries.items():
            zipped.writestr(name, content)
    return file.getvalue()


def bomb() -> bytes:
    """A docx of 300 MB that is sent as 300 kB."""
    return office("word/document.xml", {"word/media/zeros.xml": bytes(300 * 2**20)})


PROGRAM = b"MZ\x90\x00\x03\x00\x00\x00\x04\x00\x00\x00\xff\xff" + bytes(200)
"""How a program for Windows begins."""
