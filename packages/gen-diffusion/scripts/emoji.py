"""The emoji of Debian's fonts-noto-color-emoji as a folder of pictures, one sub-folder a group: GROUP/NAME.png.

    apt-get install fonts-noto-color-emoji
    uv run python packages/gen-diffusion/scripts/emoji.py emoji

Commands that take DATA read the font themselves (`gen diffusion train emoji`); a folder is for other programs, and for
names as captions.
"""

import argparse
from collections import Counter
from pathlib import Path

from gen_core.datasets.emoji import FONT, GROUPS, listed
from gen_core.datasets.packages import EMOJI
from gen_core.datasets.sizes import squared


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
    parser.add_argument("--font", type=Path, help=f"{FONT}, where it is not that of the package")
    args = parser.parse_args()
    counts: Counter[str] = Counter()
    for emoji in listed(args.font or EMOJI.find(FONT), args.sequences):
        if args.groups and emoji.group not in args.groups:
            continue
        file = args.out / emoji.group / f"{emoji.name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        _, pixels = squared(emoji.png, (args.size, args.size), 3)
        Image.fromarray(pixels.transpose(1, 2, 0)).save(file)
        counts[emoji.group] += 1
    print(f"{args.out}: {counts.total()} pictures; " + ", ".join(f"{n} {label}" for label, n in counts.most_common()))


if __name__ == "__main__":
    main()
