"""Pictures are decoded once; what the cache cannot hold, what another version left and what was cut off."""

import json
import os
import shutil
import subprocess
import sys
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from gen_core import Arrays, Loader, folder, split
from gen_core.transforms import chain, crop, flip


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("GEN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(6):
            x = rng.integers(0, 256, (6, 6, 3)).astype(np.uint8)
            Image.fromarray(x).save(tmp_path / "data" / name / f"{i}.png")
    return tmp_path / "data"


@pytest.fixture
def decoded(monkeypatch):
    """Names of the pictures decoded so far."""
    from gen_core.folder import Encoded

    names, decode = [], Encoded._decode

    def noted(self, i, *how):
        names.append(self.names[i])
        return decode(self, i, *how)

    monkeypatch.setattr(Encoded, "_decode", noted)
    return names


def test_pictures_are_decoded_once_for_each_content_and_setting(place, pictures, decoded):
    first = folder(pictures, 6)
    assert len(decoded) == 12
    again = folder(pictures, 6)
    assert len(decoded) == 12 and torch.equal(first.tensors[0], again.tensors[0])
    folder(pictures, 6, channels=1)
    assert len(decoded) == 24
    Image.new("RGB", (6, 6), "red").save(pictures / "cat" / "0.png")
    assert folder(pictures, 6).tensors[0][0].flatten(1).unique(dim=1).tolist() == [[255], [0], [0]]
    assert len(decoded) == 36


@pytest.mark.filterwarnings("default")
def test_warnings_are_the_same_from_the_cache(place, pictures, decoded):
    (pictures / "cat" / "bad.png").write_bytes(b"no picture")
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"skipped 1 of 13 pictures: cat/bad.png"):
            folder(pictures, 6)
    assert len(decoded) == 13


def test_a_batch_is_the_same_from_the_cache_and_from_memory(place, pictures, monkeypatch):
    """Through a split, whose pictures are not copied."""
    mapped, _ = split(folder(pictures, 6))
    monkeypatch.setenv("GEN_CACHE", str(place.with_name("other")))
    monkeypatch.setenv("GEN_CACHE_GB", "1e-9")
    with pytest.warns(UserWarning, match="decoded into memory at every start"):
        memory, _ = split(folder(pictures, 6))
    rows = torch.tensor([4, 0, 2])
    assert torch.equal(mapped.select(rows).select(torch.tensor([2, 0]))[:][0], mapped[rows[[2, 0]]][0])
    copied = Arrays(mapped[:][0], mapped.tensors[1])
    assert mapped[:][0].dtype == torch.float32 and (mapped[:][0].min(), mapped[:][0].max()) == (-1, 1)
    for other in (memory, copied):
        pairs = zip(Loader(mapped, 3).batches(), Loader(other, 3).batches(), strict=True)
        assert all(torch.equal(a, b) for batches in islice(pairs, 7) for a, b in zip(*batches, strict=True))
        assert torch.equal(other[4][0], mapped[4][0]) and torch.equal(other[1:3][0], mapped[1:3][0])


@pytest.mark.parametrize("damage", ["version", "cut", "facts"])
def test_an_entry_of_another_version_or_a_damaged_one_is_rebuilt_which_is_said_once(place, pictures, decoded, damage):
    wanted = folder(pictures, 6).tensors[0].clone()
    (facts,) = place.glob("*.json")
    if damage == "version":
        facts.write_text(json.dumps(json.loads(facts.read_text()) | {"version": "0"}))
    elif damage == "cut":
        os.truncate(facts.with_suffix(".pixels"), 50)
    else:
        facts.write_text('{"shape": [12, 3')
    with pytest.warns(UserWarning, match="is rebuilt: ") as said:
        assert torch.equal(folder(pictures, 6).tensors[0], wanted)
    assert len(said) == 1 and len(decoded) == 24
    assert torch.equal(folder(pictures, 6).tensors[0], wanted) and len(decoded) == 24


def no_room(monkeypatch, place):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=100, used=100, free=0))


def too_much(monkeypatch, place):
    monkeypatch.setenv("GEN_CACHE_GB", "1e-9")


def a_file_is_there(monkeypatch, place):
    place.write_text("")


