"""The flags of the `gen llm` commands."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from gen_apps.command import Measures, Optim, RunPath, TrainCommand
from gen_apps.options import Count, Number

DESCRIPTIONS = "descriptions"  # the TEXT that scikit-learn carries
Texts = Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="TEXT ...")]


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


@dataclass(frozen=True)
class PretrainOptim(Optim):
    """Optimisation. Flags that are not given follow --network.depth, or are those of 768,000 tokens."""

    steps: Count = None  # pyright: ignore[reportIncompatibleVariableOverride]
    """Updates (1000)."""
    batch_size: Count = None  # pyright: ignore[reportIncompatibleVariableOverride]
    """Rows of --network.context tokens per update, over all processes (12)."""
    lr: Number = None  # pyright: ignore[reportIncompatibleVariableOverride]
    """Peak rate of AdamW, for tables, head, gains and biases (0.01)."""
    muon: float = 0.02
    """Peak rate of Muon for the matrices of the blocks; 0 trains them by AdamW too."""
    weight_decay: float = 0.1
    """Weight decay of the matrices of the blocks."""
    betas: tuple[float, float] = (0.9, 0.95)
    schedule: Literal["wsd", "cosine", "noam"] = "wsd"
    """wsd: constant, then linear to 0; cosine: half a cosine to 0; noam: falling as 1 / sqrt(step)."""
    warmup: float = 0.05
    """Share of the steps in which the rate rises."""
    cooldown: float = 0.95
    """Share of the steps in which wsd falls."""
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


@dataclass(frozen=True)
class Pretrain(TrainCommand):
    """Train a language model on text: say what it predicts of text it never saw, and let it write."""

    command: ClassVar[str] = "llm pretrain"

    data: Texts = (DESCRIPTIONS,)
    """Files or folders of text (.txt, .md, .jsonl), texts of `gen data list`, or what `gen llm data` wrote; by default
    some English that scikit-learn carries. Several are mixed."""
    ratios: tuple[float, ...] = ()
    """Share of the tokens that each TEXT gives to training; by default as they are."""
    encoding: str = "utf-8"
    """Encoding of the files."""
    tokenizer: str = "characters"
    """characters, bpe:SIZE for byte pairs, or a folder with a tokenizer.json."""
    held_out: float = 0.1
    """Share at the end of every TEXT that is not trained on."""
    isolate: bool = True
    """Keep documents that meet in a row apart; --no-isolate reads a TEXT as one stream, for which attention needs no
    mask."""
    prompt: str | None = None
    """Beginning of the samples; by default a line end, or the first token if the text has no lines."""
    network: Network = field(default_factory=Network)
    optim: PretrainOptim = field(default_factory=PretrainOptim)

    def __post_init__(self):
        if not self.data:
            raise ValueError("give at least one TEXT")
        if self.ratios and len(self.ratios) != len(self.data):
            raise ValueError(f"--ratios gives {len(self.ratios)} shares for {len(self.data)} TEXTs; give one for each")
        if not 0 < self.held_out < 1:
            raise ValueError(f"--held-out is a share between 0 and 1, got {self.held_out}")

    def data_name(self) -> str:
        return "-".join(Path(text).stem for text in self.data)


@dataclass(frozen=True)
class TuneOptim(Optim):
    """Optimisation."""

    steps: int = 300
    """Updates."""
    batch_size: int = 16
    """Rows of packed chats per update, over all processes."""
    lr: float = 1e-3
    """Peak rate of AdamW, for tables, head, gains and biases: it rises over a twentieth of the steps, and falls to 0 in
    the last half."""
    muon: float = 0.005
    """Peak rate of Muon for the matrices of the blocks; 0 trains them by AdamW too."""


@dataclass(frozen=True)
class Tune(TrainCommand):
    """Teach a trained model to answer: chats in, only what the assistant says is learned."""

    command: ClassVar[str] = "llm tune"
    named_by: ClassVar[tuple[str, ...]] = ("base", "data")

    base: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")] = ""
    """A run of gen llm pretrain or tune, or a Hugging Face directory with its tokeniser."""
    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="CHATS")] = ""
    """A .jsonl file with a chat a line: {"messages": [{"role": "user", "content": "..."}, ...]}."""
    freeze: bool = False
    """Train only the tables, the head and the last norm; the blocks stay as they are."""
    held_out: float = 0.1
    """Share of the chats that is not trained on."""
    optim: TuneOptim = field(default_factory=TuneOptim)

    def __post_init__(self):
        if not 0 < self.held_out < 1:
            raise ValueError(f"--held-out is a share between 0 and 1, got {self.held_out}")

    def data_name(self) -> str:
        return Path(self.data).stem


@dataclass(frozen=True)
class Sampling:
    """Choice of the next token."""

    temperature: float = 0.8
    """0 takes the likeliest."""
    top_k: int = 0
    """Choose among the k likeliest tokens; 0 for all."""
    top_p: float = 1.0
    """Choose among the likeliest tokens whose probabilities add up to p."""
    min_p: float = 0.0
    """Choose among tokens at least so probable, relative to the likeliest."""
    repetition: float = 1.0
    """Divides the logits of tokens that were there already."""


@dataclass(frozen=True)
class Generate:
    """Continue a prompt, several times: the same seed gives the same texts, whatever the number."""

    run: RunPath
    """A run of gen llm, or a Hugging Face directory of a decoder."""
    prompt: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="TEXT")] = "\n"
    """Beginning of the text, to be continued."""
    n: int = 1
    """Texts."""
    tokens: int = 0
    """New tokens of each, at most; 0 fills the context."""
    stop: tuple[str, ...] = ()
    """Strings that end a text."""
    draft: Path | None = None
    """A smaller model with the same tokeniser that guesses ahead: the same distribution, in less time."""
    seed: int = 0
    sampling: Sampling = field(default_factory=Sampling)
    device: str = "auto"

    def __post_init__(self):
        if self.n < 1 or self.tokens < 0:
            raise ValueError(f"--n and --tokens count, got {self.n} and {self.tokens}")


@dataclass(frozen=True)
class Chat:
    """Talk with a tuned model: a line is a turn, an empty one or Ctrl-D ends the talk."""

    run: RunPath
    """A run of gen llm tune, or a Hugging Face directory with the same control tokens."""
    system: str = ""
    """System prompt: instructions before the talk."""
    tokens: int = 0
    """Longest answer, in tokens; 0 fills the context."""
    seed: int = 0
    sampling: Sampling = field(default_factory=lambda: Sampling(temperature=0.0))
    device: str = "auto"


@dataclass(frozen=True)
class Evaluate(Measures):
    """Evaluate a language model: bits per byte and perplexity of texts, multiple choice, lm-eval's tasks."""

    run: RunPath
    """A run of gen llm, or a Hugging Face directory of a decoder."""
    texts: Texts = ()
    """Files or folders of text."""
    stride: int = 0
    """Tokens by which the window moves on; 0 is half of the context. Fewer see more, and cost more."""
    choices: Path | None = None
    """A .jsonl file with a question a line: {"context": "2 + 2 =", "choices": [" 4", " 5"], "answer": 0}."""
    tasks: tuple[str, ...] = ()
    """Names of lm-eval's tasks (pip install lm-eval)."""
    limit: int | None = None
    """Examples of each task."""
    encoding: str = "utf-8"
    device: str = "auto"

    def __post_init__(self):
        if not (self.texts or self.choices or self.tasks):
            raise ValueError("give TEXT, --choices or --tasks")


