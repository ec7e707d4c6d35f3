from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from app.integrations.parsing.base import (
    MAX_IMAGE_BYTES,
    MAX_IMAGE_EDGE,
    SCALED_NAME,
    THUMBNAIL_NAME,
    Parsed,
    UnreadableFileError,
)

MOST_PIXELS = 40_000_000
"""Four bytes each, and a copy or two: what is larger is refused before it is read."""

_EDGE = 320  # pixels of a thumbnail
_SCALED_EDGE = 2000
"""Pixels: Anthropic takes no larger ones where a request has many, and its models see
little more of them."""
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
            upright = ImageOps.exif_transpose(image)
            is_large = path.stat().st_size > MAX_IMAGE_BYTES
            if is_large or max(width, height) > MAX_IMAGE_EDGE:
                upright = write_scaled(upright, folder)
            write_thumbnail(upright, folder)
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError) as error:
        raise UnreadableFileError("is a broken image") from error
    return Parsed(mime, width=width, height=height, thumbnail=folder / THUMBNAIL_NAME)


def write_scaled(image: Image.Image, folder: Path) -> Image.Image:
    """What models get of an image that is beyond what they take; it is given back.

    Of an animation it is the first frame, which is all that they see of one.
    """
    path, edge = folder / SCALED_NAME, _SCALED_EDGE
    scaled = _small(image, edge)
    scaled.save(path, "WEBP", quality=90)
    while path.stat().st_size > MAX_IMAGE_BYTES:  # such as noise
        edge //= 2
        scaled = _small(scaled, edge)
        scaled.save(path, "WEBP", quality=90)
    return scaled


def write_thumbnail(image: Image.Image, folder: Path) -> None:
    _small(image, _EDGE).save(folder / THUMBNAIL_NAME, "WEBP", quality=80)


def _small(image: Image.Image, edge: int) -> Image.Image:
    """The same with sides of at most `edge` pixels; the image itself is used up."""
    has_alpha = "A" in image.getbands() or "transparency" in image.info
    mode = "RGBA" if has_alpha else "RGB"
    # Before it is made smaller: between two colours of a palette there are none.
    small = image if image.mode == mode else image.convert(mode)
    small.thumbnail((edge, edge))
    small.info.clear()  # nothing of where and when it was taken
    return small
