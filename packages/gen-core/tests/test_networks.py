"""A network is described by how it was constructed, and is opened from its description and its weights alone."""

import copy
import json
import math
import pickle
from dataclasses import dataclass
from functools import partial
from inspect import signature

import pytest
import torch
from torch import Tensor, nn

from gen_core import EMA, Arrays, Checkpoint, Loader, Run, Task, Trainer
from gen_core.checkpoint import latest, load_tensors, save_tensors
from gen_core.description import TORCH, describable, describe, rebuild
from gen_core.networks import load, save


@dataclass(frozen=True)
class Sizes:
    width: int
    window: tuple[int, ...] = (0,)


@describable
@dataclass(frozen=True)
class Answer:
    value: Tensor
    scale: float = 1.0


@describable
def double(x: Tensor) -> Tensor:
    return 2 * x


@describable
class Net(nn.Module):
    """A network."""

    def __init__(self, width: int, *more: int | tuple[int, ...], act: type[nn.Module] = nn.GELU, slope: float = 0.5):
        super().__init__()
        self.first, self.act, self.slope = nn.Linear(3, width), act(), slope
        self.more = nn.ModuleList(nn.Linear(width, size if isinstance(size, int) else math.prod(size)) for size in more)

    def forward(self, x: Tensor) -> Tensor:
        h = self.slope * self.act(self.first(x))
        return torch.cat([h, *(layer(h) for layer in self.more)], 1)


@describable
class Pair(nn.Module):
    """Holds its argument `b` where no state dict sees it."""

    def __init__(self, a: nn.Module, b: nn.Module | None = None, answer=Answer, sizes=None, points=None, then=double):
        super().__init__()
        self.a, self.others, self.answer, self.sizes, self.then = a, [b], answer, sizes, then
        self.points = None if points is None else nn.Parameter(points.clone())

    def forward(self, x: Tensor) -> Tensor:
        return self.answer(self.then(self.a(x))).value


class Undecorated(Net):
    pass


class Fit(Task):
    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def optimizers(self):
        return {"net": torch.optim.SGD(self.net.parameters(), 0.1)}

    def step(self, batch, t):
        return {"loss": t.minimize("net", lambda x: self.net(x).square().mean(), *batch)}


CLASSES = [Net, Pair, Sizes, Answer, double]


def through_json(network: nn.Module) -> nn.Module:
    """Its like, with its weights."""
    again = rebuild(json.loads(json.dumps(describe(network))), CLASSES)
    again.load_state_dict(network.state_dict())
    return again


def train(path, *callbacks) -> Net:
    """Six steps, with checkpoints after the third and the last."""
    torch.manual_seed(0)
    net = Net(4, 2)
    Run.create(path).write("model.json", {"module": "net", "network": describe(net), "shape": [3]})
    data = Loader(Arrays(torch.randn(24, 3)), 8)
    Trainer(Fit(net), path, device="cpu", callbacks=[Checkpoint(every=3), *callbacks]).fit(data, 6)
    return net


# ---------------------------------------------------------------------- descriptions


def test_a_description_holds_every_argument():
    assert describe(Net(4, 5, (2, 3), act=nn.Tanh)) == {
        "$": "Net", "width": 4, "more": [5, [2, 3]], "act": {"$name": "torch.nn.Tanh"}, "slope": 0.5,
    }  # fmt: skip


@pytest.mark.parametrize(
    "network",
    [
        lambda: Net(4),
        lambda: Net(4, 5, (2, 3), act=nn.SiLU, slope=2.0),
        lambda: Net(width=4, act=partial(nn.LeakyReLU, 0.3)),  # pyright: ignore[reportArgumentType]
        lambda: Pair(Net(4), answer=partial(Answer, scale=2.0), sizes=Sizes(3, (1, 2))),
        lambda: Pair(nn.Sequential(nn.Linear(3, 2, bias=False), nn.LayerNorm(2), nn.LeakyReLU(0.3)), Net(1)),
        lambda: Pair(Net(4), sizes={"a": 1, "b": [2, None, "x", True]}, points=torch.rand(3, 2)),
    ],
)
def test_a_network_comes_back_from_its_description(network):
    network, x = network(), torch.randn(5, 3)
    again = through_json(network)
    assert torch.equal(again(x), network(x)) and str(again) == str(network) and describe(again) == describe(network)


def test_dataclasses_functions_and_shapes_come_back():
    again = through_json(Pair(Net(4), answer=Answer, sizes=Sizes(3, (1, 2)), points=torch.rand(3, 2)))
    assert (again.sizes, again.answer, again.then) == (Sizes(3, (1, 2)), Answer, double)
    assert describe(again)["points"] == {"$tensor": [3, 2]}


