"""A speaker's picture in the sizes that pages show."""

from io import BytesIO

from jobs.progress import Refused
from PIL import Image, ImageOps

SIZES = (96, 384, 768)
KINDS = ("JPEG", "PNG", "WEBP")
ICONS = ("PNG", "ICO", "GIF", "JPEG", "WEBP")
MOST_PIXELS = 40_000_000


def resized(data: bytes) -> dict[int, bytes]:
    """Width → a square JPEG, upright, without what a camera has noted. Raises Refused."""
    image = opened(data, KINDS)
    try:
        image.draft("RGB", (2 * max(SIZES),) * 2)  # a JPEG need not be decoded in full
        upright = ImageOps.exif_transpose(image).convert("RGB")
        return {size: _encoded(ImageOps.fit(upright, (size, size)), "JPEG") for size in SIZES}
    except (OSError, ValueError, SyntaxError) as error:
        raise Refused("The picture is damaged.") from error


def icon(data: bytes) -> bytes:
    """A PNG of 32 pixels. Raises Refused."""
    try:
        image = opened(data, ICONS).convert("RGBA")
        return _encoded(ImageOps.fit(image, (32, 32)), "PNG")
    except (OSError, ValueError, SyntaxError) as error:
        raise Refused("The icon is damaged.") from error


def opened(data, kinds):
    """The image, of which nothing but the header has been decoded yet."""
    try:
        image = Image.open(BytesIO(data), formats=kinds)
    except Image.DecompressionBombError as error:
        raise Refused("The picture has too many pixels.") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise Refused(f"That is no picture of a kind we take: {', '.join(kinds)}.") from error
    if image.width * image.height > MOST_PIXELS:
        raise Refused("The picture has too many pixels.")
    return image


def _encoded(image, kind):
    out = BytesIO()
    image.save(out, kind, quality=85)
    return out.getvalue()
