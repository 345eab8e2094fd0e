"""The emoji of Debian's fonts-noto-color-emoji as a folder of pictures, one sub-folder a group: GROUP/NAME.png.

    apt-get install fonts-noto-color-emoji
    uv run python packages/gen-diffusion/scripts/emoji.py emoji
    uv run gen diffusion train emoji

The font holds one picture of 136 x 128 pixels for each glyph; a glyph stands for a code point, or for a sequence that
the font's ligatures join (flags, skin tones, families). A picture is laid on white, made square and averaged down. Its
name is what Unicode calls the code points; its group is decided by their range and name.
"""

import argparse
import io
import re
import unicodedata
from collections import Counter
from pathlib import Path

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
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


def glyphs(font: Path) -> dict[tuple[int, ...], bytes]:
    """Code points -> PNG, for each picture of the font."""
    from fontTools.ttLib import TTFont

    tables = TTFont(font)
    points = {glyph: (code,) for code, glyph in tables.getBestCmap().items()}
    for subtable in [x for lookup in tables["GSUB"].table.LookupList.Lookup for x in lookup.SubTable]:
        for first, joined in getattr(subtable, "ligatures", {}).items():
            for ligature in joined:
                parts = [first, *ligature.Component]
                if all(part in points for part in parts):
                    points[ligature.LigGlyph] = tuple(code for part in parts for code in points[part])
    pictures = tables["CBDT"].strikeData[0]
    return {points[glyph]: picture.imageData for glyph, picture in pictures.items() if glyph in points}


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


def main() -> None:
    from PIL import Image

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--size", type=int, default=32, help="pixels of a side")
    parser.add_argument(
        "--groups", nargs="+", help=f"only these of: objects, {', '.join(dict.fromkeys(g for g, *_ in GROUPS))}"
    )
    parser.add_argument(
        "--sequences", action="store_true", help="with skin tones, genders and families, not flags alone"
    )
    parser.add_argument("--font", type=Path, default=FONT)
    args = parser.parse_args()
    if not args.font.is_file():
        parser.error(f"--font {args.font} is not there; apt-get install fonts-noto-color-emoji, or name another one")
    counts: Counter[str] = Counter()
    for codes, png in sorted(glyphs(args.font).items()):
        where = group(codes)
        flag = where == "flags" and len(codes) <= 2
        if (args.groups and where not in args.groups) or not (args.sequences or len(codes) == 1 or flag):
            continue
        if len(codes) == 1 and (codes[0] in LETTERS or codes[0] in TONES or codes[0] < 0x80):
            continue  # a part of sequences that is no emoji by itself
        image = Image.open(io.BytesIO(png)).convert("RGBA")
        square = Image.new("RGBA", (max(image.size),) * 2, "white")
        square.alpha_composite(image, ((square.width - image.width) // 2, (square.height - image.height) // 2))
        file = args.out / where / f"{name(codes)}.png"
        if file.exists():
            file = file.with_stem(f"{file.stem} {'-'.join(f'{code:x}' for code in codes)}"[:240])
        file.parent.mkdir(parents=True, exist_ok=True)
        square.convert("RGB").resize((args.size, args.size), Image.Resampling.BOX).save(file)
        counts[where] += 1
    print(f"{args.out}: {counts.total()} pictures; " + ", ".join(f"{n} {label}" for label, n in counts.most_common()))


if __name__ == "__main__":
    main()
