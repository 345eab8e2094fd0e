"""The script that makes a folder of classes of the emoji font, where the font is."""

import runpy
import sys
from pathlib import Path

import pytest

from gen_core.datasets.packages import EMOJI

SCRIPT = Path(__file__).parents[1] / "scripts" / "emoji.py"
pytestmark = pytest.mark.skipif(not SCRIPT.is_file(), reason="the script stands in the repository, not in the wheel")


@pytest.fixture(scope="module")
def emoji():
    return runpy.run_path(str(SCRIPT), run_name="emoji")


def test_the_folder_holds_a_class_a_group(emoji, tmp_path, monkeypatch):
    """Every glyph once, in colour, on white; sequences only when they are asked for."""
    if EMOJI.root is None:
        pytest.skip(f"not installed: {EMOJI.command}")
    Image = pytest.importorskip("PIL.Image")
    for extra, least in ((), 100), (("--sequences",), 120):
        out = tmp_path / f"e{len(extra)}"
        monkeypatch.setattr(sys, "argv", ["emoji.py", str(out), "--size", "16", "--groups", "faces", "hearts", *extra])
        emoji["main"]()
        files = list(out.rglob("*.png"))
        assert {file.parent.name for file in files} == {"faces", "hearts"} and len(files) > least
        with Image.open(out / "faces" / "grinning face.png") as image:
            assert image.size == (16, 16) and image.mode == "RGB" and image.getpixel((0, 0)) == (255, 255, 255)
            red, green, blue = image.getpixel((8, 3))
            assert red > 200 and green > 130 and blue < 120  # yellow
