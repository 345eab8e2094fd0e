"""A configuration survives JSON exactly, and every way to get one wrong is one sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from math import inf, isnan
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

import gen_core.config
from gen_core.config import cli, differences, from_dict, to_dict, to_json


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay."""

    lr: float = 1e-3
    """Largest learning rate."""
    betas: tuple[float, float] = (0.9, 0.999)


@dataclass(frozen=True)
class LBFGS:
    """Quasi-Newton."""

    history: int = 10
    """Pairs that are kept."""
    search: Literal["wolfe", "none"] = "wolfe"


@dataclass(frozen=True)
class Train:
    steps: int = 100
    """Updates."""
    clip: float | None = None
    optim: AdamW | LBFGS = field(default_factory=AdamW)
    widths: tuple[int, ...] = (8, 8)
    last: AdamW | None = None


@dataclass(frozen=True)
class Config:
    """Train something small."""

    train: Train = field(default_factory=Train)
    folder: Path | None = None
    name: str = "a"
    """Said in the report."""
    verbose: bool = False
    mode: Literal["fast", 1, None] = "fast"
    number: int | float = 1
    stages: tuple[AdamW | LBFGS, ...] = ()
    tags: dict[str, tuple[int, ...]] = field(default_factory=dict)
    mixed: int | AdamW | dict[str, int] = 0
    extra: list[str | int] = field(default_factory=list)
    tenth: int = field(init=False, default=10)

    def __post_init__(self):
        if self.name == "bad":
            raise ValueError("--name must not be 'bad'; choose another")


@dataclass(frozen=True)
class Needs:
    size: int


@dataclass(frozen=True)
class Odd:
    device: set[int] = field(default_factory=set)


floats = st.floats(allow_nan=False)
ints = st.integers()
adamws = st.builds(AdamW, floats, st.tuples(floats, floats))
lbfgss = st.builds(LBFGS, ints, st.sampled_from(["wolfe", "none"]))
trains = st.builds(
    Train, ints, st.none() | floats, adamws | lbfgss, st.lists(ints).map(tuple), st.none() | adamws
)  # fmt: skip
configs = st.builds(
    Config,
    train=trains,
    folder=st.none() | st.text(max_size=8).map(Path),
    name=st.text().filter(lambda name: name != "bad"),
    verbose=st.booleans(),
    mode=st.sampled_from(["fast", 1, None]),
    number=ints | floats,
    stages=st.lists(adamws | lbfgss, max_size=3).map(tuple),
    tags=st.dictionaries(st.text(), st.lists(ints).map(tuple), max_size=3),
    mixed=ints | adamws | st.dictionaries(st.text().filter(lambda key: key != "$"), ints, max_size=2),
    extra=st.lists(st.text() | ints, max_size=3),
)


@given(configs)
def test_a_configuration_survives_json(config):
    text = json.dumps(to_dict(config), allow_nan=False)
    again = from_dict(Config, json.loads(text))
    assert again == config
    assert type(again.number) is type(config.number)
    assert differences(to_dict(config), to_dict(again)) == []


@given(configs, configs)
def test_differences_are_empty_only_for_equal_configurations(a, b):
    assert (a == b) == (differences(to_dict(a), to_dict(b)) == [])


def test_every_dataclass_is_tagged_with_its_class():
    config = Config(Train(optim=LBFGS(history=5)), folder=Path("runs"), stages=(AdamW(),))
    found = to_dict(config)
    assert found["$"] == "Config" and found["train"]["$"] == "Train"
    assert found["train"]["optim"] == {"$": "LBFGS", "history": 5, "search": "wolfe"}
    assert found["stages"] == [{"$": "AdamW", "lr": 1e-3, "betas": [0.9, 0.999]}]
    assert found["folder"] == "runs" and "tenth" not in found


def test_values_that_json_lacks():
    assert to_dict(AdamW(lr=inf))["lr"] == "inf"
    assert isnan(from_dict(AdamW, to_dict(AdamW(lr=float("nan")))).lr)
    np = pytest.importorskip("numpy")
    assert json.dumps(to_json({"a": np.float32(0.5), "b": np.int64(3)})) == '{"a": 0.5, "b": 3}'
    with pytest.raises(TypeError, match=r"Odd\.device is .* no JSON form; use"):
        to_dict(Odd({1}))
    with pytest.raises(TypeError, match="instance of a dataclass"):
        to_dict(AdamW)


def test_an_int_becomes_a_float_where_one_is_annotated():
    lr = from_dict(AdamW, {"lr": 1}).lr
    assert lr == 1.0 and type(lr) is float


