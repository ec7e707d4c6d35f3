from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from app.integrations.parsing.base import (
    THUMBNAIL_NAME,
    Parsed,
    UnreadableFileError,
)

MOST_PIXELS = 40_000_000
"""Four bytes each, and a copy or two: what is larger is refused before it is read."""

_EDGE = 320  # pixels of a thumbnail
_FORMATS = {
    "image/png": "PNG",
    "image/jpeg": "JPEG",
    "image/gif": "GIF",
    "image/webp": "WEBP",
}

Image.MAX_IMAGE_PIXELS = None  # ours is lower, and its message better


def parse(path: Path, mime: str, folder: Path) -> Parsed:
    try:
        with Image.open(path, formats=[_FORMATS[mime]]) as image:
            width, height = image.size
            if width * height > MOST_PIXELS:
                raise UnreadableFileError(
                    f"has {width:,} x {height:,} pixels: more than {MOST_PIXELS:,}"
                )
            image.load()
            write_thumbnail(ImageOps.exif_transpose(image), folder)
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError) as error:
        raise UnreadableFileError("is a broken image") from error
    return Parsed(mime, width=width, height=height, thumbnail=folder / THUMBNAIL_NAME)


def write_thumbnail(image: Image.Image, folder: Path) -> None:
    image.thumbnail((_EDGE, _EDGE))
    has_alpha = "A" in image.getbands() or "transparency" in image.info
    small = image.convert("RGBA" if has_alpha else "RGB")
    small.info.clear()  # nothing of where and when it was taken
    small.save(folder / THUMBNAIL_NAME, "WEBP", quality=80)
