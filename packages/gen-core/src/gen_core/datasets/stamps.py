"""The stamps of Tux Paint: 796 pictures with captions in 77 languages, in 16 groups.

    data = stamps(size=64)    # Arrays: pictures (n, 3, 64, 64) as bytes, and groups
    texts = captions("fr")    # one of each picture, in the same order

Pictures are the PNG files of the package tuxpaint-stamps-default; 165 stamps that are drawings in SVG alone are left
out. Captions stand in a text file beside each picture. B. Kendrick and others, GPL 2.
"""

from pathlib import Path

from gen_core.data import Arrays
from gen_core.datasets.packages import STAMPS
from gen_core.datasets.sizes import squared
from gen_core.decode import Channels
from gen_core.folder import Encoded


def stamps(
    size: int | tuple[int, int] = 32, *, channels: Channels | None = 3, folder: str | Path | None = None
) -> Arrays:
    """Pictures `(n, channels, height, width)` as bytes, each whole in a square, and their groups.

    Args:
        channels: 3 is colour on white, 4 colour and transparency, 1 grey.
        folder: holds a sub-folder a group; by default Debian's package tuxpaint-stamps-default.

    Raises:
        FileNotFoundError: without the pictures, naming the command that installs them.
    """
    root, files = _files(folder)
    groups = sorted({file.relative_to(root).parts[0] for file in files})
    names = [str(file.relative_to(root)) for file in files]
    pictures = Encoded(str(root), names, lambda i: files[i].read_bytes(), squared)
    return pictures.arrays([groups.index(Path(name).parts[0]) for name in names], groups, size, channels or 3)


def captions(language: str = "en", folder: str | Path | None = None) -> list[str]:
    """What each picture of `stamps` shows, in its order; in English where it has no translation.

    Args:
        language: a locale of the files: fr, de, pt_BR, sr@latin, ...
    """
    return [caption(file, language) for file in _files(folder)[1]]


def caption(picture: Path, language: str = "en") -> str:
    """The text beside a picture; of a mirrored one that of the original; or else the words of its name."""
    stem = picture.stem.removesuffix("_mirror")
    text = picture.with_name(f"{stem}.txt")
    if not text.is_file():
        return stem.replace("_", " ")
    english, *others = text.read_text(encoding="utf-8", errors="replace").splitlines() or [stem]
    wanted = [line.removeprefix(f"{language}.utf8=") for line in others if line.startswith(f"{language}.utf8=")]
    return (wanted or [english])[0].strip() or english.strip()


def _files(folder: str | Path | None) -> tuple[Path, list[Path]]:
    root = STAMPS.root if folder is None else Path(folder)
    files = sorted(file for file in root.rglob("*.png") if file.parent != root) if root else []
    if root is None or not files:
        raise FileNotFoundError(
            f"no stamps are in {folder or STAMPS.folder}; install them by: {STAMPS.command}; or name a folder that "
            "holds them, with a sub-folder a group"
        )
    return root, files
