"""Opening what was trained: a network from model.json and safetensors.

    model = load("runs/llm-text")  # model(ids) -> hidden states; complete(model, ids, 100)

Whoever builds one of classes of their own gives them too: `gen_core.networks.load(path, [*NETWORKS, Mine])`.
"""

from pathlib import Path

from torch import nn

from gen_core import networks
from gen_transformer.bert import Bert
from gen_transformer.config import Config, Rope
from gen_transformer.fusion import Fusion
from gen_transformer.model import EncoderDecoder, Transformer
from gen_transformer.rnn import CharRNN, RNNConfig
from gen_transformer.seq2seq import Seq2Seq

NETWORKS = (
    Bert,
    CharRNN,
    Config,
    EncoderDecoder,
    Fusion,
    RNNConfig,
    Rope,
    Seq2Seq,
    Transformer,
)
"""Classes that a description may name."""


def load(path: str | Path, device: str = "auto") -> nn.Module:
    """The trained network in a directory, in evaluation mode, with averaged weights where the run has them.

    Args:
        path: directory of a run, for its newest checkpoint; or one `.../checkpoints/step-000100`; or what
            `gen_core.networks.save` wrote.
        device: auto, cpu, cuda, cuda:N or mps.

    Raises:
        FileNotFoundError: for a directory that holds no network, or a run without a checkpoint.
        ValueError: for a network of another package, or weights that are not of this network.
    """
    return networks.load(path, NETWORKS, device)
