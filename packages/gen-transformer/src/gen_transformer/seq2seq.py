"""Translation before the transformer: two recurrent networks, and the attention that was invented for them.

    model = Seq2Seq(source_vocab=10, target_vocab=12, dim=128, attention="general")
    logits, alignment = model(source, target, lengths)        # the target begins with its start token
    ids, alignment = model.greedy(source, lengths, start=10, end=11, limit=30)
    plot_alignment(alignment[0], source_words, target_words).savefig("alignment.png")

Without attention the whole source has to pass through one vector ([Sutskever14]). With it, every step of the decoder
takes the mean of the encoder's states, weighted by how well they fit ([Bahdanau15], [Luong15]).

[Sutskever14] Sequence to sequence learning, arXiv:1409.3215. [Bahdanau15] Jointly learning to align and translate,
arXiv:1409.0473. [Luong15] Effective approaches to attention, arXiv:1508.04025. [Cho14] arXiv:1406.1078.
"""

from typing import TYPE_CHECKING, Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from gen_core.description import describable
from gen_transformer.model import check_ids

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Score = Literal["dot", "general", "concat", "additive"]


class Alignment(nn.Module):
    """How much a decoder state looks at each source state: softmax over the source of a score.

    | score | of a query q and a source state h | |
    |---|---|---|
    | dot | q' h | [Luong15] section 3.1 |
    | general | q' W h | [Luong15] section 3.1 |
    | concat | v' tanh(W [q; h]) | [Luong15] section 3.1 |
    | additive | v' tanh(W q + U h) | [Bahdanau15] appendix A.1.2 |

    concat and additive are one function; they differ in the query, which is the decoder's state after reading the last
    word for Luong, and before it for Bahdanau.

    Args:
        window: D; only source places within D of a centre are looked at ([Luong15] section 3.2). None: all of them.
        predictive: the centre is S sigmoid(v' tanh(W q)) for a source of S words (eq. 9), and the weights fall off
            around it with standard deviation D / 2 (eq. 10); otherwise it is the number of the target word.
    """

    def __init__(self, score: Score, dim: int, *, window: int | float | None = None, predictive: bool = False):
        super().__init__()
        if window is not None and window < 1:
            raise ValueError(f"window reaches at least 1 place to each side, got {window}; None looks everywhere")
        if predictive and window is None:
            raise ValueError("a predicted centre needs the window around it; give window, 10 in the paper")
        self.score, self.window = score, window
        if score == "general":
            self.key = nn.Linear(dim, dim, bias=False)
        elif score in ("concat", "additive"):
            self.key = nn.Linear(dim, dim, bias=False)
            self.query = nn.Linear(dim, dim, bias=False)
            self.v = nn.Linear(dim, 1, bias=False)
        elif score != "dot":
            raise ValueError(f"score is dot, general, concat or additive, got {score!r}")
        self.centre = nn.Sequential(nn.Linear(dim, dim, False), nn.Tanh(), nn.Linear(dim, 1, False), nn.Sigmoid())
        self.centre = self.centre if predictive else None

    def keys(self, states: Float[Tensor, "b s d"]) -> Float[Tensor, "b s d"]:
        """The part of the score that is the same for every query: computed once a sentence."""
        return states if self.score == "dot" else self.key(states)

    def forward(
        self, q: Float[Tensor, "b d"], keys: Float[Tensor, "b s d"], real: Bool[Tensor, "b s"], step: int
    ) -> Float[Tensor, "b s"]:
        """Weights of target word number `step`; 0 at padding and outside of the window."""
        if self.score in ("dot", "general"):
            scores = torch.einsum("bd,bsd->bs", q, keys)
        else:
            scores = self.v(torch.tanh(self.query(q)[:, None] + keys))[..., 0]
        if self.window is None:
            return scores.masked_fill(~real, -torch.inf).softmax(-1)
        lengths = real.sum(-1, keepdim=True)
        if self.centre is None:  # beyond the end of the source its last word stays in sight
            centre = (lengths - 1).clamp(max=step)
        else:
            centre = lengths * self.centre(q)
        away = torch.arange(keys.shape[1], device=q.device) - centre
        weights = scores.masked_fill(~real | (away.abs() > self.window), -torch.inf).softmax(-1)
        return weights if self.centre is None else weights * torch.exp(-0.5 * (away / (self.window / 2)) ** 2)


