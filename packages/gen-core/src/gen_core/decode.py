"""One picture file as bytes `(channels, height, width)`: upright, of one size, of one number of channels.

    _, pixels = decode(Path("cat.jpg").read_bytes(), (32, 48), channels=3)

Only the formats below are opened: others that PIL knows start programs (EPS runs Ghostscript) or need the network.
"""

import io
import struct
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8

Channels = Literal[1, 3, 4]
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
SUFFIXES = frozenset(
    ".png .apng .jpg .jpeg .jpe .jfif .webp .gif .bmp .dib .tif .tiff .ppm .pgm .pbm .pnm".split(),
)
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
UNREADABLE = (OSError, SyntaxError, ValueError, TypeError, EOFError, struct.error)  # what PIL raises for a damaged file


def opened(data: bytes) -> Any:
    """The PIL image in `data`, of which only the header has been read.

    Raises:
        ValueError: for what is not a picture of FORMATS.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise ValueError(f"it is no {', '.join(FORMATS[:-1])} or {FORMATS[-1]}") from None
    except Image.DecompressionBombError as error:
        raise ValueError(str(error)) from None


def is_grey(image: Any) -> bool:
    """True without colour and without transparency, by the header alone."""
    return (image.mode in ("1", "L") or image.mode.startswith(("I", "F"))) and "transparency" not in image.info


def decode(
    data: bytes, size: tuple[int, int], channels: Channels
) -> tuple[tuple[int, int], UInt8[np.ndarray, "c h w"]]:
    """(width and height, the picture): turned upright by its EXIF orientation, cropped to `size`'s shape, resized.

    With 1 or 3 channels transparency is laid on white; with 4 it is the last one.

    Args:
        size: (height, width).

    Raises:
        an error of UNREADABLE: for a file that is damaged or no picture.
    """
    from PIL import Image, ImageOps

    with opened(data) as image:
        image.load()
        image = _eight_bits(ImageOps.exif_transpose(image))
        found = image.size
        if channels != 4 and (image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info):
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
        image = fitted(image.convert(MODES[channels]), *size)
    pixels = np.asarray(image)
    return found, pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _eight_bits(image: Any) -> Any:
    """A grey picture of 16 or 32 bits or of floats as 8 bits: PIL's own conversion clips instead of scaling.

    32-bit integers have the smallest of the ranges 8, 16 and 31 bits that holds them: files store 16 bits in 32. Floats
    are in [0, 1], or else in [0, 255].
    """
    from PIL import Image

    if not image.mode.startswith(("I", "F")):
        return image
    values = np.asarray(image)
    low, high = values.min(), values.max()
    tops = (1, 255) if image.mode == "F" else (65535,) if image.mode.startswith("I;16") else (255, 65535, 2**31 - 1)
    top = next((top for top in tops if 0 <= low <= high <= top), None)
    if top is None:
        raise ValueError(f"values from {low:g} to {high:g} have no known scale; rescale them to 0..{tops[0]}")
    scaled = (values * (255 / top)).round() if image.mode == "F" else values // ((top + 1) // 256)
    return Image.fromarray(scaled.astype(np.uint8))


def fitted(image: Any, height: int, width: int, average: bool = False) -> Any:
    """The largest central part of the shape height : width, resized to it by Lanczos' filter, or by averages."""
    from PIL import Image

    if image.size == (width, height):
        return image
    if image.width * height > image.height * width:  # too wide
        across, down = image.height * width / height, image.height
    else:
        across, down = image.width, image.width * height / width
    left, top = (image.width - across) // 2, (image.height - down) // 2
    box = (left, top, left + across, top + down)
    how = Image.Resampling.BOX if average else Image.Resampling.LANCZOS
    return image.resize((width, height), how, box=box)
