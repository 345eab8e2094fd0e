"""Which files of a folder are pictures, of which class, and what their pixels are."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from gen_core import Arrays, Loader, Task, Trainer, folder, split
from gen_core.decode import UNREADABLE, decode

RED, BLUE = (255, 0, 0), (0, 0, 255)


def picture(path, colour=RED, size=(6, 6), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path, **options)
    return path


# ---------------------------------------------------------------------- pixels


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (1, lambda x: x),
        (2, np.fliplr),
        (3, lambda x: np.rot90(x, 2)),
        (4, np.flipud),
        (5, np.transpose),
        (6, lambda x: np.rot90(x, -1)),
        (7, lambda x: np.rot90(x.T, 2)),
        (8, np.rot90),
    ],
)
def test_a_picture_is_turned_as_its_exif_orientation_says(suffix, orientation, turn, tmp_path):
    """By the definition of the tag: 6 is shown turned by 90 degrees clockwise, and so on."""
    x = np.zeros((16, 24), np.uint8)
    x[:8, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(x).save(tmp_path / f"a.{suffix}", exif=exif, lossless=True)
    wanted = turn(x)
    pixels = folder(tmp_path, wanted.shape, channels=1).tensors[0][0, 0].numpy()
    np.testing.assert_allclose(pixels.astype(float), wanted, atol=8)  # JPEG's own loss


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 128.0, 255.0]], np.float32), [0, 128, 255]),
        (np.array([[0, 0x80FF, 0xFFFF]], np.uint16), [0, 0x80, 0xFF]),
        (np.array([[0, 100, 255]], np.int32), [0, 100, 255]),
        (np.array([[0, 0x80FF, 0xFFFF]], np.int32), [0, 0x80, 0xFF]),
        (np.array([[0, 2**30, 2**31 - 1]], np.int32), [0, 0x80, 0xFF]),
    ],
)
def test_deep_grey_is_scaled_to_bytes(values, wanted, tmp_path):
    Image.fromarray(values).save(tmp_path / "a.tif")
    assert folder(tmp_path, values.shape).tensors[0].flatten().tolist() == wanted


@pytest.mark.parametrize("values", [(-0.5, 1.0), (0.0, 4000.0), (0.0, float("nan")), (0.0, float("inf"))])
def test_floats_without_a_known_scale_are_named(values, tmp_path):
    picture(tmp_path / "good.png")
    Image.fromarray(np.array([values], np.float32)).save(tmp_path / "odd.tif")
    with pytest.warns(UserWarning, match=r"skipped 1 of 2 pictures: odd.tif \(values from .* rescale them to 0\.\.1"):
        assert len(folder(tmp_path, 6)) == 1


def test_a_shape_that_is_not_square_is_cut_from_the_centre(tmp_path):
    """A picture 12 x 6 (width x height), red in the middle 4 x 6: that is what 2 x 3 shows."""
    x = np.zeros((6, 12, 3), np.uint8)
    x[:, 4:8] = RED
    Image.fromarray(x).save(tmp_path / "a.png")
    with pytest.warns(UserWarning, match="12x6 were cropped to their centre and resized to 4x6"):
        data = folder(tmp_path, (6, 4))
    assert data.tensors[0].shape == (1, 3, 6, 4)
    assert data.tensors[0][0].flatten(1).unique(dim=1).tolist() == [[255], [0], [0]]


def test_channels_are_chosen(tmp_path):
    picture(tmp_path / "a.png", (255, 0, 0, 51), mode="RGBA")
    values = {
        channels: folder(tmp_path, 6, channels=channels).tensors[0][0, :, 0, 0].tolist() for channels in (1, 3, 4)
    }
    assert values[4] == [255, 0, 0, 51]
    assert values[3] == [255, 204, 204]  # a fifth of red on white
    assert values[1] == [219]  # its luma, .299 R + .587 G + .114 B
    assert folder(tmp_path, 6).tensors[0].shape[1] == 3


def test_other_formats_are_not_opened_whatever_their_name(tmp_path, monkeypatch):
    """A file with an EPS header would start Ghostscript."""
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *a, **k: pytest.fail("Ghostscript was started"))
    header = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\n%%EOF\n"
    for name in ("a.png", "b.eps", "c.jpg"):
        (tmp_path / name).write_bytes(header)
    picture(tmp_path / "good.png")
    with pytest.warns(UserWarning, match=r"skipped 2 of 3 pictures: a.png \(it is no PNG, JPEG, .* or PPM\), c.jpg"):
        assert len(folder(tmp_path, 6)) == 1


def test_damaged_bytes_end_in_a_named_error(tmp_path):
    rng = np.random.default_rng(0)
    for suffix in ("png", "jpg", "gif", "bmp", "ppm"):
        whole = np.frombuffer(picture(tmp_path / f"a.{suffix}", size=(20, 30)).read_bytes(), np.uint8)
        for _ in range(40):
            broken = whole.copy()
            broken[rng.integers(0, min(200, len(whole)), 4)] = rng.integers(0, 256, 4)
            try:
                assert decode(broken.tobytes(), (8, 8), 3)[1].shape == (3, 8, 8)
            except UNREADABLE:
                pass


# ---------------------------------------------------------------------- classes


def test_a_folder_without_pictures_is_no_class(tmp_path):
    for name in ("cat", "dog", "__MACOSX", ".ipynb_checkpoints", "cat/.ipynb_checkpoints", "dog/__MACOSX"):
        picture(tmp_path / name / "1.png")
    picture(tmp_path / "cat" / "._1.png")
    (tmp_path / "empty" / "deep").mkdir(parents=True)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "readme.txt").write_text("no picture")
    data = folder(tmp_path, 6)
    assert data.classes == ("cat", "dog") and data.tensors[1].tolist() == [0, 1]


def test_a_class_whose_pictures_are_all_damaged_is_no_class(tmp_path):
    picture(tmp_path / "cat" / "1.png")
    picture(tmp_path / "eel" / "1.png")
    (tmp_path / "dog").mkdir()
    (tmp_path / "dog" / "1.png").write_bytes(b"no picture")
    with pytest.warns(UserWarning, match="skipped 1 of 3 pictures: dog/1.png"):
        data = folder(tmp_path, 6)
    assert data.classes == ("cat", "eel") and data.tensors[1].tolist() == [0, 1]


def test_loose_pictures_beside_classes_are_refused(tmp_path):
    picture(tmp_path / "cat" / "1.png")
    picture(tmp_path / "preview.png")
    with pytest.raises(ValueError, match=r"1 pictures beside its sub-folders \(preview.png\).* move them"):
        folder(tmp_path, 6)
    (tmp_path / "preview.png").rename(tmp_path / ".preview.png")
    assert folder(tmp_path, 6).classes == ("cat",)


# ---------------------------------------------------------------------- what is held out


@pytest.mark.parametrize("share", [0.03, 0.1, 0.5, 0.8, 0.97])
def test_no_class_is_wholly_on_one_side(share):
    sizes = [2, 3, 40, 2, 100, 7, 2]
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    whole = Arrays(torch.arange(len(labels)), labels, classes="abcdefg")
    for seed in range(20):
        parts = split(whole, share, seed)
        assert sorted(i for part in parts for i in part.tensors[0].tolist()) == list(range(len(labels)))
        train, held = (part.tensors[1].bincount(minlength=7) for part in parts)
        assert train.min() > 0 and held.min() > 0
        off = held - share * torch.tensor(sizes)
        assert off.abs().max() <= 1, "a class is held out by more or less than its share"


def test_a_class_of_one_picture_is_trained_on_which_is_said():
    whole = Arrays(torch.arange(13), torch.tensor([0] * 6 + [1] + [2] * 6), classes=("cat", "okapi", "dog"))
    for seed in range(8):
        with pytest.warns(UserWarning, match="1 classes have one sample, which is trained on: okapi"):
            train, held = split(whole, 0.5, seed)
        assert 1 in train.tensors[1] and 1 not in held.tensors[1]


def test_shares_that_hold_nothing_out_are_refused():
    for share in (0.0, 1.0, -1.0):
        with pytest.raises(ValueError, match="a share between 0 and 1"):
            split(Arrays(torch.arange(9)), share)


# ---------------------------------------------------------------------- resuming


class Mean(Task):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(1, 1)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"net": torch.optim.SGD(self.net.parameters(), lr=0.1)}

    def step(self, batch, t):
        return {"loss": t.minimize("net", lambda x: (self.net(x) ** 2).mean(), batch[0].mean((1, 2, 3))[:, None])}


def test_a_replaced_picture_does_not_resume_in_silence(tmp_path):
    """Of the same name, size in bytes and time."""
    files = [picture(tmp_path / "data" / f"{i}.bmp", (i, 0, 0)) for i in range(8)]
    fit = lambda steps: Trainer(Mean(), tmp_path / "run", device="cpu").fit(
        Loader(split(folder(tmp_path / "data", 6))[0], 2), steps
    )
    fit(2)
    fit(3)
    old = files[3].stat()
    picture(files[3], BLUE)
    assert files[3].stat().st_size == old.st_size
    os.utime(files[3], ns=(old.st_atime_ns, old.st_mtime_ns))
    with pytest.raises(ValueError, match="was trained with content of the data="):
        fit(4)


def test_moved_pictures_are_the_same_data_and_renamed_classes_are_not(tmp_path):
    for name in ("cat", "dog"):
        picture(tmp_path / "a" / name / "1.png")
    first = folder(tmp_path / "a", 6).content
    (tmp_path / "a").rename(tmp_path / "b")
    assert folder(tmp_path / "b", 6).content == first
    (tmp_path / "b" / "cat").rename(tmp_path / "b" / "civet")
    assert folder(tmp_path / "b", 6).content != first