def test_a_network_that_stands_in_two_places_is_one_network_again():
    shared = Net(4)
    again = through_json(Pair(shared, Pair(shared)))
    assert again.others[0].a is again.a
    assert describe(again)["b"]["a"] == {"$same": "a"}


def test_a_network_that_was_replaced_is_described_as_it_is_now():
    pair = Pair(Net(4))
    pair.a = Net(5, slope=3.0)
    assert through_json(pair).a.slope == 3.0


@pytest.mark.parametrize("same", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net)), through_json])
def test_copies_have_the_description_of_their_own_parts(same):
    pair = Pair(Net(4), points=torch.rand(3, 2))
    again = same(pair)
    assert describe(again) == describe(pair)
    again.a = Net(9)
    assert describe(pair.a) == describe(Net(4))


def test_the_decorator_keeps_signature_docstring_and_state():
    assert Net.__doc__ == "A network." and list(signature(Net).parameters) == ["width", "more", "act", "slope"]
    assert list(Net(2).state_dict()) == ["first.weight", "first.bias"]
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'width'"):
        Net()  # pyright: ignore[reportCallIssue]


ARGUMENTS = {
    "Threshold": (0.1, 2), "Linear": (2, 3), "Conv1d": (2, 4, 3, 2), "Conv2d": (2, 4, 3, 1, "same"),
    "GroupNorm": (2, 4), "ConvTranspose2d": (2, 4, 3, 2, 1, 1), "LayerNorm": ((3, 2),), "Embedding": (4, 5, 1),
    "Dropout": (0.3,), "PReLU": (3,), "Softplus": (2, 10), "Softmax": (1,), "ELU": (2.0, True), "Hardtanh": (-2, 3),
}  # fmt: skip


@pytest.mark.parametrize("name", TORCH)
def test_layers_of_torch_come_back_by_their_attributes(name):
    layer = TORCH[name](*ARGUMENTS.get(name.removeprefix("torch.nn."), ()))
    again = through_json(layer)
    assert str(again) == str(layer) and type(again) is type(layer)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda: Undecorated(4), "the network is a Undecorated, which has no description; decorate that class"),
        (lambda: Pair(nn.Bilinear(2, 2, 2)), "a is a Bilinear, which has no description"),
        (lambda: Pair(nn.Sequential(nn.Tanh(), Undecorated(4))), r"a.args\[1\] is a Undecorated"),
        (lambda: Pair(Net(4), then=lambda x: x), "then is .*<lambda>, which has no description"),
        (lambda: Pair(Net(4), answer=Sizes), "answer is Sizes, which has no description"),
        (lambda: Pair(Net(4), sizes=torch.Generator()), "sizes is .*Generator.*, which has no JSON form"),
        (lambda: Net(4, slope=math.inf), "slope is inf, which has no JSON form"),
    ],
)
def test_what_has_no_description_is_named(network, message):
    with pytest.raises(TypeError, match=message):
        describe(network())


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"$": "Net", "width": 4, "depth": 2}, "the network: Net has no argument 'depth'"),
        ({"$": "Net"}, "the network: Net needs the argument 'width'"),
        ({"$": "Pair", "a": {"$": "Net"}}, "a: Net needs the argument 'width'"),
        ({"$": "UNet"}, r"the network is \$ 'UNet', which is none of Net, Pair, .*; open it by the package"),
        ({"$": "torch.nn.Bilinear"}, "torch.nn.Bilinear"),
        ({"$": "os.system", "command": "true"}, "os.system"),
        ({"$": {"$": "Net", "width": 4}}, "which is none of"),
        ({"$": "double", "x": 1}, "double, which is no class of networks"),
        ({"$": "Pair", "a": {"$same": "b"}}, r"a is \$same 'b', which is none of"),
        ({"$": "Pair", "a": {"$exec": "Net"}}, r"a is \$exec 'Net', which is none of"),
        ({"width": 4}, r'a network is described as \{"\$": CLASS, ...\}, got'),
        ({"$": "Sizes", "width": 4}, "a network is described as"),
        ({"$": "Pair", "a": None, "sizes": {"$": "Sizes", "width": 4, "wide": 1}}, "wide is no field of Sizes"),
    ],
)
def test_a_description_is_read_strictly(form, message):
    with pytest.raises(ValueError, match=message):
        rebuild(form, CLASSES)


# ---------------------------------------------------------------------- directories


