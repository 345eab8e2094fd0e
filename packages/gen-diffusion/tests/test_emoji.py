"""The script that makes a folder of classes of the emoji font: names, groups, and what comes out where the font is."""

import runpy
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "emoji.py"
pytestmark = pytest.mark.skipif(not SCRIPT.is_file(), reason="the script stands in the repository, not in the wheel")


@pytest.fixture(scope="module")
def emoji():
    return runpy.run_path(str(SCRIPT), run_name="emoji")


@pytest.mark.parametrize(
    ("text", "name", "group"),
    [
        ("😀", "grinning face", "faces"),
        ("🐱", "cat face", "animals"),
        ("🍕", "slice of pizza", "food"),
        ("👍🏽", "thumbs up sign, medium skin tone", "people"),
        ("👩‍🚀", "woman, rocket", "people"),
        ("🇫🇷", "flag fr", "flags"),
        ("❤️", "heavy black heart", "hearts"),
        ("💑", "couple with heart", "objects"),
        ("🕒", "clock face three oclock", "clocks"),
        ("🌝", "full moon with face", "sky"),
        ("🙅", "face with no good gesture", "people"),
        ("🚗", "automobile", "transport"),
        ("🔑", "key", "symbols"),
        ("🎩", "top hat", "objects"),
    ],
)
def test_a_sequence_has_a_name_and_a_group(emoji, text, name, group):
    codes = tuple(map(ord, text))
    assert (emoji["name"](codes), emoji["group"](codes)) == (name, group)


def test_the_folder_holds_a_class_a_group(emoji, tmp_path, monkeypatch):
    """Every glyph once, in colour, on white; sequences only when they are asked for."""
    if not emoji["FONT"].is_file():
        pytest.skip("fonts-noto-color-emoji is not installed")
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