@dataclass(frozen=True)
class LearnTokenizer(Measures):
    """Learn byte pairs from text; print what each TEXT costs with them."""

    data: Texts = (DESCRIPTIONS,)
    """Files or folders of text; the last tenth of each is only measured."""
    vocab: int = 4096
    """Tokens, the 256 bytes and the control tokens included; 0 makes every character a token."""
    encoding: str = "utf-8"
    out: Path = Path("runs/tokenizer")
    """Folder to write: tokenizer.json, which transformers reads too."""


@dataclass(frozen=True)
class WriteData:
    """Filter and deduplicate text, and write it as tokens: by documents; counts what was left out and why."""

    data: Texts
    """Files or folders of text. Each becomes a folder of tokens, to be mixed by gen llm pretrain."""
    tokenizer: str = "bpe:4096"
    """characters, bpe:SIZE, or a folder with a tokenizer.json."""
    encoding: str = "utf-8"
    language: tuple[str, ...] = ()
    """Keep only these languages (en, fr, de, es, it, pt, nl), by their frequent words; by default all."""
    quality: bool = False
    """Apply Gopher's rules of quality and repetition, with the stop words of the document's language, and take out
    navigation lines as RefinedWeb does."""
    dedup: bool = False
    """Leave out near copies but the first: MinHash in 14 bands of 8, which finds a pair of Jaccard similarity 0.8 with
    a probability of 92 %."""
    cut: int = 0
    """Take out runs of so many tokens that stood before in the same TEXT, such as notices; 50 is usual, 0 none."""
    against: tuple[str, ...] = ()
    """Texts of an evaluation: a document with 13 words in a row of theirs is left out."""
    held_out: float = 0.1
    """Share at the end of each TEXT that is not trained on."""
    out: Path = Path("runs/data")
    """Folder to write, with one folder for each TEXT."""

    def __post_init__(self):
        if not self.data:
            raise ValueError("give at least one TEXT")
        if self.cut < 0:
            raise ValueError(f"--cut is a number of tokens, 0 for none, got {self.cut}")


@dataclass(frozen=True)
class Scaling(Measures):
    """Fit a scaling law to runs: L = E + A / N^alpha + B / D^beta with bootstrap intervals, and spend a budget best."""

    data: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN|CSV ...")]
    """Runs of gen llm pretrain, or .csv files with columns N (parameters), D (tokens) and loss; six runs at least."""
    budget: tuple[float, ...] = ()
    """FLOP to spend; by default 10 and 100 times those of the largest run."""
    bootstrap: int = 200
    """Fits to resampled runs, for the intervals."""
    seed: int = 0
    out: Path = Path("scaling.png")
    """Picture to write."""
