"""A source of symbols whose entropy rate is known, for tests of language models."""

import torch
from torch import Tensor


class Markov:
    """Order 2: p(x_t | x_{t-2}, x_{t-1}) is a row of a random table."""

    def __init__(self, symbols: int, concentration: float = 0.3, seed: int = 0):
        self.symbols, self.generator = symbols, torch.Generator().manual_seed(seed)
        draws = torch._standard_gamma(
            torch.full((symbols,) * 3, concentration, dtype=torch.float64), generator=self.generator
        )
        self.table = (draws + 1e-6) / (draws + 1e-6).sum(-1, keepdim=True)

    def entropy_rate(self) -> float:
        """In nats: the mean entropy of the rows, each as often as its pair of symbols appears in the long run."""
        n, pairs = self.symbols, torch.full((self.symbols,) * 2, self.symbols**-2.0, dtype=torch.float64)
        for _ in range(2000):
            pairs = torch.einsum("ab,abc->bc", pairs, self.table)
        assert pairs.shape == (n, n) and abs(pairs.sum() - 1) < 1e-9
        return -(pairs[..., None] * self.table * self.table.log()).sum().item()

    def draw(self, rows: int, length: int) -> Tensor:
        """`(rows, length)`, after a hundred symbols that make the start as usual as any other place."""
        seen = torch.randint(self.symbols, (rows, 2), generator=self.generator)
        seen = list(seen.unbind(1))
        for _ in range(100 + length):
            p = self.table[seen[-2], seen[-1]]
            seen.append(torch.multinomial(p, 1, generator=self.generator)[:, 0])
        return torch.stack(seen[-length:], 1)

    def nll(self, ids: Tensor) -> Tensor:
        """-log p of every symbol but the first two, `(rows, length - 2)`."""
        return -self.table[ids[:, :-2], ids[:, 1:-1], ids[:, 2:]].log()
