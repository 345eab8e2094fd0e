"""word2vec: vectors that predict which words stand near each other ([Mikolov13a], [Mikolov13b]).

    model = Word2Vec(count_words(sentences, least=5), dim=100, window=5, kind="skipgram")
    model.train(sentences, epochs=5)
    model.vectors.neighbours("king")

Two tables are learned, x for words that predict and y for words that are predicted, by telling the pairs of the text
from pairs with drawn noise words z_1 .. z_k:

    loss = -log sigmoid(x . y) - sum_k log sigmoid(-x . z_k),   z ~ count^(3/4)           ([Mikolov13b] eq. 4)

whose optimum is known: x_w . y_c = log p(c | w) - log k p_noise(c) ([Levy14]). Noise words are drawn as they come, also
when they are the word to predict: leaving those out, as the original program does, moves the optimum.

[Mikolov13a] Efficient estimation of word representations, arXiv:1301.3781. [Mikolov13b] Distributed representations of
words and phrases, arXiv:1310.4546. [Levy14] Neural word embedding as implicit matrix factorization, NeurIPS 2014.
[Irsoy21] Corrected CBOW performs as well as skip-gram, arXiv:2012.15332. [Ji16] Parallelizing word2vec in shared and
distributed memory, arXiv:1604.04661.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gen_transformer.vectors import WordVectors


def count_words(sentences: Iterable[Iterable[str]], least: int = 5) -> dict[str, int]:
    """How often each word appears, the most frequent first; words that appear less than `least` times are left out."""
    counts = Counter(word for sentence in sentences for word in sentence)
    return {word: n for word, n in counts.most_common() if n >= least}


def kept(counts: Float[Tensor, "words"], threshold: int | float) -> Float[Tensor, "words"]:
    """The probability that subsampling keeps a word of each count: sqrt(t / f) + t / f, at most 1; t = 0 keeps all.

    f is the word's share of the text. [Mikolov13b] eq. 5 has only the root; the program that came with it, and every
    one since, has both.
    """
    if threshold == 0:
        return torch.ones_like(counts)
    ratio = threshold * counts.sum() / counts
    return (ratio.sqrt() + ratio).clamp(max=1)


def gradients(
    x: Float[Tensor, "n i d"],
    y: Float[Tensor, "n j d"],
    z: Float[Tensor, "k d"],
    pairs: Float[Tensor, "n i j"],
    negative: int | float,
) -> tuple[Float[Tensor, "n i d"], Float[Tensor, "n j d"], Float[Tensor, "k d"]]:
    """Of sum_ij pairs_ij [-log sigmoid(x_i . y_j) - negative / k sum_k log sigmoid(-x_i . z_k)], in closed form.

    d/ds of -log sigmoid(s) is sigmoid(s) - 1 and of -log sigmoid(-s) is sigmoid(s), so every gradient is a product of
    matrices. The noise words are shared by all pairs ([Ji16]): its mean is that of drawing anew for each pair.
    """
    positive = pairs * (torch.sigmoid(x @ y.mT) - 1)
    noise = pairs.sum(-1, keepdim=True) * (negative / len(z)) * torch.sigmoid(x @ z.mT)
    return positive @ y + noise @ z, positive.mT @ x, noise.flatten(0, 1).mT @ x.flatten(0, 1)


class Word2Vec:
    """The two tables, and stochastic gradient descent on them.

    Args:
        counts: how often each word appears in the text (`count_words`).
        window: farthest neighbour that counts; each word draws its own reach from 1 .. window, so near ones count more.
        kind: skipgram, a word predicts each neighbour, or cbow, the mean of the neighbours predicts the word. The
            gradient of the mean is divided among them ([Irsoy21]; the original program gives each the whole of it), so
            cbow wants three times the rate.
        negative: noise words per pair, k in the loss.
        noise: how many words are drawn for a batch, each weighted so that a pair has `negative` of them.
        exponent: noise words are drawn with probability ~ count^exponent.
        subsample: words of a larger share of the text than about this are read less often; 0 reads all.
    """

    def __init__(
        self,
        counts: dict[str, int],
        dim: int = 100,
        *,
        window: int = 5,
        kind: Literal["skipgram", "cbow"] = "skipgram",
        negative: int = 5,
        noise: int = 64,
        exponent: int | float = 0.75,
        subsample: int | float = 1e-3,
        generator: torch.Generator | None = None,
    ):
        if not counts:
            raise ValueError("no words to learn; every one was too rare, lower `least` in count_words")
        if kind not in ("skipgram", "cbow"):
            raise ValueError(f"kind is skipgram or cbow, got {kind!r}")
        self.words, self.window, self.kind, self.negative, self.noise = tuple(counts), window, kind, negative, noise
        self.generator = torch.Generator().manual_seed(0) if generator is None else generator
        self.x = (torch.rand(len(counts), dim, generator=self.generator) - 0.5) / dim
        self.y = torch.zeros(len(counts), dim)
        self.count = torch.tensor(list(counts.values()), dtype=torch.float64)
        self.kept = kept(self.count, subsample)
        self.noise_share = self.count**exponent / (self.count**exponent).sum()
        self._noise_sum = self.noise_share.cumsum(0)

    @property
    def vectors(self) -> WordVectors:
        """The words with their vectors x."""
        return WordVectors(self.words, self.x)

    def train(
        self,
        sentences: Iterable[Iterable[str]],
        epochs: int = 5,
        *,
        lr: int | float = 0.025,
        last_lr: int | float = 1e-4,
        batch: int | None = None,
    ) -> None:
        """Read the text `epochs` times, the rate falling in a line from `lr` to `last_lr`.

        Args:
            batch: words of an update, whose gradients are summed; None: as many as are stable, up to 512.

        Raises:
            ValueError: when the vectors are not finite in the end.
        """
        text, sentence = self._encode(sentences)
        batch = self.stable_batch(lr) if batch is None else batch
        done, total = 0, epochs * len(text)
        for _ in range(epochs):
            keep = torch.rand(len(text), generator=self.generator) < self.kept[text]
            read, own, share = text[keep], sentence[keep], len(text) / max(int(keep.sum()), 1)
            for ids, pairs in self._windows(read, own, batch):
                self.update(ids, pairs, lr + (last_lr - lr) * min(done / total, 1))
                done += share * pairs.shape[0] * pairs.shape[1]
        if not (self.x.isfinite().all() and self.y.isfinite().all()):
            raise ValueError(f"the vectors diverged with lr={lr} and batch={batch}; lower one of them")

    def stable_batch(self, lr: int | float) -> int:
        """Words of an update in which the rate times the pairs of the busiest word is 2.

        The second derivative of the loss of a pair is at most |x|^2 / 4, so sums beyond some 4 overshoot and diverge.
        """
        share = self.count * self.kept / (self.count * self.kept).sum()
        near = self.window + 1 if self.kind == "skipgram" else 1  # pairs of a centre, on average
        pairs = near * (share + self.negative * self.noise_share)  # of each word, per word of the text
        return int(min(max(2 / (lr * pairs.max().item()), 1), 512))

    def update(self, ids: Int[Tensor, "n j"], pairs: Bool[Tensor, "n i j"], lr: int | float) -> None:
        """One step on `n` stretches of text, of which `pairs[n, i, j]` says that j is a neighbour of the i-th centre.

        Args:
            ids: words, the first centre at place `window`, with as many words after the last.
        """
        w, near = self.window, pairs.to(self.x.dtype)
        middle = ids[:, w : w + pairs.shape[1]]
        drawn = self._draw(self.noise)
        z = F.embedding(drawn, self.y)
        if self.kind == "skipgram":
            dx, dy, dz = gradients(F.embedding(middle, self.x), F.embedding(ids, self.y), z, near, self.negative)
            self._descend(middle, dx, ids, dy, drawn, dz, lr)
            return
        mean = near / near.sum(-1, keepdim=True).clamp(min=1)
        one = torch.diag_embed(near.any(-1).to(near.dtype))  # each centre is a pair with the mean of its neighbours
        dh, dy, dz = gradients(mean @ F.embedding(ids, self.x), F.embedding(middle, self.y), z, one, self.negative)
        self._descend(ids, mean.mT @ dh, middle, dy, drawn, dz, lr)

    def _descend(self, i: Tensor, dx: Tensor, j: Tensor, dy: Tensor, k: Tensor, dz: Tensor, lr: int | float) -> None:
        self.x.index_add_(0, i.flatten(), dx.flatten(0, 1), alpha=-lr)
        self.y.index_add_(0, j.flatten(), dy.flatten(0, 1), alpha=-lr)
        self.y.index_add_(0, k, dz, alpha=-lr)

    def _draw(self, n: int) -> Int[Tensor, "n"]:
        u = torch.rand(n, generator=self.generator, dtype=torch.float64)
        return torch.searchsorted(self._noise_sum, u).clamp(max=len(self.words) - 1)

    def _encode(self, sentences: Iterable[Iterable[str]]) -> tuple[Int[Tensor, "n"], Int[Tensor, "n"]]:
        """Numbers of the words that are known, and of their sentences."""
        index = {word: i for i, word in enumerate(self.words)}
        known = [[index[word] for word in sentence if word in index] for sentence in sentences]
        text = torch.tensor([i for sentence in known for i in sentence], dtype=torch.long)
        return text, torch.arange(len(known)).repeat_interleave(torch.tensor([len(s) for s in known], dtype=torch.long))

    def _windows(
        self, text: Int[Tensor, "n"], sentence: Int[Tensor, "n"], batch: int, stretch: int = 32
    ) -> Iterator[tuple[Int[Tensor, "m j"], Bool[Tensor, "m i j"]]]:
        """Batches of stretches with their neighbourhoods: pairs of one sentence, within the reach of the centre."""
        w, stretch = self.window, min(stretch, batch)
        n = -(-len(text) // stretch) * stretch
        ids, own = text.new_zeros(n + 2 * w), sentence.new_full((n + 2 * w,), -1)
        ids[w : w + len(text)], own[w : w + len(text)] = text, sentence
        reach = torch.randint(1, w + 1, (n // stretch, stretch, 1), generator=self.generator)
        away = (torch.arange(stretch + 2 * w) - w - torch.arange(stretch)[:, None]).abs()
        ids, own = ids.unfold(0, stretch + 2 * w, stretch), own.unfold(0, stretch + 2 * w, stretch)
        rows = max(batch // stretch, 1)
        for i, o, r in zip(ids.split(rows), own.split(rows), reach.split(rows), strict=True):
            centre = o[:, w : w + stretch, None]
            yield i, (away > 0) & (away <= r) & (o[:, None] == centre) & (centre >= 0)
