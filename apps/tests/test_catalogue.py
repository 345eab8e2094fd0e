"""The catalogue: every name has a loader, a licence and a command; get says what it would do; sheets are drawn."""

import json
import sys

import pytest
from PIL import Image

from gen_apps import data
from gen_apps.__main__ import main
from gen_apps.catalogue import getting
from gen_apps.catalogue.entries import ENTRIES, NAMES, Entry, of
from gen_apps.command import Source
from gen_apps.llm.corpus import LOADERS, documents, names
from gen_core.datasets import Package

ABSENT = Package("absent-data", "apt", "/usr/share/absent")
WHEEL = Package("absent", "pip", "absent_module/data", "--no-deps absent==1.0")


@pytest.fixture
def absent(monkeypatch):
    """A set of one package of each client, neither of which is installed."""
    monkeypatch.setitem(NAMES, "absent", Entry("absent", "text", (ABSENT, WHEEL), "nothing", "MIT", 1))


def test_every_name_that_a_command_takes_has_a_loader_and_a_split():
    assert len(NAMES) == len(ENTRIES)
    assert {e.name for e in ENTRIES if e.takers == "DATA"} == {*data.PARTS, *data.WHOLE}
    assert {e.name for e in ENTRIES if e.takers == "TEXT"} == {*LOADERS}
    assert all(bool(e.split) == bool(e.takers) and e.licence and e.packages for e in ENTRIES)


@pytest.mark.parametrize("entry", [e for e in ENTRIES if e.takers == "DATA"], ids=lambda e: e.name)
def test_pictures_come_in_two_parts_of_their_own_size(entry):
    if not entry.here:
        pytest.skip(f"not installed: {entry.get}")
    train, test = data.of(Source(entry.name))
    assert train[:2][0].shape[2:] == (entry.pixels, entry.pixels) and train.classes == test.classes
    assert len(test) <= 2000 and len(train) >= len(test) - 1


def test_pictures_of_files_take_channels():
    if not NAMES["emoji"].here:
        pytest.skip(f"not installed: {NAMES['emoji'].get}")
    assert data.of(Source("emoji", 16, channels=4, classes=("hearts", "clocks")))[0][:2][0].shape[1:] == (4, 16, 16)


@pytest.mark.parametrize("entry", [e for e in ENTRIES if e.takers == "TEXT"], ids=lambda e: e.name)
def test_texts_come_as_documents(entry):
    if not entry.here:
        pytest.skip(f"not installed: {entry.get}")
    assert len(documents(entry.name, "utf-8")) > 10


def test_a_file_comes_before_a_text_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kjv").write_text("mine")
    assert documents("kjv", "utf-8") == ["mine"]
    assert names(["kjv:/a/b", "handbook-en", "c/d.txt"]) == ["kjv", "handbook-en", "d"]


def test_a_name_may_have_a_folder_where_its_files_are_not_bundled():
    assert of("mnist-5k:/a:b", "DATA") == (NAMES["mnist-5k"], "/a:b") and of("mnist-5k", "DATA")[1] is None
    assert of("digits:/a", "DATA") is None and of("nothing", "DATA") is None


def test_classes_are_chosen_by_name_before_the_split():
    train, test = data.of(Source(classes=("7", "3")))
    whole, _ = data.of(Source())
    assert train.classes == test.classes == ("3", "7")
    assert train.tensors[1].bincount().tolist() == whole.tensors[1].bincount()[[3, 7]].tolist()
    of_three = whole.tensors[0][whole.tensors[1] == 3]
    assert (train.tensors[0][train.tensors[1] == 0] == of_three).all()


# ---------------------------------------------------------------------- list


def test_the_table_is_also_rows(tmp_path, capsys):
    main(["data", "list", "--kind", "text", "--json", str(tmp_path / "a.json")])
    rows = json.loads((tmp_path / "a.json").read_text())["rows"]
    assert [row["name"] for row in rows] == list(LOADERS)
    assert {"kind", "holds", "licence", "MB", "get", "as", "here", "held out", "hub"} < rows[0].keys()
    said = capsys.readouterr().out
    assert "kjv" in said and "emoji" not in said and "gen data get NAME" in said


# ---------------------------------------------------------------------- get


def test_get_says_what_it_would_run_or_where_it_is(absent, capsys):
    main(["data", "get", "absent", "--dry-run"])
    assert capsys.readouterr().out == "apt-get install absent-data\npip install --no-deps absent==1.0\n"
    main(["data", "get", "digits"])
    assert "digits: scikit-learn is here: " in capsys.readouterr().out


@pytest.mark.parametrize(("root", "there", "may"), [(True, True, True), (False, True, False), (True, False, False)])
def test_apt_get_runs_as_root_alone(root, there, may, monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 0 if root else 1000)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}" if there else None)
    wanted = ["apt-get", "install", "--yes", "--no-install-recommends", "absent-data"]
    assert getting.client(ABSENT) == (wanted if may else None)


def test_pip_installs_into_this_environment_or_else_uv_does(monkeypatch):
    python = [sys.executable, "-m", "pip", "install", "--no-deps", "absent==1.0"]
    for pip, uv, wanted in (
        (object(), None, python),
        (None, "/usr/bin/uv", ["uv", "pip", "install", "--python", sys.executable, "--no-deps", "absent==1.0"]),
        (None, None, None),
    ):
        monkeypatch.setattr(getting, "find_spec", lambda name, pip=pip: pip)
        monkeypatch.setattr("shutil.which", lambda name, uv=uv: uv)
        assert getting.client(WHEEL) == wanted


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (
            None,
            "absent-data is not installed, for apt-get runs as root on Debian and Ubuntu; run: sudo apt-get install",
        ),
        ([sys.executable, "-c", "raise SystemExit(3)"], "ended with exit code 3; run it by hand: sudo apt-get install"),
        ([sys.executable, "-c", ""], "absent-data was installed, and its data are not in /usr/share/absent"),
    ],
)
def test_what_cannot_be_installed_is_one_sentence_with_the_command(absent, command, sentence, monkeypatch, capsys):
    monkeypatch.setattr(getting, "client", lambda package: command)
    with pytest.raises(SystemExit) as stop:
        main(["data", "get", "absent"])
    assert stop.value.code == 2 and sentence in " ".join(capsys.readouterr().err.split())


# ---------------------------------------------------------------------- show


@pytest.mark.parametrize("name", ["digits", "descriptions", "stamps"])
def test_a_sheet_shows_the_set(name, tmp_path, capsys):
    if not NAMES[name].here:
        pytest.skip(f"not installed: {NAMES[name].get}")
    main(["data", "show", name, "--out", str(tmp_path / "new" / "sheet.png")])
    with Image.open(tmp_path / "new" / "sheet.png") as sheet:
        assert min(sheet.size) > 200 and len(sheet.convert("L").getcolors()) > 50
    said = capsys.readouterr().out
    assert NAMES[name].licence in said and NAMES[name].get in said


def test_a_set_without_a_loader_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["data", "show", "winds"])
    assert "winds has no loader yet" in capsys.readouterr().out and not list(tmp_path.iterdir())
