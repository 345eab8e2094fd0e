"""DATA and its flags: how much is held out, sizes, channels, batches of few pictures."""

import numpy as np
import pytest
import torch
from PIL import Image

from gen_apps import data
from gen_apps.command import Averaged, Source
from gen_apps.data import Subject
from gen_apps.diffusion.config import TrainDiffusion
from gen_apps.vae.build import pair
from gen_apps.vae.config import Network, TrainVAE
from gen_core import Arrays
from gen_core.datasets.packages import FASHION_MNIST


@pytest.fixture(scope="module")
def clear(tmp_path_factory):
    """200 pictures with transparency, 12 x 8 (width x height), in two classes."""
    root, rng = tmp_path_factory.mktemp("clear"), np.random.default_rng(0)
    for i in range(200):
        (root / "ab"[i % 2]).mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 12, 4), np.uint8)).save(root / "ab"[i % 2] / f"{i}.png")
    return str(root)


@pytest.mark.parametrize(("share", "sizes"), [(None, (100, 100)), (0.1, (180, 20)), (0.9, (20, 180))])
def test_held_out_says_how_much_is_held_out(clear, share, sizes):
    train, test = data.of(Source(clear, "12x8", held_out=share))
    assert (len(train), len(test)) == sizes
    assert train.tensors[1].bincount().tolist() == [sizes[0] // 2] * 2
    rows = {tuple(x.flatten().tolist()) for part in (train, test) for x in part[:][0]}
    assert len(rows) == 200, "a picture in both parts, or in none"


def test_held_out_of_digits():
    assert [len(part) for part in data.of(Source(held_out=0.1))] == [1618, 179]
    assert [len(part) for part in data.of(Source())] == [898, 899]


def test_size_is_width_by_height_and_channels_are_four(clear):
    train, _ = data.of(Source(clear, "12x8", channels=4))
    assert Subject.of(clear, "12x8", train).shape == (4, 8, 12)
    assert data.of(Source("digits", "8x16"))[0][0][0].shape == (1, 16, 8)
    assert data.grey_levels("digits", "8x8") == 17 and data.grey_levels("digits", "8x16") is None


def test_networks_for_squares_say_so():
    with pytest.raises(ValueError, match="conv is for square pictures, got 32x16; use mlp or another --size"):
        pair(Network(kind="conv"), Subject((3, 16, 32), 0, 256), 4, 1, 0)
    encoder, decoder = pair(Network(), Subject((3, 16, 32), 0, 256), 4, 1, 0)
    assert decoder(encoder(torch.zeros(2, 3, 16, 32))[:, :4]).shape == (2, 3, 16, 32)


@pytest.mark.parametrize(("samples", "rows"), [(64, 64), (63, 32), (32, 32), (12, 8), (1, 1)])
def test_a_batch_is_the_largest_power_of_two_of_few_samples_which_is_said(samples, rows):
    """So that it divides among two or four processes."""
    config = TrainVAE(optim=Averaged(batch_size=64))
    training = Arrays(torch.arange(samples))
    if rows == 64:
        assert data.loader(config, training).batch_size == 64
        return
    with pytest.warns(UserWarning, match=f"there are {samples} samples to train on, so a batch has {rows} of them"):
        assert data.loader(config, training).batch_size == rows


def test_flip_mirrors_what_is_trained_on():
    config = TrainVAE(optim=Averaged(batch_size=64), flip=True)
    x = torch.arange(4.0).expand(64, 1, 4, 4)
    (batch,) = next(data.loader(config, Arrays(x)).batches())
    assert {tuple(row) for row in batch[:, 0, 0].tolist()} == {(0, 1, 2, 3), (3, 2, 1, 0)}


def test_of_many_samples_a_fixed_choice_is_measured():
    many = Arrays(torch.arange(5000), torch.arange(5000) % 3, classes="abc")
    few = data.subset(many, 2000)
    assert len(few) == 2000 and torch.equal(few.tensors[0], data.subset(many, 2000).tensors[0])
    assert few.tensors[1].bincount().min() > 600
    assert data.subset(many, 5000) is many


def test_a_stored_configuration_without_the_newer_flags_is_read():
    train, test = data.stored({"data": "digits", "size": 16, "seed": 1})
    assert train[0][0].shape == (1, 16, 16) and len(test) == 899
    assert TrainDiffusion(size="24x32").size == "24x32"


NAMED = pytest.mark.skipif(FASHION_MNIST.root is None, reason=f"no Fashion-MNIST: {FASHION_MNIST.command}")


@NAMED
def test_the_published_test_part_is_held_out():
    train, test = data.of(Source("fashion-mnist"))
    assert (len(train), len(test), train[0][0].shape) == (60_000, 2_000, (1, 28, 28))
    assert data.grey_levels("fashion-mnist", 0) == 256
    train, test = data.of(Source("fashion-mnist", held_out=0.01))
    assert (len(train), len(test)) == (69_300, 700) and test.tensors[1].bincount().tolist() == [70] * 10


def test_a_name_with_a_folder_reads_the_files_of_the_set_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"mnist_5k.csv.gz is not in {tmp_path}; install it by: pip install ml"):
        data.of(Source(f"mnist-5k:{tmp_path}"))
    with pytest.raises(FileNotFoundError, match="digits:a is no folder"):
        data.of(Source("digits:a"))


def test_channels_are_of_pictures_in_files():
    for name in ("fashion-mnist", "mnist-5k:/data", "digits", "points:moons"):
        with pytest.raises(ValueError, match="--channels is of pictures in files"):
            Source(name, channels=3)
