"""Graphs against Keras, against the same network written out, and what they say of a mistake."""

import runpy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gen_core import Arrays, Loader, Task, Trainer
from gen_core.runtime import generator, seed_all
from gen_core.testing import check_task
from gen_latent import Apply, Concat, Graph

GOLDEN = runpy.run_path(str(Path(__file__).with_name("keras_golden.py")))


def nodes() -> dict:
    """The network of keras_golden.py."""
    return {
        "conv": (nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), "picture"),
        "flat": (Apply(lambda h: h.mean((2, 3))), "conv"),
        "table": (nn.Sequential(nn.Linear(5, 3), nn.Tanh()), "numbers"),
        "both": (Concat(), "flat", "table"),
        "hidden": (nn.Sequential(nn.Linear(5, 4), nn.ReLU()), "both"),
        "cls": (nn.Linear(4, 3), "hidden"),
        "age": (nn.Linear(4, 1), "hidden"),
    }


def two_by_two() -> Graph:
    return Graph(nodes(), outputs=("cls", "age"))


def inputs() -> dict[str, torch.Tensor]:
    return {"picture": GOLDEN["PICTURES"].permute(0, 3, 1, 2), "numbers": GOLDEN["NUMBERS"]}


@torch.no_grad()
def with_weights_of_keras(graph: Graph) -> Graph:
    for name, (kernel, bias) in GOLDEN["WEIGHTS"].items():
        module = graph.get_submodule(name)
        layer = module[0] if isinstance(module, nn.Sequential) else module
        layer.weight.copy_(kernel.permute(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T)
        layer.bias.copy_(bias)
    return graph


# ---------------------------------------------------------------- the same as Keras


def test_a_graph_answers_as_a_functional_model_of_keras():
    """Values of Keras 3.15.1 with its torch backend, printed by keras_golden.py."""
    answer = with_weights_of_keras(two_by_two())(**inputs())
    cls = [
        [-0.65816087, 1.01848614, -0.57691216],
        [-1.43732095, 1.70201874, -1.14770114],
        [-0.49883687, 0.86235142, -0.42787638],
        [-0.31287158, 0.67633015, -0.24645719],
    ]
    assert torch.allclose(answer["cls"], torch.tensor(cls), atol=1e-6)
    age = [[-2.72899914], [-1.39091361], [-2.88764405], [-3.04627109]]
    assert torch.allclose(answer["age"], torch.tensor(age), atol=1e-6)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_a_graph_beside_keras(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    pytest.importorskip("keras")
    answer = with_weights_of_keras(two_by_two())(**inputs())
    cls, age = GOLDEN["answers"]()
    assert torch.allclose(answer["cls"], cls, atol=1e-6)
    assert torch.allclose(answer["age"], age, atol=1e-6)


# ---------------------------------------------------------------- the same as written out


def test_a_shared_layer_gets_the_sum_of_the_gradients_of_its_copies():
    """One module under two names, against two modules of the same weights; exact in double precision."""
    seed_all(0)
    layer, head = nn.Linear(3, 3).double(), nn.Linear(6, 1).double()
    copies = [nn.Linear(3, 3).double() for _ in range(2)]
    for copy in copies:
        copy.load_state_dict(layer.state_dict())
    wire = lambda a, b: {"one": (a, "x"), "two": (b, "y"), "both": (Concat(), "one", "two"), "out": (head, "both")}
    shared, apart = Graph(wire(layer, layer), ("out",)), Graph(wire(*copies), ("out",))
    x, y = torch.randn(2, 3, 3, dtype=torch.float64)
    one, two = shared(x=x, y=y)["out"], apart(x=x, y=y)["out"]
    assert torch.equal(one, two)
    (grad,) = torch.autograd.grad(one.sum(), [layer.weight])
    a, b = torch.autograd.grad(two.sum(), [copy.weight for copy in copies])
    assert torch.equal(grad, a + b)
    assert sum(p.numel() for p in shared.parameters()) == 12 + 7


def test_a_module_may_be_used_twice_in_a_row():
    layer = nn.Linear(3, 3)
    graph, x = Graph({"a": (layer, "x"), "b": (layer, "a")}, ("b",)), torch.randn(2, 3)
    assert torch.equal(graph(x=x)["b"], layer(layer(x)))


def test_the_order_of_the_nodes_does_not_matter():
    seed_all(0)
    made = nodes()
    forward = Graph(made, ("cls", "age"))
    backward = Graph(dict(reversed(made.items())), ("cls", "age"))
    one, two = forward(**inputs()), backward(**inputs())
    assert list(one) == list(two) == ["cls", "age"]
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_an_inner_tensor_can_be_an_output_and_only_what_is_needed_is_computed():
    seed_all(0)
    made = nodes()
    graph = Graph(made, ("flat", "cls"))
    assert "age" not in graph.order
    out = graph(**inputs())
    assert torch.equal(out["flat"], made["conv"][0](inputs()["picture"]).mean((2, 3)))
    assert Graph(made, ("table",))(numbers=inputs()["numbers"])["table"].shape == (4, 3)


# ---------------------------------------------------------------- parts, names, sizes


def test_node_names_are_the_prefixes_of_the_parameters():
    keys = two_by_two().state_dict().keys()
    assert {key.split(".")[0] for key in keys} == {"conv", "table", "hidden", "cls", "age"}
    assert "cls.weight" in keys and "conv.0.bias" in keys


def test_a_part_shares_the_weights():
    graph = two_by_two()
    part = graph.sub(outputs=("hidden",))
    assert part.outputs == ("hidden",) and part.inputs == ("picture", "numbers")
    head = graph.sub(outputs=("cls", "age"), inputs=("hidden",))
    assert head.inputs == ("hidden",) and head.order == ("cls", "age")
    whole, composed = graph(**inputs()), head(**part(**inputs()))
    assert all(torch.equal(whole[name], composed[name]) for name in whole)
    assert head.get_submodule("cls") is graph.get_submodule("cls")
    composed["cls"].sum().backward()
    assert graph.get_parameter("table.0.weight").grad is not None
    assert two_by_two().sub(("both",), ("flat", "table")).inputs == ("flat", "table")
    assert Graph(nodes(), ("cls",)).sub(("age",)).outputs == ("age",)  # a node that the graph itself does not compute


def test_lazy_layers_take_their_sizes_from_the_first_call():
    graph = Graph(
        {
            "image": (nn.LazyConv2d(8, 3), "picture"),
            "flat": (nn.Flatten(), "image"),
            "both": (Concat(), "flat", "numbers"),
            "out": (nn.LazyLinear(2), "both"),
        },
        ("out",),
    )
    assert "at the first call" in graph.summary()
    graph(picture=torch.zeros(3, 1, 5, 5), numbers=torch.zeros(3, 4))
    assert graph.get_parameter("out.weight").shape == (2, 8 * 9 + 4)


def test_the_summary_has_edges_shapes_and_parameters():
    graph = two_by_two().train()
    lines = [line.split("  ") for line in graph.summary(**inputs()).splitlines()]
    table = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert table[0] == ["node", "module", "from", "shape", "parameters"]
    assert ["both", "Concat", "flat, table", "(4, 5)", "0"] in table
    assert ["conv", "Sequential", "picture", "(4, 2, 4, 4)", "20"] in table
    total = sum(int(row[-1]) for row in table[1:])
    assert total == sum(p.numel() for p in graph.parameters())
    assert graph.training
    layer = nn.Linear(3, 3)
    counts = Graph({"a": (layer, "x"), "b": (layer, "a")}, ("b",)).summary().splitlines()
    assert [line.split()[-1] for line in counts] == ["parameters", "12", "0"]


# ---------------------------------------------------------------- mistakes


def test_a_cycle_names_its_nodes():
    layer = nn.Identity()
    with pytest.raises(ValueError, match="node 'a' needs itself: a <- b <- c <- a"):
        Graph({"a": (layer, "b"), "b": (layer, "c"), "c": (layer, "a"), "d": (layer, "a")}, ("d",))
    with pytest.raises(ValueError, match="node 'e' needs itself: e <- e"):  # also where no output needs it
        Graph({"d": (layer, "x"), "e": (layer, "e")}, ("d",))


def test_inputs_that_are_missing_or_unknown_are_named():
    graph = two_by_two()
    with pytest.raises(ValueError, match="input 'numbers', which node 'table' needs, is missing; this graph takes pic"):
        graph(picture=inputs()["picture"])
    with pytest.raises(ValueError, match="input 'tabel' is not known; this graph takes picture, numbers"):
        graph(**inputs(), tabel=torch.zeros(1))
    with pytest.raises(ValueError, match="input 'hidden' is not known"):
        graph(**inputs(), hidden=torch.zeros(4, 4))


@pytest.mark.parametrize("name", ["", "a.b", "forward", "type", "outputs", "inputs", "order", "summary", "training"])
def test_names_that_cannot_be(name: str):
    with pytest.raises(ValueError, match=f"node {name!r} cannot be called so"):
        Graph({name: (nn.Identity(), "x")}, (name,))


def test_nodes_and_outputs_that_cannot_be():
    with pytest.raises(ValueError, match="node 'a' must be"):
        Graph({"a": (nn.Identity(),)}, ("a",))
    with pytest.raises(ValueError, match="a function is a node by Apply"):
        Graph({"a": (torch.relu, "x")}, ("a",))
    with pytest.raises(ValueError, match="output 'x' is no node; the nodes are a"):
        Graph({"a": (nn.Identity(), "x")}, ("x",))
    with pytest.raises(ValueError, match="at least one output"):
        Graph({"a": (nn.Identity(), "x")}, ())
    with pytest.raises(ValueError, match="'hiden' is no tensor of this graph"):
        two_by_two().sub(("hiden",))
    with pytest.raises(ValueError, match="input 'numbers' leads to none of the outputs flat"):
        two_by_two().sub(("flat",), ("numbers",))


# ---------------------------------------------------------------- trained


class Heads(Task):
    """Two losses on one graph."""

    def __init__(self):
        super().__init__()
        self.graph = two_by_two()

    def optimizers(self):
        return {"net": torch.optim.Adam(self.graph.parameters(), lr=1e-2)}

    def loss(self, picture, numbers, label, age):
        out = self.graph(picture=picture, numbers=numbers)
        return F.cross_entropy(out["cls"], label) + (out["age"][:, 0] - age).square().mean()

    def step(self, batch, t):
        return {"loss": t.minimize("net", self.loss, *batch)}


def make():
    g = generator("graph")
    draw = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)
    label = torch.randint(3, (32,), generator=g)
    return Heads(), Loader(Arrays(draw(32, 1, 6, 6), draw(32, 5), label, draw(32)), 12)


def test_a_graph_trains_as_any_network():
    check_task(make, overfit=100, only=("resume", "micro", "bf16", "overfit"))


@pytest.mark.slow
def test_a_graph_trains_in_two_processes():
    check_task(make, only=("world",))


def test_a_lazy_graph_trains_after_one_call():
    seed_all(0)
    task, data = make()
    layers = {"both": (Concat(), "flat", "numbers"), "flat": (nn.Flatten(), "picture")}
    task.graph = Graph(layers | {"cls": (nn.LazyLinear(3), "both"), "age": (nn.LazyLinear(1), "both")}, ("cls", "age"))
    picture, numbers, *_ = (x.float() for x in next(data.batches()))
    task.graph(picture=picture, numbers=numbers)
    before = task.graph.get_parameter("cls.weight").clone()
    floats = Arrays(*(x.float() if x.is_floating_point() else x for x in data.dataset.tensors))
    Trainer(task, device="cpu", precision="fp32").fit(Loader(floats, 12), 2)
    assert not torch.equal(before, task.graph.get_parameter("cls.weight"))


def test_a_graph_compiles_whole():
    """One piece, no break, the same answers and gradients."""
    seed_all(0)
    graph = two_by_two()
    compiled = torch.compile(graph, fullgraph=True, backend="aot_eager")
    one, two = graph(**inputs()), compiled(**inputs())
    for name in one:
        assert torch.allclose(one[name], two[name], atol=1e-6)
    weight = graph.get_parameter("conv.0.weight")
    (a,) = torch.autograd.grad(one["cls"].sum() + one["age"].sum(), weight)
    (b,) = torch.autograd.grad(two["cls"].sum() + two["age"].sum(), weight)
    assert torch.allclose(a, b, atol=1e-6)
