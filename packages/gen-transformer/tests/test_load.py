"""Every network of the package is saved and opened as it was, and a trained run opens with its weights."""

import pytest
import torch
from torch import nn

import gen_transformer
from gen_core import Arrays, Loader, Run, Task, Trainer
from gen_core.networks import describe, save
from gen_transformer import Bert, CharRNN, Config, EncoderDecoder, Fusion, LMTask, Rope, Seq2Seq, Transformer, load
from gen_transformer.bert import BERT
from gen_transformer.networks import NETWORKS
from gen_transformer.rnn import RNNConfig

IDS = torch.tensor([[1, 2, 3], [4, 0, 2]])
LONG = Rope(scaling="yarn", factor=4.0, original=8)
LLAMA = Config(7, 8, 2, 2, 1, ffn=12, context=16, rope=LONG, qk_norm=True, tie=True, window=(2, 0), softcap=5.0)

EXAMPLES = {  # a network, and what is computed by it
    "Transformer": (lambda: Transformer(LLAMA), lambda net: net.logits(net(IDS))),
    "Bert": (lambda: Bert(Config(7, 8, 1, 2, context=8, **BERT), segments=3), lambda net: net(IDS)[0]),
    "EncoderDecoder": (
        lambda: EncoderDecoder(Config(7, 8, 1, 2, causal=False), Config(7, 8, 1, 2), scale=False),
        lambda net: net.logits(net(IDS, IDS)),
    ),
    "CharRNN": (lambda: CharRNN(RNNConfig(7, 8, cell="gru")), lambda net: net(IDS)),
    "Seq2Seq": (
        lambda: Seq2Seq(5, 6, 8, "concat", window=2.0, predictive=True),
        lambda net: net(IDS, IDS)[0],
    ),
    "Fusion": (
        lambda: Fusion({"sound": 3, "sight": 4}, 8, heads=2),
        lambda net: net({"sound": torch.ones(2, 3, 3), "sight": torch.ones(2, 2, 4)}).pooled,
    ),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_network_is_saved_and_opened_as_it_was(name, tmp_path):
    torch.manual_seed(0)
    build, compute = EXAMPLES[name]
    network = build().eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    save(network, tmp_path)
    again = load(tmp_path, "cpu")
    assert type(again) is type(network) and describe(again) == describe(network)
    assert compute(network).abs().max() > 0.01 and torch.equal(compute(again), compute(network))


def test_a_configuration_comes_back_whole(tmp_path):
    save(Transformer(LLAMA), tmp_path)
    again = load(tmp_path, "cpu")
    assert isinstance(again, Transformer) and again.config == LLAMA and again.output is again.tokens.weight


def test_every_network_of_the_package_can_be_opened():
    exported = [getattr(gen_transformer, name) for name in gen_transformer.__all__]
    networks = {x for x in exported if isinstance(x, type) and issubclass(x, nn.Module) and not issubclass(x, Task)}
    assert networks <= set(NETWORKS), "describable, and in gen_transformer.networks"
    assert {cls.__name__ for cls in NETWORKS if issubclass(cls, nn.Module)} == EXAMPLES.keys(), "with an example above"


def test_a_run_opens_with_its_weights(tmp_path):
    model = Transformer(Config(7, 8, 1, 2, context=4))
    Run.create(tmp_path).write("model.json", {"module": "model", "network": describe(model)})
    rows = torch.randint(0, 7, (24, 5), generator=torch.Generator().manual_seed(0))
    batch = Arrays(rows[:, :-1], rows[:, 1:], torch.ones(24, 4), torch.zeros(24, 4, dtype=torch.long))
    Trainer(LMTask(model), tmp_path, device="cpu").fit(Loader(batch, 8), 3)
    net = load(tmp_path, "cpu")
    assert isinstance(net, Transformer) and not net.training
    assert torch.equal(net.logits(net(IDS)), model.eval().logits(model(IDS)))
