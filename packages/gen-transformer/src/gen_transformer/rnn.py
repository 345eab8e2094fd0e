"""Language models before attention: a recurrent network reads one character at a time ([Elman90], [Graves13]).

    model = CharRNN(RNNConfig(vocab=84, dim=256, cell="lstm"))
    hidden = model(ids)                                    # many to many: a prediction after every character
    logits = model.logits(model.last(ids))                 # many to one: the next character only

It keeps to the protocol of the transformer: `doc` separates packed documents and marks padding, and `cache` goes on
where the last call stopped, so what trains, samples and scores the one does it for the other:

    generate(model, seed, 200, warp=temperature(0.7))

[Elman90] Finding structure in time, Cognitive Science 14. [Hochreiter97] Long short-term memory, Neural Computation 9.
[Cho14] Learning phrase representations, arXiv:1406.1078. [Graves13] Generating sequences with RNNs, arXiv:1308.0850.
"""

import sys
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence, unpack_sequence

from gen_core.description import describable
from gen_transformer.model import check_ids

CELLS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


@dataclass(frozen=True)
class RNNConfig:
    """A stack of recurrent layers over one-hot tokens."""

    vocab: int
    dim: int
    """Units of every layer."""
    layers: int = 1
    cell: Literal["rnn", "lstm", "gru"] = "lstm"
    """tanh units ([Elman90]), long short-term memory ([Hochreiter97]) or gated units ([Cho14])."""
    dropout: int | float = 0.0
    """Between layers and before the output, never from a step to the next."""
    context: int = sys.maxsize
    """Longest sequence; a state has no length of its own."""

    def __post_init__(self):
        for name in ("vocab", "dim", "layers", "context"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.cell not in CELLS:
            raise ValueError(f"cell is one of {', '.join(CELLS)}, got {self.cell!r}")


@dataclass(frozen=True)
class State:
    """What the network knows after some tokens of each row."""

    memory: Float[Tensor, "parts layers b d"]
    """The hidden state, and the cell state of an LSTM."""
    doc: Int[Tensor, "b"]
    """The document that it is about, -1 before the first."""


class StateCache:
    """The states at the ends of the calls so far, and the tokens, so that any number of them can be taken back.

    A crop into the middle of a call is read again from the state before it: exact, and short where drafts are short.
    """

    def __init__(self, length: int, start: State):
        self.length, self.used = length, 0
        self.ids: Tensor | None = None
        self.doc: Tensor | None = None
        self._states = {0: start}

    def resume(
        self, ids: Int[Tensor, "b new"], doc: Int[Tensor, "b new"] | None
    ) -> tuple[Int[Tensor, "b t"], Int[Tensor, "b t"] | None, State]:
        """Add tokens; those since the last state, their documents, and that state."""
        if self.used + ids.shape[1] > self.length:
            raise ValueError(
                f"the cache holds {self.length} tokens and {self.used + ids.shape[1]} are needed; make it longer"
            )
        past = ids[:, :0] if self.ids is None else self.ids
        if doc is not None or self.doc is not None:
            before = torch.zeros_like(past) if self.doc is None else self.doc
            self.doc = torch.cat((before, before[:, -1:].expand_as(ids) if doc is None else doc), dim=1)
        self.ids = torch.cat((past, ids), dim=1)
        start = max(self._states)
        return self.ids[:, start:], None if self.doc is None else self.doc[:, start:], self._states[start]

    def keep(self, state: State) -> None:
        """The state after all tokens."""
        assert self.ids is not None
        self.used = self.ids.shape[1]
        self._states[self.used] = state

    def crop(self, length: int) -> None:
        """Forget all but the first `length` tokens."""
        self.used = min(self.used, length)
        self.ids = None if self.ids is None else self.ids[:, :length]
        self.doc = None if self.doc is None else self.doc[:, :length]
        self._states = {end: state for end, state in self._states.items() if end <= length}

    def reorder(self, rows: Int[Tensor, "rows"]) -> None:
        """Row i becomes what row `rows[i]` was, as a beam search needs."""
        self.ids = None if self.ids is None else self.ids[rows]
        self.doc = None if self.doc is None else self.doc[rows]
        self._states = {end: State(s.memory[:, :, rows], s.doc[rows]) for end, s in self._states.items()}


@describable
class CharRNN(nn.Module):
    """h_t = cell(one_hot(x_t), h_{t-1}), and p(x_{t+1} | x_1 .. x_t) = softmax(W h_t)."""

    def __init__(self, cfg: RNNConfig):
        super().__init__()
        self.config = cfg
        between = cfg.dropout if cfg.layers > 1 else 0.0
        self.rnn = CELLS[cfg.cell](cfg.vocab, cfg.dim, cfg.layers, batch_first=True, dropout=between)
        self.drop = nn.Dropout(cfg.dropout)
        self.head = nn.Linear(cfg.dim, cfg.vocab, bias=False)

    @property
    def output(self) -> Tensor:
        """The matrix from hidden states to logits, `(vocab, dim)`."""
        return self.head.weight

    def forward(
        self, ids: Int[Tensor, "b t"], *, doc: Int[Tensor, "b t"] | None = None, cache: StateCache | None = None
    ) -> Float[Tensor, "b t d"]:
        """Hidden states of the last layer, 0 at padding.

        Args:
            doc: document of each token; the state starts from 0 in every document and passes over padding (negative).
            cache: what came before; `ids` goes on from there and is added.

        Raises:
            ValueError: for ids outside the vocabulary and for more tokens than the cache holds.
        """
        if cache is None:
            return self._read(ids, doc, self._start(len(ids)))[0]
        since, doc, state = cache.resume(ids, doc)
        hidden, state = self._read(since, doc, state)
        cache.keep(state)
        return hidden[:, since.shape[1] - ids.shape[1] :]

    def last(self, ids: Int[Tensor, "b t"], *, doc: Int[Tensor, "b t"] | None = None) -> Float[Tensor, "b d"]:
        """The hidden state after the last token of each row that is not padding."""
        return self.drop(self._read(ids, doc, self._start(len(ids)))[1].memory[0, -1])

    def logits(self, hidden: Float[Tensor, "*b d"]) -> Float[Tensor, "*b vocab"]:
        """Unnormalised log-probabilities of the next token."""
        return self.head(hidden)

    def cache(self, batch: int, length: int) -> StateCache:
        """An empty cache for `batch` rows of at most `length` tokens."""
        return StateCache(length, self._start(batch))

    def _start(self, batch: int) -> State:
        weight = self.head.weight
        parts = 2 if self.config.cell == "lstm" else 1
        memory = weight.new_zeros(parts, self.config.layers, batch, self.config.dim)
        return State(memory, torch.full((batch,), -1, device=weight.device))

    def _read(
        self, ids: Int[Tensor, "b t"], doc: Int[Tensor, "b t"] | None, state: State
    ) -> tuple[Float[Tensor, "b t d"], State]:
        check_ids(ids, self.config.vocab)
        x = F.one_hot(ids, self.config.vocab).to(self.head.weight.dtype)
        if doc is not None:
            return self._read_documents(x, doc, state)
        hidden, memory = self.rnn(x, self._given(state.memory))
        return self.drop(hidden), State(self._stacked(memory), torch.zeros_like(state.doc))

    def _read_documents(
        self, x: Float[Tensor, "b t v"], doc: Int[Tensor, "b t"], state: State
    ) -> tuple[Float[Tensor, "b t d"], State]:
        """Every document is read as a sequence of its own, the first of a row from the row's state if it goes on."""
        hidden = x.new_zeros(*doc.shape, self.config.dim)
        real = doc >= 0
        if not real.any():
            return hidden, state
        row, ids = real.nonzero()[:, 0], doc[real]
        border = (row[1:] != row[:-1]) | (ids[1:] != ids[:-1])
        starts = torch.cat((border.new_zeros(1).long(), border.nonzero()[:, 0] + 1))
        lengths = torch.diff(starts, append=starts.new_tensor([len(ids)])).tolist()
        row, ids = row[starts], ids[starts]
        memory = torch.where((state.doc[row] == ids)[:, None], state.memory[:, :, row], 0)
        packed = pack_sequence(list(x[real].split(lengths)), enforce_sorted=False)
        read, memory = self.rnn(packed, self._given(memory))
        hidden[real] = self.drop(torch.cat(unpack_sequence(read)))
        ends = torch.cat((row[1:] != row[:-1], row.new_ones(1).bool()))  # the last document of each row
        after, docs = state.memory.clone(), state.doc.clone()
        after[:, :, row[ends]], docs[row[ends]] = self._stacked(memory)[:, :, ends], ids[ends]
        return hidden, State(after, docs)

    def _given(self, memory: Tensor) -> Tensor | tuple[Tensor, ...]:
        """As PyTorch wants it: an LSTM's as a pair."""
        return tuple(part.contiguous() for part in memory) if self.config.cell == "lstm" else memory[0].contiguous()

    def _stacked(self, memory: Tensor | tuple[Tensor, ...]) -> Float[Tensor, "parts layers b d"]:
        return torch.stack(memory) if isinstance(memory, tuple) else memory[None]
