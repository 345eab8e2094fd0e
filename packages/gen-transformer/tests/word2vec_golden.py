"""A small language whose word pairs are counted, and what gensim 4.4.0 makes of it, for test_word2vec.py.

uv run --group peers python packages/gen-transformer/tests/word2vec_golden.py
"""

from functools import cache

import torch
from torch import Tensor

from gen_transformer.vectors import WordVectors

WORDS = 12
GENSIM = {  # (negative, exponent): rmse and correlation of x . y with the shifted PMI after 20 epochs
    (1, 1.0): (0.132410, 0.998338),
    (1, 0.75): (0.133361, 0.998265),
    (5, 1.0): (0.129020, 0.998087),
    (5, 0.75): (0.130120, 0.998239),
}
NEAREST = (
    ["w14", "w9", "w8", "w1", "w17", "w16", "w7", "w10"],
    ["w15", "w8", "w12", "w19", "w5", "w17", "w9", "w13"],
)  # of w3, and of w1 : w2 = w7 : ?


@cache
def numbers() -> Tensor:
    """2000 walks of 100 words along one random table of bigrams."""
    g = torch.Generator().manual_seed(0)
    table = torch._standard_gamma(torch.ones(WORDS, WORDS, dtype=torch.float64), generator=g) + 0.05
    walk = [torch.randint(WORDS, (2000,), generator=g)]
    for _ in range(99):
        walk.append(torch.multinomial(table[walk[-1]], 1, generator=g)[:, 0])
    return torch.stack(walk, 1)


def sentences() -> list[list[str]]:
    return [[f"w{i}" for i in row] for row in numbers().tolist()]


def distance(products: Tensor, negative: int, exponent: float) -> tuple[float, float]:
    """Root mean square difference of `x_w . y_c` from log p(c | w) - log k p_noise(c), and the correlation."""
    ids, pairs = numbers(), torch.zeros(WORDS, WORDS, dtype=torch.float64)
    one = torch.ones((), dtype=torch.float64).expand(ids[:, 1:].numel())
    pairs.index_put_((ids[:, :-1].flatten(), ids[:, 1:].flatten()), one, accumulate=True)
    pairs = pairs + pairs.T
    noise = ids.flatten().bincount(minlength=WORDS).double() ** exponent
    want = (pairs / pairs.sum(1, keepdim=True) / (negative * noise / noise.sum())).log()
    both = torch.stack((products.double().flatten(), want.flatten()))
    return (both[0] - both[1]).square().mean().sqrt().item(), torch.corrcoef(both)[0, 1].item()


def matrix() -> WordVectors:
    """Twenty vectors, the same on every machine."""
    return WordVectors(
        tuple(f"w{i}" for i in range(20)), torch.sin(torch.arange(1, 121).double() ** 2 * 0.37).float().reshape(20, 6)
    )


def nearest() -> tuple[list[str], list[str]]:
    """gensim's neighbours and analogies of `matrix()`."""
    from gensim.models import KeyedVectors  # pyright: ignore[reportMissingImports]

    theirs, ours = KeyedVectors(6), matrix()
    theirs.add_vectors(list(ours.words), ours.matrix.numpy())
    analogies = theirs.most_similar(positive=["w2", "w7"], negative=["w1"], topn=8)
    return [word for word, _ in theirs.most_similar("w3", topn=8)], [word for word, _ in analogies]


def trained(negative: int, exponent: float) -> tuple[float, float]:
    """gensim's distance."""
    from gensim.models import Word2Vec  # pyright: ignore[reportMissingImports]

    options = {"window": 1, "sg": 1, "negative": negative, "ns_exponent": exponent, "sample": 0, "min_count": 1}
    model = Word2Vec(sentences(), vector_size=16, workers=1, epochs=20, seed=1, **options)
    order = [model.wv.key_to_index[f"w{i}"] for i in range(WORDS)]
    x, y = torch.tensor(model.wv.vectors)[order], torch.tensor(model.syn1neg)[order]
    return distance(x @ y.T, negative, exponent)


if __name__ == "__main__":
    print(nearest())
    for setting in ((1, 1.0), (1, 0.75), (5, 1.0), (5, 0.75)):
        print(setting, trained(*setting))
