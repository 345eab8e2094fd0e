"""Emoji, stamps and brains: on small files in the same formats, and on the packages where they are installed."""

import gzip
import io
import struct
import sys
from hashlib import blake2b

import numpy as np
import pytest
import torch
from PIL import Image

from gen_core.datasets import brains, captions, emoji, packages, stamps
from gen_core.datasets.brains import FILES, PLANES, parse_nifti, part, slices, upright
from gen_core.datasets.emoji import group, listed, name
from gen_core.datasets.sizes import squared

RED = (255, 0, 0, 255)


def installed(*needed):
    missing = [package.command for package in needed if package.root is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def png(size=(8, 4), colour=RED):
    buffer = io.BytesIO()
    Image.new("RGBA", size, colour).save(buffer, "png")
    return buffer.getvalue()


# ---------------------------------------------------------------------- squares


def test_a_wide_picture_is_whole_in_the_middle_of_a_square():
    """8 x 4 red pixels in 4 x 4: two red rows between a white or transparent one above and below."""
    found, rgb = squared(png(), (4, 4), 3)
    assert found == (8, 4) and rgb.shape == (3, 4, 4)
    assert rgb[0].tolist() == [[255] * 4] * 4 and rgb[1].tolist() == [[255] * 4, [0] * 4, [0] * 4, [255] * 4]
    _, rgba = squared(png(), (4, 4), 4)
    assert rgba[3].tolist() == [[0] * 4, [255] * 4, [255] * 4, [0] * 4]
    assert squared(png(), (4, 4), 1)[1].shape == (1, 4, 4)


# ---------------------------------------------------------------------- emoji


@pytest.mark.parametrize(
    ("text", "called", "where"),
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
def test_a_sequence_has_a_name_and_a_group(text, called, where):
    codes = tuple(map(ord, text))
    assert (name(codes), group(codes)) == (called, where)


def test_sequences_are_listed_when_they_are_asked_for_and_parts_never(tmp_path, monkeypatch):
    texts = ["😀", "🍕", "👍", "👍🏽", "🇫🇷", "🇫", "🏽", "1"]
    monkeypatch.setattr(
        sys.modules[listed.__module__], "glyphs", lambda font: {tuple(map(ord, text)): png() for text in texts}
    )
    font = tmp_path / "NotoColorEmoji.ttf"
    font.write_bytes(b"")
    one = ["grinning face", "flag fr", "slice of pizza", "thumbs up sign"]
    assert [each.name for each in listed(font)] == one
    assert [each.name for each in listed(font, True)] == [*one[:3], "thumbs up sign, medium skin tone", one[3]]
    data = emoji(16, folder=tmp_path)
    assert data.tensors[0].shape == (4, 3, 16, 16) and data.classes == ("faces", "flags", "food", "people")
    assert data.tensors[1].tolist() == [0, 1, 2, 3]
    assert emoji(16, channels=4, folder=tmp_path).tensors[0].shape == (4, 4, 16, 16)


@pytest.mark.parametrize("content", [b"", b"no font", b"\0\1\0\0" + b"\0" * 30, b"\0\1\0\0\xff\xff" + b"x" * 400])
def test_a_damaged_font_is_named(tmp_path, content):
    (tmp_path / "NotoColorEmoji.ttf").write_bytes(content)
    with pytest.raises(ValueError, match=r"NotoColorEmoji.ttf (is damaged|has no colour pictures)"):
        emoji(folder=tmp_path)


@installed(packages.EMOJI)
def test_the_emoji_of_the_font_are_in_colour_on_white():
    data = emoji(16)
    assert len(data) > 1500 and {"faces", "flags", "hearts", "clocks", "food"} <= set(data.classes)
    names = [each.name for each in listed(packages.EMOJI.find("NotoColorEmoji.ttf"))]
    face = data.tensors[0][names.index("grinning face")]
    assert face[:, 0, 0].tolist() == [255, 255, 255]
    red, green, blue = face[:, 3, 8].tolist()
    assert red > 200 and green > 130 and blue < 120  # yellow


# ---------------------------------------------------------------------- stamps


@pytest.fixture
def album(tmp_path):
    for place in ("animals/birds/crow", "animals/cat", "food/pie_mirror", "food/plum"):
        file = tmp_path / f"{place}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png())
    (tmp_path / "animals/birds/crow.txt").write_text("A crow.\nfr.utf8=Une corneille.\nfr_CA.utf8=Autre\nde.utf8= \n")
    (tmp_path / "food/pie.txt").write_text("A pie.\n")
    (tmp_path / "animals/cat.svg").write_text("<svg/>")
    return tmp_path


def test_stamps_have_a_group_and_a_caption(album):
    data = stamps(8, folder=album)
    assert data.classes == ("animals", "food") and data.tensors[1].tolist() == [0, 0, 1, 1]
    assert captions(folder=album) == ["A crow.", "cat", "A pie.", "plum"]
    assert captions("fr", album)[0] == "Une corneille." and captions("de", album)[0] == "A crow."


def test_a_folder_without_stamps_is_named_with_the_command_that_gets_them(tmp_path):
    with pytest.raises(FileNotFoundError, match="install them by: apt-get install tuxpaint-stamps-default"):
        stamps(folder=tmp_path)


def test_a_damaged_stamp_is_named_and_counted(album):
    (album / "food/plum.png").write_bytes(png()[:40])
    with pytest.warns(UserWarning, match=r"skipped 1 of 4 pictures: food/plum.png"):
        assert len(stamps(8, folder=album)) == 3


@installed(packages.STAMPS)
def test_the_stamps_of_the_package():
    data = stamps(16)
    assert len(data) == len(captions()) > 750 and len(data.classes) == 16
    assert sum(a != b for a, b in zip(captions(), captions("fr"), strict=True)) > 700


# ---------------------------------------------------------------------- brains


def nifti(values, affine=None, order="<", slope=0.0, shift=0.0, kind=2):
    head = bytearray(352)
    for at, form, given in (
        (0, "i", [348]),
        (40, "4h", [3, *values.shape]),
        (70, "h", [kind]),
        (108, "3f", [352.0, slope, shift]),
        (280, "12f", (np.eye(4) if affine is None else np.asarray(affine, float))[:3].ravel()),
    ):
        struct.pack_into(order + form, head, at, *given)
    head[344:348] = b"n+1\0"
    return bytes(head) + values.tobytes(order="F")


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_volume_is_read_as_nibabel_reads_it(order, tmp_path):
    nibabel = pytest.importorskip("nibabel")
    values = np.random.default_rng(0).integers(-99, 99, (3, 4, 5)).astype(f"{order}i2")
    data = nifti(values, np.diag([-1, 1, 1, 1]), order, 0.5, 3.0, kind=4)
    (tmp_path / "a.nii").write_bytes(data)
    found, affine = parse_nifti(data, tmp_path / "a.nii")
    np.testing.assert_array_equal(found, nibabel.load(tmp_path / "a.nii").get_fdata())
    np.testing.assert_array_equal(affine[0], [-1, 0, 0, 0])


def ball(marked=(0, 0, 0)):
    """A ball, 21 mm across, with a bright cube of 4 mm inside of its surface in one direction."""
    x = np.indices((31, 31, 31)) - 15
    values = np.where((x**2).sum(0) <= 100, 50, 0).astype(np.uint8)
    values[tuple(slice(13 + 6 * i, 17 + 6 * i) for i in marked)] = 255
    return values


@pytest.mark.parametrize(
    ("marked", "plane", "place"),
    [
        ((0, 0, 1), "sagittal", (0.2, 0.5)),  # the top is the first row of what is seen from the side,
        ((0, 0, 1), "coronal", (0.2, 0.5)),  # and from the front
        ((0, 1, 0), "axial", (0.2, 0.5)),  # the front is the first row from above,
        ((0, 1, 0), "sagittal", (0.5, 0.8)),  # and to the right from the side
        ((1, 0, 0), "axial", (0.5, 0.8)),
    ],
)
@pytest.mark.parametrize("flip", [1, -1])
def test_slices_are_upright_however_the_voxels_are_stored(marked, plane, place, flip, tmp_path):
    values = ball(marked)[::flip]
    volume = upright(values, np.diag([flip, 1, 1, 1.0]), tmp_path)
    inside = volume[*(slice(a.min(), a.max() + 1) for a in volume.nonzero())]
    assert inside.shape == (21, 21, 21) and volume.shape == (192,) * 3
    shown = np.moveaxis(inside, PLANES.index(plane), 0).swapaxes(1, 2)[:, ::-1]
    np.testing.assert_allclose((np.argwhere(shown == 255)[:, 1:].mean(0) + 0.5) / 21, place, atol=0.05)
    assert len(slices(inside)[PLANES.index(plane)]) < 21  # nearly empty ones at the ends are left out
    assert all((pictures == 255).any() for pictures in slices(inside))


def test_no_slice_to_train_on_is_near_one_that_is_held_out():
    for n in (1, 31, 32, 200):
        train, test = part(n, "train"), part(n, "test")
        assert not len(train) or not len(test) or abs(train[:, None] - test).min() == 3
        assert len(train) + len(test) <= n == len(part(n, "all"))
    assert abs(len(part(320, "test")) / 320 - 0.25) < 0.01


@pytest.fixture
def volumes(tmp_path, monkeypatch):
    rng, files = np.random.default_rng(0), {}
    for file, (package, _) in FILES.items():
        values = rng.integers(50, 255, (70, 80, 60)).astype(np.uint8)
        data = nifti(values)
        (tmp_path / file).write_bytes(gzip.compress(data))
        files[file] = package, blake2b(data, digest_size=16).hexdigest()
    monkeypatch.setattr(sys.modules[part.__module__], "FILES", files)
    monkeypatch.setattr(sys.modules[part.__module__], "LEAST", 0.05)
    return tmp_path


def test_the_parts_of_the_brains(volumes):
    train, test, both = (brains(split, 32, folder=volumes) for split in ("train", "test", "all"))
    assert train.classes == PLANES and train[:2][0].shape == (2, 1, 32, 32)
    assert both.tensors[1].bincount().tolist() == [2 * n for n in (70, 80, 60)]
    assert len(train) + len(test) < len(both) and len({train.content, test.content}) == 2
    assert torch.equal(brains("test", 32, folder=volumes).tensors[0], test.tensors[0])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-5], "ch2bet.nii.gz is damaged: it holds .* of 336,000 voxels"),
        (lambda data: data[:300], "ch2bet.nii.gz is no NIfTI file"),
        (lambda data: data[:70] + b"\x80\0" + data[72:], "ch2bet.nii.gz holds numbers of NIfTI's type 128"),
        (lambda data: data[:-1] + b"\0", "ch2bet.nii.gz is damaged or of another data set"),
    ],
)
def test_a_damaged_volume_is_named(volumes, damage, message):
    file = volumes / "ch2bet.nii.gz"
    file.write_bytes(gzip.compress(damage(gzip.decompress(file.read_bytes()))))
    with pytest.raises(ValueError, match=message):
        brains(folder=volumes)


def test_a_turned_volume_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has no voxels of 1 mm along the axes of the head; resample it"):
        upright(ball(), np.diag([2, 1, 1, 1.0]), tmp_path)
    with pytest.raises(ValueError, match="shows 200 mm, and a brain has 192 at most"):
        upright(np.full((200, 2, 2), 9, np.uint8), np.eye(4), tmp_path)


@installed(packages.MRICRON, packages.NILEARN)
def test_the_brains_of_the_packages():
    train, test = brains("train"), brains("test")
    assert len(train) > 500 and len(test) > 150 and test.tensors[1].bincount().min() > 40
