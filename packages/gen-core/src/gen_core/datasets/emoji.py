"""The emoji of Debian's fonts-noto-color-emoji: 1,632 pictures with names, in 13 groups; 3,883 with sequences.

data = emoji(size=32)  # Arrays: pictures (n, 3, 32, 32) as bytes, and groups

The font holds one picture of 136 x 128 pixels for each glyph; a glyph stands for a code point, or for a sequence that
the font's ligatures join (flags, skin tones, families). A picture is laid on white, made square and averaged down. Its
name is what Unicode calls the code points; its group is decided by their range and name. SIL Open Font Licence 1.1.
"""

import re
import struct
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gen_core.data import Arrays
from gen_core.datasets.packages import EMOJI
from gen_core.datasets.sizes import squared
from gen_core.decode import Channels
from gen_core.folder import Encoded

FONT = "NotoColorEmoji.ttf"
TONES = {0x1F3FB: "light", 0x1F3FC: "medium-light", 0x1F3FD: "medium", 0x1F3FE: "medium-dark", 0x1F3FF: "dark"}
LETTERS = range(0x1F1E6, 0x1F200)  # pairs of them are flags
SILENT = {0x200D, 0xFE0F, 0xE007F}  # joiner, "as a picture", end of a sequence

# The first rule that holds decides: ranges of the code point, or a pattern in its name.
GROUPS = [
    ("flags", [(0x1F1E6, 0x1F1FF), (0x1F3F3, 0x1F3F4)], r"FLAG"),
    ("hearts", [(0x1F493, 0x1F49F)], r"(?<!WITH )HEART$|HEART SUIT"),
    ("clocks", [(0x1F550, 0x1F567)], r"CLOCK FACE"),
    ("people", [(0x1F440, 0x1F478), (0x1F481, 0x1F487)], r"GESTURE|FACE (PALM|MASSAGE)|PERSON|NINJA|BABY ANGEL"),
    ("sky", [(0x1F310, 0x1F32C), (0x2600, 0x2604)], r"MOON|^SUN|CLOUD|STAR$|RAIN|SNOW"),
    (
        "faces",
        [(0x1F600, 0x1F644), (0x1F910, 0x1F917), (0x1F920, 0x1F925), (0x1F927, 0x1F92F), (0x1F970, 0x1F97A)]
        + [(0x1FAE0, 0x1FAE8), (0x1F479, 0x1F47D), (0x2639, 0x263A)],
        r"(SMILING|GRINNING|FROWNING|WITH.*) FACE$|^FACE ",
    ),
    ("animals", [(0x1F400, 0x1F43F), (0x1F980, 0x1F9AE), (0x1FAB0, 0x1FAB3), (0x1FACE, 0x1FACF)], r"^(SPIDER|GOOSE)$"),
    ("plants", [(0x1F331, 0x1F335), (0x1F337, 0x1F344)], r"BOUQUET|FLOWER|POTTED PLANT|LOTUS|SHAMROCK"),
    ("food", [(0x1F32D, 0x1F37F), (0x1F950, 0x1F96F), (0x1F9C0, 0x1F9CB), (0x1FAD0, 0x1FADB)], r"BEVERAGE|CAKE"),
    (
        "people",
        [(0x1F90C, 0x1F93E), (0x1F9B0, 0x1F9DF), (0x1FAC0, 0x1FAC5), (0x1FAF0, 0x1FAF8), (0x270A, 0x270D)]
        + [(0x1F3C2, 0x1F3CC)],
        r"HAND|INDEX|\bMAN\b|WOMAN|DANCER|FINGER",
    ),
    ("transport", [(0x1F680, 0x1F6A4), (0x1F6F0, 0x1F6FC)], r"BICYCL|AIRPLANE|SAILBOAT|FERRY|MOTOR|CAR$|TRAIN|SCOOTER"),
    ("places", [(0x1F3D4, 0x1F3F0), (0x1F5FA, 0x1F5FF), (0x1F301, 0x1F30F)], r"CHURCH|MOSQUE|TEMPLE|SYNAGOGUE|TENT"),
    ("symbols", [(0x0, 0x2BFF), (0x3000, 0x32FF), (0x1F170, 0x1F251), (0x1F500, 0x1F54F)], r"SIGN$|SYMBOL|LARGE "),
]