@pytest.mark.parametrize(
    ("cls", "d", "message"),
    [
        (Config, {"trian": {}}, "trian is no field of Config; did you mean train?"),
        (Config, {"train": {"optim": {"$": "LBFGS", "lr": 1}}}, "train.optim.lr is no field of LBFGS; its fields are "),
        (Config, {"tenth": 10}, "tenth is no field of Config"),
        (Needs, {}, "size is missing and has no default; add it"),
        (Needs, [], r"config must be Needs, got \[\]"),
        (Config, {"$": "Other"}, r"\$ must be Config, got 'Other'"),
        (Config, {"train": {"optim": {"lr": 1}}}, r"train.optim.\$ must be AdamW or LBFGS, got None"),
        (Config, {"train": {"optim": {"$": "Popen"}}}, r"train.optim.\$ must be AdamW or LBFGS, got 'Popen'"),
        (Config, {"train": {"optim": {"$": ["AdamW"]}}}, r"train.optim.\$ must be AdamW or LBFGS"),
        (Config, {"train": 3}, "train must be Train, got 3"),
        (Config, {"train": {"steps": 1.0}}, "train.steps must be int, got 1.0"),
        (Config, {"train": {"steps": True}}, "train.steps must be int, got True"),
        (Config, {"train": {"clip": "much"}}, "train.clip must be float, got 'much'"),
        (Config, {"train": {"clip": True}}, "train.clip must be float, got True"),
        (Config, {"train": {"widths": [1, "2"]}}, r"train.widths\[1\] must be int, got '2'"),
        (Config, {"train": {"widths": 1}}, r"train.widths must be tuple\[int, ...\], got 1"),
        (Config, {"train": {"optim": {"$": "AdamW", "betas": [1]}}}, r"train.optim.betas must be tuple\["),
        (Config, {"mode": True}, "mode must be one of 'fast', 1, None, got True"),
        (Config, {"stages": [{"$": "AdamW"}, {"$": "AdamW", "lr": "x"}]}, r"stages\[1\].lr must be float, got 'x'"),
        (Config, {"tags": {"a": [1], "b": ["1"]}}, r"tags.b\[0\] must be int, got '1'"),
        (Config, {"mixed": "1"}, r"mixed must be int | AdamW | dict\[str, int\], got '1'"),
        (Config, {"name": "bad"}, "--name must not be 'bad'"),
    ],
)
def test_what_is_wrong_is_named_by_its_dotted_field(cls, d, message):
    with pytest.raises(ValueError, match="^" + message):
        from_dict(cls, d)


def test_an_annotation_that_cannot_be_read_is_named():
    with pytest.raises(TypeError, match=r"device is annotated set\[int\], which a configuration cannot hold"):
        from_dict(Odd, {"device": [1]})


def test_differences_name_dotted_fields():
    a = to_dict(Config(Train(steps=1, optim=AdamW(lr=0.1), widths=(1,))))
    b = to_dict(Config(Train(steps=2, optim=AdamW(lr=0.2), widths=(1, 2)), name="b"))
    assert differences(a, b) == [
        "train.steps: 1 is not 2",
        "train.optim.lr: 0.1 is not 0.2",
        "train.widths: [1] is not [1, 2]",
        "name: 'a' is not 'b'",
    ]
    other = to_dict(Config(Train(optim=LBFGS())))
    assert differences(to_dict(Config()), other) == ["train.optim: AdamW is not LBFGS"]


# -- the command line


def command(config: Config) -> Config:
    if config.name == "value":
        raise ValueError("two lines\n    become one; do this")
    if config.name == "missing":
        open("/no/such/file").close()
    if config.name == "import":
        raise ImportError("reading .nc files needs netCDF4: pip install 'package[climate]'")
    if config.name == "bug":
        raise RuntimeError("not ours")
    return config


def test_flags_of_nested_fields_and_a_union_that_need_not_come_last():
    flags = "train.optim:lbfgs --train.optim.history 7 --train.steps 5 --name b --train.widths 1 2 --train.clip 1"
    assert cli(command, flags.split(), prog="gen") == Config(Train(5, 1.0, LBFGS(7), widths=(1, 2)), name="b")
    assert cli(command, [], prog="gen") == Config()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("value", "gen x: two lines become one; do this\n"),
        ("missing", "gen x: /no/such/file: No such file or directory\n"),
        ("import", "gen x: reading .nc files needs netCDF4: pip install 'package[climate]'\n"),
    ],
)
def test_an_error_of_the_library_is_one_sentence_and_exit_code_2(name, message, capsys, monkeypatch):
    monkeypatch.delenv("GEN_TRACEBACK", raising=False)
    with pytest.raises(SystemExit) as stop:
        cli(command, ["--name", name], prog="gen x")
    assert stop.value.code == 2
    assert capsys.readouterr().err == message
    monkeypatch.setenv("GEN_TRACEBACK", "1")
    with pytest.raises((ValueError, OSError, ImportError)):
        cli(command, ["--name", name], prog="gen x")


def test_a_mistake_in_the_program_keeps_its_traceback():
    with pytest.raises(RuntimeError, match="not ours"):
        cli(command, ["--name", "bug"], prog="gen")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--train.stepz", "5"], "--train.steps"),
        (["--train.steps", "many"], "many"),
        (["--name", "bad"], "--name must not be 'bad'; choose another"),
    ],
)
def test_a_bad_flag_exits_2_and_says_what_is_right(flags, said, capsys):
    with pytest.raises(SystemExit) as stop:
        cli(command, flags, prog="gen")
    assert stop.value.code == 2
    assert said in "".join(capsys.readouterr())


def test_help_has_a_flag_for_every_leaf_and_the_docstrings(capsys):
    def leaves(d, where=""):
        for key, value in d.items():
            if key != "$":
                yield from leaves(value, f"{where}{key}.") if type(value) is dict and value else [f"--{where}{key}"]

    with pytest.raises(SystemExit) as stop:
        cli(command, ["--help"], prog="gen train")
    said = capsys.readouterr().out
    assert stop.value.code == 0
    for text in ("gen train", "Train something small.", "Said in the report.", "Updates.", "train.optim:lbfgs"):
        assert text in said
    flags = set(leaves(to_dict(Config()))) - {"--train.last", "--mixed"}  # unions: words without dashes
    assert "--train.optim.lr" in flags
    assert [flag for flag in sorted(flags) if flag not in said and flag != "--stages"] == []


def test_importing_is_cheap():
    """No tyro, torch or numpy before they are needed."""
    path = Path(gen_core.config.__file__)
    code = f"import sys, runpy; runpy.run_path({str(path)!r}); print({{'tyro', 'torch', 'numpy'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