@pytest.mark.parametrize("obstacle", [no_room, too_much, a_file_is_there])
def test_without_room_for_the_cache_it_works_without_which_is_said_once(place, pictures, obstacle, monkeypatch):
    wanted = folder(pictures, 6).tensors[0].clone()
    monkeypatch.setenv("GEN_CACHE", str(place.with_name("other")))
    obstacle(monkeypatch, place.with_name("other"))
    with pytest.warns(UserWarning, match="decoded into memory at every start, for want of a cache") as said:
        assert torch.equal(folder(pictures, 6).tensors[0], wanted)
    assert len(said) == 1


def test_the_disk_fills_while_pictures_are_written(place, pictures, monkeypatch):
    wanted = folder(pictures, 6).tensors[0].clone()
    monkeypatch.setenv("GEN_CACHE", str(place.with_name("other")))

    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.warns(UserWarning, match="No space left on device"):
        assert torch.equal(folder(pictures, 6).tensors[0], wanted)
    assert not list(place.with_name("other").glob("*.part"))


def test_what_was_not_used_for_longest_makes_room(place, pictures, decoded, monkeypatch):
    """Entries of 12 * 3 * 36 = 1,296 bytes and some hundred for the facts: two of them fit 4 kB."""
    monkeypatch.setenv("GEN_CACHE_GB", "4e-6")
    for i, size in enumerate((6, (4, 9), (9, 4))):  # as many bytes
        with pytest.warns(UserWarning, match="resized") if size != 6 else pytest.MonkeyPatch.context():
            folder(pictures, size)
        for file in place.glob("*.json"):  # what was written in one tick of the clock was not used in one
            os.utime(file, (file.stat().st_atime, file.stat().st_mtime - 10))
        if i == 1:
            folder(pictures, 6)
    assert len(list(place.glob("*.pixels"))) == 2
    folder(pictures, 6)
    assert len(decoded) == 36


def test_processes_that_begin_together_decode_once_and_share(place, pictures):
    code = (
        "import sys\nfrom gen_core import folder\nfrom gen_core.folder import Encoded\n"
        "decode, n = Encoded._decode, []\n"
        "Encoded._decode = lambda *a: (n.append(0), decode(*a))[1]\n"
        f"x = folder({str(pictures)!r}, 6)\nprint(len(n), x.content)"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = [process.communicate()[0].split() for process in processes]
    assert sorted(int(n) for n, _ in said) == [0, 0, 12] and len({content for _, content in said}) == 1


# ---------------------------------------------------------------------- transforms


def test_flips_and_crops_are_keyed_by_seed_epoch_and_index():
    """Any number of workers and any start give the same; another epoch or seed others."""
    x = torch.arange(8 * 3 * 6 * 6).view(8, 3, 6, 6).float()
    data, how = Arrays(x, torch.arange(8)), {"transform": chain(crop(2), flip)}
    take = lambda n, start=0, **more: list(islice(Loader(data, 4, **how, **more).batches(start), n))
    whole = take(6)
    for other in (take(6, workers=2), whole[:2] + take(4, start=2)):
        assert all(torch.equal(a[0], b[0]) for a, b in zip(whole, other, strict=True))
    by_label = lambda batches: {int(y): p for b in batches for p, y in zip(*b, strict=True)}
    first, second, other = by_label(whole[:2]), by_label(whole[2:4]), by_label(take(2, seed=1))
    assert any(not torch.equal(first[i], second[i]) for i in range(8))
    assert any(not torch.equal(first[i], other[i]) for i in range(8))


def test_a_flip_mirrors_half_of_the_pictures_and_a_crop_shows_each_shift_as_often():
    x = torch.arange(6.0).expand(1, 6, 6)
    flipped = [bool(flip((x,), torch.Generator().manual_seed(i))[0][0, 0, 0] == 5) for i in range(2000)]
    assert abs(sum(flipped) - 1000) < 5 * 500**0.5
    shifts = [int(crop(2)((x,), torch.Generator().manual_seed(i))[0][0, 0, 2]) for i in range(2000)]
    counts = torch.tensor(shifts).bincount(minlength=5)
    assert len(counts) == 5 and ((counts - 400).abs() < 5 * 320**0.5).all()