@dataclass(frozen=True)
class Emoji:
    """One picture of the font."""

    group: str
    name: str
    png: bytes


def emoji(
    size: int | tuple[int, int] = 32,
    *,
    channels: Channels | None = 3,
    sequences: bool = False,
    folder: str | Path | None = None,
) -> Arrays:
    """Pictures `(n, channels, height, width)` as bytes and their groups, in the order of `listed`.

    Args:
        channels: 3 is colour on white, 4 colour and transparency, 1 grey.
        sequences: with skin tones, genders and families, not flags alone.
        folder: holds NotoColorEmoji.ttf; by default Debian's package fonts-noto-color-emoji.

    Raises:
        FileNotFoundError: without the font, naming the command that installs it.
        ValueError: for a font that is damaged or has no pictures.
    """
    found = listed(EMOJI.find(FONT, folder), sequences)
    groups = sorted({each.group for each in found})
    pictures = Encoded("the font", [each.name for each in found], lambda i: found[i].png, squared)
    return pictures.arrays([groups.index(each.group) for each in found], groups, size, channels or 3)


def listed(font: Path, sequences: bool = False) -> list[Emoji]:
    """The pictures of a font by group and name; two of one name are told apart by their code points."""
    found: dict[tuple[str, str], bytes] = {}
    for codes, png in sorted(glyphs(font).items()):
        where, called = group(codes), name(codes)
        if len(codes) == 1 and (codes[0] in LETTERS or codes[0] in TONES or codes[0] < 0x80):
            continue  # a part of sequences that is no emoji by itself
        if sequences or len(codes) == 1 or (where == "flags" and len(codes) <= 2):
            if (where, called) in found:
                called = f"{called} {'-'.join(f'{code:x}' for code in codes)}"[:240]
            found[where, called] = png
    if not found:
        raise ValueError(f"{font} has no colour pictures (table CBDT); take the font of fonts-noto-color-emoji")
    return [Emoji(*key, found[key]) for key in sorted(found, key=lambda key: (key[0], f"{key[1]}.png"))]


def glyphs(font: Path) -> dict[tuple[int, ...], bytes]:
    """Code points -> PNG, for each picture of the font.

    Raises:
        ValueError: naming it, for a font that is damaged.
    """
    from fontTools.ttLib import TTFont, TTLibError

    try:
        tables: Any = TTFont(font)
        return dict(_glyphs(tables)) if "CBDT" in tables else {}
    except (TTLibError, struct.error, AssertionError, EOFError, IndexError, KeyError, UnicodeDecodeError) as error:
        raise ValueError(f"{font} is damaged ({error}); install its package again") from None


def _glyphs(tables: Any) -> Iterator[tuple[tuple[int, ...], bytes]]:
    points = {glyph: (code,) for code, glyph in tables.getBestCmap().items()}
    for subtable in [x for lookup in tables["GSUB"].table.LookupList.Lookup for x in lookup.SubTable]:
        for first, joined in getattr(subtable, "ligatures", {}).items():
            for ligature in joined:
                parts = [first, *ligature.Component]
                if all(part in points for part in parts):
                    points[ligature.LigGlyph] = tuple(code for part in parts for code in points[part])
    pictures = tables["CBDT"].strikeData[0]
    return ((points[glyph], picture.imageData) for glyph, picture in pictures.items() if glyph in points)


def name(codes: tuple[int, ...]) -> str:
    """What Unicode calls the code points, in lower case; a flag by its letters."""
    if all(code in LETTERS for code in codes):
        return "flag " + "".join(chr(ord("a") + code - LETTERS[0]) for code in codes)
    words = []
    for code in codes:
        if code in TONES and len(codes) > 1:
            words.append(f"{TONES[code]} skin tone")
        elif code not in SILENT:
            words.append(unicodedata.name(chr(code), f"U+{code:X}").lower())
    return ", ".join(words)[:200]


def group(codes: tuple[int, ...]) -> str:
    """Of the first code point."""
    called = unicodedata.name(chr(codes[0]), "")
    for label, ranges, pattern in GROUPS:
        if any(low <= codes[0] <= high for low, high in ranges) or re.search(pattern, called):
            return label
    return "objects"
