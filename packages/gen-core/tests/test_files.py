"""Files that are whole or absent, fingerprints, and the lock of a directory."""

import errno
import fcntl
import os
import socket

import pytest
import torch

from gen_core import Arrays, Loader, Run, Trainer, every, files, pictures
from gen_core.files import fingerprint, lock, whole
from gen_core.testing import load

kinds = load(__file__.replace("test_files", "kinds"))
DATA = Loader(Arrays(torch.linspace(-1, 1, 192).view(24, 8)), 12)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "a.npz"
    for content in ("first", "second"):
        with whole(path) as part:
            assert part.suffix == ".npz" and part.parent == path.parent
            part.write_text(content)
            assert not path.exists() or path.read_text() == "first"
        assert path.read_text() == content
    with pytest.raises(RuntimeError), whole(path) as part:
        part.write_text("half of the th")
        raise RuntimeError
    assert path.read_text() == "second" and list(path.parent.iterdir()) == [path]


def test_fingerprints_differ_by_any_byte_and_by_length(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_BLOCK", 16)  # so that files have several blocks
    contents = [b"", b"\0", b"\0" * 2, b"\0" * 16, b"\0" * 17, b"\0" * 32, b"a" * 16 + b"b" * 16, b"b" * 16 + b"a" * 16]
    contents += [b"\0" * place + b"\1" + b"\0" * (39 - place) for place in range(40)]
    found = []
    for number, content in enumerate(contents):
        (tmp_path / str(number)).write_bytes(content)
        found.append(fingerprint(tmp_path / str(number)))
    assert len(set(found)) == len(contents)
    (tmp_path / "copy").write_bytes(contents[-1])
    assert fingerprint(tmp_path / "copy") == found[-1]


def test_the_lock_names_its_holder_and_ends(tmp_path):
    run, other = Run(tmp_path / "run"), Run(tmp_path / "run")
    for _ in range(2):
        with run.lock(), run.lock():
            with pytest.raises(ValueError) as refused, other.lock():
                pass
            holder = f"process {os.getpid()} on host {socket.gethostname()}"
            assert f"{run.path} is in use by {holder}; wait until that ends" in str(refused.value)
    with other.lock(), pytest.raises(ValueError, match="is in use"), run.lock():
        pass


def test_a_run_is_locked_while_it_trains_and_free_after_an_error(tmp_path):
    def again(t, metrics):
        Trainer(kinds.Noise(), tmp_path, device="cpu").fit(DATA, 3)

    with pytest.raises(ValueError, match="is in use by process"):
        Trainer(kinds.Noise(), tmp_path, device="cpu", callbacks=[every(2, again)]).fit(DATA, 3)
    Trainer(kinds.Noise(), tmp_path, device="cpu").fit(DATA, 3)


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK])
def test_a_file_system_without_locks_is_warned_of(code, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.warns(UserWarning, match="without locks .*; make sure that no other process trains there"):
        with lock(tmp_path):
            pass
    monkeypatch.setattr(fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "broken")))
    with pytest.raises(OSError, match="broken"), lock(tmp_path):
        pass


def test_a_directory_is_no_file_and_a_picture_has_a_type(tmp_path):
    with pytest.raises(IsADirectoryError, match="is a directory; give the name of a file"), whole(tmp_path):
        pass
    with pytest.raises(ValueError, match=r"png, jpg or webp, got .*points; name it points\.png"):
        pictures.save(tmp_path / "points", torch.zeros(3, 2))
    assert not list(tmp_path.iterdir())
