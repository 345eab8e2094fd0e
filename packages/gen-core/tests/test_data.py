"""Order and augmentation are functions of (seed, epoch, index); pictures from folders, the hub and scikit-learn."""

import os
import subprocess
import sys
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image

from gen_core import Arrays, Loader, digits, folder, hub, split
from gen_core.runtime import generator


class Rows:
    """A map-style data set whose samples draw from every global stream, as torchvision's transforms do."""

    def __init__(self, n: int = 24):
        self.x = torch.arange(n * 3.0).view(n, 3)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i] + torch.rand(3) + np.random.rand(), i


def jitter(sample, g):
    x, i = sample
    return x + torch.randn(3, generator=g), i


def take(loader, n, start=0, rank=0, world=1):
    return [[b.clone() for b in batch] for batch in islice(loader.batches(start, rank, world), n)]


def equal(a, b):
    return all(torch.equal(x, y) for p, q in zip(a, b, strict=True) for x, y in zip(p, q, strict=True))


def test_workers_never_change_a_batch():
    """0 and 2 workers, from any start, with randomness in the data set and in the transform."""
    plain, worked = Loader(Rows(), 5, transform=jitter), Loader(Rows(), 5, transform=jitter, workers=2)
    whole = take(plain, 9)
    assert equal(whole, take(worked, 9))
    assert equal(whole[6:], take(worked, 3, start=6))
    assert equal(whole[6:], take(plain, 3, start=6))
    first, second = take(plain, 1)[0][1], take(plain, 1, start=4)[0][1]
    assert not torch.equal(first, second), "both epochs in the same order"


def test_two_ranks_share_each_batch():
    loader = Loader(Rows(), 6, transform=jitter)
    ranks = [take(loader, 5, rank=r, world=2) for r in (0, 1)]
    joined = [[torch.cat([a, b]) for a, b in zip(x, y, strict=True)] for x, y in zip(*ranks, strict=True)]
    assert equal(joined, take(loader, 5))


def test_every_sample_is_seen_though_epochs_drop_their_tail():
    loader = Loader(Arrays(torch.arange(23)), 5)
    assert len(loader) == 4
    assert {int(i) for (b,) in islice(loader.batches(), 4 * 20) for i in b} == set(range(23))


def test_arrays_come_out_as_a_loop_over_samples_would_give_them():
    """The batched path against the sample-by-sample one; batch size equal to the width and not."""
    x, y = torch.randn(24, 6, generator=generator(0)), torch.arange(24)
    for batch in (6, 5):
        fast, slow = Loader(Arrays(x, y), batch), Loader(list(zip(x, y, strict=True)), batch)
        assert equal(take(fast, 7), take(slow, 7))


def test_once_gives_every_sample_once_on_any_number_of_ranks():
    loader = Loader(Arrays(torch.arange(23)), 4)
    for world in (1, 2, 4):
        turns = [list(loader.once(rank, world)) for rank in range(world)]
        assert len({len(t) for t in turns}) == 1, "a rank would wait for ever"
        seen = sorted(int(i) for t in turns for number, (b,) in t if number is not None for i in b)
        assert seen == list(range(23))


def test_the_order_has_a_hash():
    cases = ((9, 3, 0), (9, 2, 0), (9, 3, 1), (8, 3, 0))
    assert len({Loader(Arrays(torch.arange(n)), b, seed=s).order_hash for n, b, s in cases}) == 4
    assert Loader(Arrays(torch.arange(9)), 3).order_hash == Loader(Arrays(torch.ones(9)), 3).order_hash


def test_keys_are_the_same_under_another_hash_seed():
    code = "import torch; from gen_core import Arrays, Loader; print(Loader(Arrays(torch.ones(9)), 3, seed=4).order(2))"
    orders = {
        subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": s}, capture_output=True, text=True
        ).stdout
        for s in ("0", "1")
    }
    assert len(orders) == 1 and "tensor" in orders.pop()


def test_batch_sizes_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"1\.\.9"):
        Loader(Arrays(torch.arange(9)), 10)
    with pytest.raises(ValueError, match="does not divide among 2"):
        Loader(Arrays(torch.arange(9)), 3).batches(0, 0, 2)
    with pytest.raises(ValueError, match="equal lengths"):
        Arrays(torch.arange(9), torch.arange(8))


# ---------------------------------------------------------------------- data sets


