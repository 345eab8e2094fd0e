"""The flags of `gen llm pretrain`: the network, how it is trained, on what."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from gen_apps.energy import Place
from gen_apps.identity import Machine, placed
from gen_apps.llm.corpus import DESCRIPTIONS
from gen_apps.options import Count, Number
from gen_core.schedule import Schedule, inverse_sqrt, warmup_cosine, wsd
from gen_transformer import Config, Tokenizer, dial


@dataclass(frozen=True)
class Network:
    """A decoder. Flags that are not given follow --depth, or are those of a model of 0.9 million parameters."""

    depth: Count = None
    """The one dial: layers, with 64 times the width, heads of 64, and by it batch, steps and rates."""
    layers: Count = None
    """Blocks (4)."""
    dim: Count = None
    """Width (128)."""
    heads: Count = None
    """Heads of attention (4)."""
    kv_heads: Count = None
    """Heads of keys and values; fewer than --network.heads is grouped-query attention."""
    context: int = 64
    """Tokens that the model sees at once."""
    mlp: Literal["swiglu", "gelu", "gelu_tanh", "relu", "relu2"] = "swiglu"
    norm: Literal["rms", "layer"] = "rms"
    pos: Literal["rope", "learned", "sinusoidal", "none"] = "rope"
    qk_norm: bool = True
    tie: bool = False
    """The output matrix is the token table."""
    zero_init: bool = True
    """Blocks start as the identity."""
    window: tuple[int, ...] = (0,)
    """Tokens that each layer sees, in turn; 0 is all."""
    softcap: float | None = None
    """Bound on the logits."""
    dropout: float = 0.0
    recompute: bool = False
    """Compute blocks twice instead of keeping what the backward pass needs."""

    def made(self, vocab: int) -> Config:
        """With a vocabulary of `vocab` tokens."""
        layers, dim = self.layers or self.depth or 4, self.dim or (64 * self.depth if self.depth else 128)
        heads = self.heads or (self.depth or 4)
        return Config(
            vocab, dim, layers, heads, self.kv_heads, context=self.context, mlp=self.mlp, norm=self.norm, pos=self.pos,
            qk_norm=self.qk_norm, tie=self.tie, zero_init=self.zero_init, window=self.window, softcap=self.softcap,
            dropout=self.dropout,
        )  # fmt: skip


@dataclass(frozen=True)
class Optim:
    """How it is trained. Flags that are not given follow --network.depth, or are those of 768,000 tokens."""

    steps: Count = None
    """Updates (1000)."""
    batch_size: Count = None
    """Rows of --network.context tokens per update, over all processes (12)."""
    lr: Number = None
    """Peak rate of AdamW, for tables, head, gains and biases (0.01)."""
    muon: float = 0.02
    """Peak rate of Muon for the matrices of the blocks; 0 trains them by AdamW too."""
    weight_decay: float = 0.1
    """Of the matrices of the blocks."""
    betas: tuple[float, float] = (0.9, 0.95)
    schedule: Literal["wsd", "cosine", "noam"] = "wsd"
    """wsd: constant, then linear to 0; cosine: half a cosine to 0; noam: falling as 1 / sqrt(step)."""
    warmup: float = 0.05
    """Share of the steps in which the rate rises."""
    cooldown: float = 0.95
    """Share of the steps in which wsd falls."""
    clip: float | None = 1.0
    """Largest norm of a gradient."""
    smoothing: float = 0.0
    """Share of each target spread over the vocabulary."""
    z: float = 0.0
    """Factor of the z-loss; 1e-4 keeps large models' logits in place."""
    compile: bool = False
    """Make one graph of the network and its loss: a minute or two at first, faster steps on a GPU afterwards."""

    def __post_init__(self):
        for name in ("steps", "batch_size", "lr"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise ValueError(f"--optim.{name.replace('_', '-')} must be positive, got {value}")
        if not 0 <= self.warmup + self.cooldown <= 1:
            raise ValueError(f"--optim.warmup and --optim.cooldown are shares of the steps, got {self}")

    def factor(self) -> Schedule:
        """Of the rates, by step."""
        steps = self.steps or 1000
        warmup = min(max(1, round(self.warmup * steps)), steps)
        if self.schedule == "noam":
            return inverse_sqrt(warmup)
        if self.schedule == "cosine":
            return warmup_cosine(warmup, steps)
        return wsd(warmup, steps, min(round(self.cooldown * steps), steps - warmup))


@dataclass(frozen=True)
class Pretrain:
    """Train a language model on text, say what it predicts of text it never saw, and let it write."""

    data: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="TEXT ...")] = (DESCRIPTIONS,)
    """Files or folders of text (.txt, .md, .jsonl), or what `gen llm data` wrote; by default some English that
    scikit-learn carries. Several are mixed."""
    ratios: tuple[float, ...] = ()
    """Share of the tokens that each TEXT gives to training; by default as they are."""
    encoding: str = "utf-8"
    """Of the files."""
    tokenizer: str = "characters"
    """characters, bpe:SIZE for byte pairs, or a folder with a tokenizer.json."""
    held_out: float = 0.1
    """Share at the end of every TEXT that is not trained on."""
    isolate: bool = True
    """Keep documents that meet in a row apart; --no-isolate reads a TEXT as one stream, for which attention needs no
    mask."""
    prompt: str | None = None
    """What the samples begin with; by default a line end, or the first token if the text has no lines."""
    out: Path | None = None
    """Directory to write; by default runs/llm-TEXT, and a hash of the flags if any differ from the defaults.
    The same command again continues the same run."""
    resume: Path | None = None
    """Continue this run with its own configuration."""
    seed: int = 0
    network: Network = field(default_factory=Network)
    optim: Optim = field(default_factory=Optim)
    machine: Machine = field(default_factory=Machine)
    place: Place = field(default_factory=Place)

    def __post_init__(self):
        if not self.data:
            raise ValueError("give at least one TEXT")
        if self.ratios and len(self.ratios) != len(self.data):
            raise ValueError(f"--ratios gives {len(self.ratios)} shares for {len(self.data)} TEXTs; give one for each")
        if not 0 < self.held_out < 1:
            raise ValueError(f"--held-out is a share between 0 and 1, got {self.held_out}")
        self.network.made(vocab=1)  # what cannot be is told before the text is read

    def placed(self) -> tuple["Pretrain", Path]:
        return placed(self, "llm pretrain")

    def completed(self, tok: Tokenizer) -> "Pretrain":
        """With batch, steps and rate in place of None, as the size of the network wants them, and a prompt.

        Raises:
            ValueError: for a prompt that is empty or that the tokeniser does not know.
        """
        optim, context = self.optim, self.network.context
        if self.network.depth:
            by = dial(self.network.made(len(tok)))
            usual = {"steps": by.steps, "batch_size": max(1, by.batch // context), "lr": by.lr}
        else:
            usual = {"steps": 1000, "batch_size": 12, "lr": 0.01}
        missing = {name: value for name, value in usual.items() if getattr(optim, name) is None}
        prompt = opening(tok) if self.prompt is None else self.prompt
        if not tok.encode(prompt):
            raise ValueError("--prompt is empty; samples begin with one token at least")
        return replace(self, optim=replace(optim, **missing), prompt=prompt)


def opening(tok: Tokenizer) -> str:
    """A line end, or the first token of a tokeniser of characters that has none."""
    try:
        tok.encode("\n")
    except ValueError:
        return tok.decode([0])
    return "\n"