def test_a_run_opens_with_its_averaged_weights(tmp_path):
    ema = EMA("net", 0.5)
    train(tmp_path / "run", ema)
    torch.manual_seed(7)
    net, drawn = load(tmp_path / "run", [Net], "cpu"), torch.rand(())
    assert net.state_dict().keys() == ema.average.keys() and not net.training
    assert all(torch.equal(value, ema.average[name]) for name, value in net.state_dict().items())
    torch.manual_seed(7)
    assert torch.rand(()) == drawn  # the caller's random numbers are untouched


def test_a_checkpoint_opens_and_is_an_older_one(tmp_path):
    net = train(tmp_path)
    older, newest = (load(tmp_path / "checkpoints" / f"step-00000{i}", [Net], "cpu") for i in (3, 6))
    x = torch.randn(5, 3)
    assert torch.equal(newest(x), net(x)) and not torch.equal(older(x), net(x))


def test_tensors_fitted_after_training_are_those_of_the_newest_checkpoint(tmp_path):
    net = train(tmp_path)
    facts = json.loads((tmp_path / "model.json").read_text())
    Run(tmp_path).write("model.json", facts | {"fitted": "bias.safetensors"})
    with pytest.raises(FileNotFoundError, match=r"has no bias.safetensors; its training did not end: resume it"):
        load(tmp_path, [Net], "cpu")
    save_tensors(tmp_path / "bias.safetensors", {"first.bias": torch.full((4,), 5.0)})
    assert (load(tmp_path, [Net], "cpu").first.bias == 5).all()
    assert torch.equal(load(tmp_path, [Net], "cpu").first.weight, net.first.weight)
    assert not (load(tmp_path / "checkpoints" / "step-000003", [Net], "cpu").first.bias == 5).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_save_and_load_give_the_same_network(tmp_path, dtype):
    net, x = Net(4, 2).to(dtype), torch.randn(5, 3, dtype=dtype)
    save(net, tmp_path / "net")
    again = load(tmp_path / "net", {"Net": Net}, "cpu")
    assert torch.equal(again(x), net(x)) and sorted(p.name for p in (tmp_path / "net").iterdir()) == [
        "model.json",
        "model.safetensors",
    ]


def test_tied_weights_stay_tied(tmp_path):
    net = Net(4)
    save(Pair(Pair(net), net), tmp_path)
    again = load(tmp_path, CLASSES, "cpu")
    assert again.a.a is again.others[0]


def test_what_cannot_be_opened_gets_one_sentence(tmp_path):
    train(tmp_path / "run-a")
    with pytest.raises(FileNotFoundError, match=r"run-b is no run \(no config.json\); did you mean .*run-a"):
        load(tmp_path / "run-b", [Net])
    Run.create(tmp_path / "old")
    with pytest.raises(FileNotFoundError, match=r"old has no model.json; its training wrote none"):
        load(tmp_path / "old", [Net])
    Run(tmp_path / "old").write("model.json", {"shape": [3]})
    with pytest.raises(ValueError, match=r"model.json does not describe a network; it is of an older version"):
        load(tmp_path / "old", [Net])
    Run(tmp_path / "old").write("model.json", {"module": "net", "network": describe(Net(3))})
    with pytest.raises(FileNotFoundError, match="old has no checkpoint; train the run until it has written one"):
        load(tmp_path / "old", [Net])
    with pytest.raises(FileNotFoundError, match="step-000004 has no checkpoint"):
        load(tmp_path / "run-a" / "checkpoints" / "step-000004", [Net])
    with pytest.raises(ValueError, match=r"model.json: the network is \$ 'Net', which is none of Pair and layers of"):
        load(tmp_path / "run-a", [Pair])
    with pytest.raises(ValueError, match="run-a is the directory of a run"):
        save(Net(3), tmp_path / "run-a")


def test_weights_that_do_not_fit_are_named_with_their_shapes(tmp_path):
    train(tmp_path)
    Run(tmp_path).write("model.json", {"module": "net", "network": describe(Net(5))})
    with pytest.raises(
        ValueError,
        match=r"step-000006 do not fit the Net of model.json: first.weight is \(4, 3\) instead of \(5, 3\); "
        r"first.bias is \(4,\) instead of \(5,\); more.0.bias is \(2,\) instead of absent \(4 tensors differ\); "
        r"restore",
    ):
        load(tmp_path, [Net], "cpu")


def test_the_whole_task_can_be_the_network(tmp_path):
    train(tmp_path)
    newest = latest(tmp_path)
    assert newest is not None
    Run(tmp_path).write("model.json", {"module": "", "network": {"$": "Fit", "net": describe(Net(4, 2))}})
    fit = load(tmp_path, {"Fit": describable(Fit), "Net": Net}, "cpu")
    assert fit.state_dict().keys() == load_tensors(newest / "task.safetensors").keys()