def test_digits_are_split_in_fixed_halves():
    train, test, both = digits("train"), digits("test"), digits()
    assert (len(train), len(test), len(both)) == (898, 899, 1797)
    x, y = train[torch.arange(898)]
    assert x.shape == (898, 1, 8, 8) and (x.min(), x.max()) == (-1, 1) and y.unique().tolist() == list(range(10))
    rows = {tuple(r) for r in x.flatten(1).tolist()} & {tuple(r) for r in test.tensors[0].flatten(1).tolist()}
    assert not rows, "a picture in both halves"
    assert digits("train", size=32)[0][0].shape == (1, 32, 32)


def test_halves_split_every_class_and_lose_nothing():
    whole = Arrays(torch.arange(21), torch.arange(21) % 3, classes="abc")
    a, b = split(whole)
    assert sorted(a.tensors[0].tolist() + b.tensors[0].tolist()) == list(range(21))
    assert all(abs((a.tensors[1] == c).sum() - (b.tensors[1] == c).sum()) <= 1 for c in range(3))


def picture(path, colour, size=(6, 6), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)


def test_a_folder_has_its_classes_in_sorted_order(tmp_path):
    for name, colour in (("b", "red"), ("a", "lime"), ("c", "blue")):
        picture(tmp_path / name / "1.png", colour)
        picture(tmp_path / name / "2.png", colour)
    (tmp_path / "a" / "notes.txt").write_text("no picture")
    data = folder(tmp_path, 6)
    assert data.classes == ("a", "b", "c") and data.tensors[1].tolist() == [0, 0, 1, 1, 2, 2]
    x, _ = data[torch.tensor([0, 2, 4])]
    assert x[:, :, 0, 0].tolist() == [[-1, 1, -1], [1, -1, -1], [-1, -1, 1]]


def test_a_folder_without_classes_and_grey_pictures(tmp_path):
    picture(tmp_path / "1.png", 255, mode="L")
    picture(tmp_path / "2.png", 0, mode="L")
    data = folder(tmp_path, 6)
    assert data.tensors[0].shape == (2, 1, 6, 6) and data.classes == (tmp_path.name,)


def test_transparency_is_white_and_sixteen_bits_are_scaled(tmp_path):
    picture(tmp_path / "clear.png", (0, 0, 0, 0), mode="RGBA")
    Image.fromarray(np.full((6, 6), 0x80FF, dtype=np.uint16)).save(tmp_path / "deep.png")
    x = folder(tmp_path, 6).tensors[0]
    assert x[0].unique().tolist() == [255] and x[1].unique().tolist() == [0x80]


def test_pictures_of_several_sizes_are_resized_which_is_said_once(tmp_path):
    picture(tmp_path / "1.png", "red", (12, 20))
    picture(tmp_path / "2.png", "red", (8, 8))
    with pytest.warns(UserWarning, match="8x8 to 12x20 were cropped to squares and resized to 6x6") as said:
        data = folder(tmp_path, 6)
    assert len(said) == 1 and data.tensors[0].shape == (2, 3, 6, 6)


def test_an_unreadable_picture_is_named_and_skipped(tmp_path):
    picture(tmp_path / "a" / "good.png", "red")
    (tmp_path / "a" / "bad.png").write_bytes(b"no picture")
    picture(tmp_path / "a" / "cut.jpg", "red", (64, 64))
    whole = (tmp_path / "a" / "cut.jpg").read_bytes()
    (tmp_path / "a" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.warns(UserWarning, match=r"skipped 2 of 3 pictures: a/bad.png .*a/cut.jpg"):
        assert len(folder(tmp_path, 6)) == 1
    (tmp_path / "a" / "good.png").unlink()
    with pytest.raises(ValueError, match="none of its 2 pictures can be read"):
        folder(tmp_path, 6)


def test_no_folder_and_an_empty_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="is no folder"):
        folder(tmp_path / "none", 8)
    with pytest.raises(ValueError, match="no picture in it"):
        folder(tmp_path, 8)


@pytest.mark.filterwarnings("ignore")
def test_hub_reads_a_local_copy_of_a_data_set(tmp_path):
    datasets = pytest.importorskip("datasets")
    for name in ("cat", "dog"):
        for i in range(3):
            picture(tmp_path / "train" / name / f"{i}.png", (i * 9, 0, 0))
    datasets.config.HF_DATASETS_CACHE = tmp_path / "cache"
    data = hub(str(tmp_path), 6)
    assert data.classes == ("cat", "dog") and data.tensors[0].shape == (6, 3, 6, 6)
    assert data.tensors[1].tolist() == [0, 0, 0, 1, 1, 1]


def test_hub_without_its_extra_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'gen-core\[hub\]'"):
        hub("mnist", 8)