class Encoder(nn.Module):
    """Gated units ([Cho14]) that read the source from both ends; every state is [forward; backward]."""

    def __init__(self, vocab: int, dim: int, dropout: int | float = 0.0):
        super().__init__()
        self.tokens = nn.Embedding(vocab, dim)
        self.drop = nn.Dropout(dropout)
        self.rnn = nn.GRU(dim, dim // 2, batch_first=True, bidirectional=True)

    def forward(
        self, ids: Int[Tensor, "b s"], lengths: Int[Tensor, "b"]
    ) -> tuple[Float[Tensor, "b s d"], Float[Tensor, "b d"]]:
        """All states, and the last of each direction: forward after the last word, backward after the first."""
        packed = pack_padded_sequence(self.drop(self.tokens(ids)), lengths.cpu(), True, enforce_sorted=False)
        states, last = self.rnn(packed)
        states, _ = pad_packed_sequence(states, batch_first=True, total_length=ids.shape[1])
        return self.drop(states), rearrange(last, "way b d -> b (way d)")


@describable
class Seq2Seq(nn.Module):
    """p(target | source): an encoder, and a decoder that takes one word a step.

    Luong: s_t = cell([y_{t-1}; o_{t-1}], s_{t-1}), weights from s_t, o_t = tanh(W [c_t; s_t])  (eq. 5, section 3.3)
    Bahdanau ("additive"): weights from s_{t-1}, s_t = cell([y_{t-1}; c_t], s_{t-1}), o_t = tanh(W [c_t; s_t])
    None: s_t = cell(y_{t-1}, s_{t-1}), o_t = tanh(W s_t); the source is only in s_0

    and p(y_t) = softmax(V o_t). Bahdanau's own output layer is a maxout of y_{t-1}, s_t and c_t; here all share one.

    Args:
        dim: of embeddings, states and outputs; even, half for each direction of the encoder.
        attention: the score; None is an encoder and a decoder with one vector between them.
        window, predictive: local attention, see `Alignment`.
        dropout: on embeddings, source states and outputs.
    """

    def __init__(
        self,
        source_vocab: int,
        target_vocab: int,
        dim: int,
        attention: Score | None = "general",
        *,
        window: int | float | None = None,
        predictive: bool = False,
        dropout: int | float = 0.0,
    ):
        super().__init__()
        if dim % 2:
            raise ValueError(f"dim is shared by the two directions of the encoder and must be even, got {dim}")
        if attention is None and (window is not None or predictive):
            raise ValueError("a window needs attention to look through it; choose a score or leave window out")
        self.source_vocab, self.target_vocab = source_vocab, target_vocab
        self.encoder = Encoder(source_vocab, dim, dropout)
        self.bridge = nn.Linear(dim, dim)
        self.tokens = nn.Embedding(target_vocab, dim)
        self.cell = nn.GRUCell(dim if attention is None else 2 * dim, dim)
        self.align = None if attention is None else Alignment(attention, dim, window=window, predictive=predictive)
        self.mix = nn.Linear(dim if attention is None else 2 * dim, dim, bias=False)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(dim, target_vocab)

    def forward(
        self, source: Int[Tensor, "b s"], target: Int[Tensor, "b t"], lengths: Int[Tensor, "b"] | None = None
    ) -> tuple[Float[Tensor, "b t v"], Float[Tensor, "b t s"] | None]:
        """Logits of the word after each target word, and the weights on the source with which they were made.

        Args:
            target: what was said so far, from the start token on (teacher forcing).
            lengths: words of each source; what follows them is padding. None: all full.

        Raises:
            ValueError: for ids outside the vocabularies and for empty sources.
        """
        check_ids(target, self.target_vocab)
        decoder = _Decoder(self, source, lengths)
        steps = [decoder.step(y) for y in target.unbind(1)]
        alignment = None if self.align is None else torch.stack([w for _, w in steps if w is not None], 1)
        return self.head(self.drop(torch.stack([o for o, _ in steps], 1))), alignment

    @torch.no_grad()
    def greedy(
        self, source: Int[Tensor, "b s"], lengths: Int[Tensor, "b"] | None = None, *, start: int, end: int, limit: int
    ) -> tuple[Int[Tensor, "b t"], Float[Tensor, "b t s"] | None]:
        """The likeliest word at each step until every row has said `end`, at most `limit` words; then `end` again."""
        decoder = _Decoder(self, source, lengths)
        y = source.new_full((len(source),), start)
        said, weights = [], []
        while len(said) < limit and not (said and bool((y == end).all())):
            output, weight = decoder.step(y)
            best = self.head(self.drop(output)).argmax(-1)
            y = torch.where(y == end, end, best) if said else best
            said.append(y)
            weights.append(weight)
        return torch.stack(said, 1), None if self.align is None else torch.stack(weights, 1)


class _Decoder:
    """The decoder on its way through one batch: what changes from word to word."""

    def __init__(self, model: Seq2Seq, source: Int[Tensor, "b s"], lengths: Int[Tensor, "b"] | None):
        check_ids(source, model.source_vocab)
        lengths = source.new_full((len(source),), source.shape[1]) if lengths is None else lengths
        if not bool(((lengths > 0) & (lengths <= source.shape[1])).all()):
            raise ValueError(f"sources have 1 to {source.shape[1]} words here, got lengths {lengths.tolist()}")
        self.model, self.number = model, 0
        self.real = torch.arange(source.shape[1], device=source.device) < lengths[:, None]
        self.states, last = model.encoder(source, lengths)
        self.keys = None if model.align is None else model.align.keys(self.states)
        self.s = torch.tanh(model.bridge(last))
        self.o = torch.zeros_like(self.s)

    def step(self, y: Int[Tensor, "b"]) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b s"] | None]:
        """Read the last word; the output and the weights of the next."""
        model, y = self.model, self.model.drop(self.model.tokens(y))
        if model.align is None:
            self.s = model.cell(y, self.s)
            return torch.tanh(model.mix(self.s)), None
        if model.align.score == "additive":
            c, weights = self._look(self.s)
            self.s = model.cell(torch.cat((y, c), -1), self.s)
        else:
            self.s = model.cell(torch.cat((y, self.o), -1), self.s)
            c, weights = self._look(self.s)
        self.o = torch.tanh(model.mix(torch.cat((c, self.s), -1)))
        self.number += 1
        return self.o, weights

    def _look(self, q: Float[Tensor, "b d"]) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b s"]]:
        """The context vector c = sum_s a_s h_s, and a."""
        assert self.model.align is not None
        a = self.model.align(q, self.keys, self.real, self.number)
        return torch.einsum("bs,bsd->bd", a, self.states), a


def plot_alignment(
    alignment: Float[Tensor, "t s"], source: list[str] | None = None, target: list[str] | None = None
) -> "Figure":
    """A picture of the weights as in [Bahdanau15] figure 3: the source across, the target down, white is 1."""
    from matplotlib.figure import Figure

    t, s = alignment.shape
    for name, words, n in (("source", source, s), ("target", target, t)):
        if words is not None and len(words) != n:
            raise ValueError(f"{name} has {len(words)} words and the alignment {n} places; cut the padding off both")
    figure = Figure(figsize=(1 + s / 3, 1 + t / 3), layout="constrained")
    axes = figure.subplots()
    axes.imshow(alignment.detach().cpu().numpy(), cmap="gray", vmin=0, vmax=1, aspect="equal")
    axes.xaxis.tick_top()
    axes.set_xticks(range(s), source or [str(i) for i in range(s)], rotation=90)
    axes.set_yticks(range(t), target or [str(i) for i in range(t)])
    return figure
