"""Hidden Markov models: exact inference and EM in float64, for ragged batches with missing frames.

    model = HMM.start(Gaussians.start(frames, 3), persistence=0.9)
    fit = fit_em(model, pad_sequences([walk, run]))
    fit.model.log_prob(data), fit.model.posterior(data), fit.model.viterbi(data)

Filtering is in logarithms, so that zeros in the transition matrix, 10,000 steps and densities of any size are safe.

[Rabiner89] A tutorial on hidden Markov models, Proceedings of the IEEE 77(2).
[Kitagawa87] Non-Gaussian state-space modeling of nonstationary time series: filtering and smoothing without betas.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from gen_latent.emissions import Emission, draw, shares
from gen_latent.sequences import Sequences, pad_sequences


class HMMStatistics(NamedTuple):
    """Expected counts."""

    initial: Tensor
    """(k,): sequences that begin in each state."""
    transition: Tensor
    """(k, k): steps from each state to each."""
    sums: Any
    """Of the emissions."""
    log_likelihood: Tensor
    """ln p(data)."""


@dataclass(frozen=True)
class HMM:
    """p(s_1) p(x_1 | s_1) prod_t p(s_t | s_(t-1)) p(x_t | s_t).

    Args:
        initial: (k,), sums to 1.
        transition: (k, k), rows sum to 1; zeros are allowed and stay.
        emission: the densities p(x | s): `Gaussians`, `Categoricals`, `Poissons`.

    Raises:
        ValueError: unless these are probabilities, of as many states as the emission has.
    """

    initial: Tensor
    transition: Tensor
    emission: Emission

    def __post_init__(self):
        k = self.emission.k
        if self.initial.shape != (k,) or self.transition.shape != (k, k):
            raise ValueError(
                f"{k} emissions need initial ({k},) and transition ({k}, {k}), "
                f"got {tuple(self.initial.shape)} and {tuple(self.transition.shape)}"
            )
        for name in ("initial", "transition"):
            p = getattr(self, name).double()
            object.__setattr__(self, name, p / p.sum(-1, keepdim=True))  # from single precision, to double
            if (p < 0).any() or (p.sum(-1) - 1).abs().max() > 1e-6:
                raise ValueError(f"{name} must be probabilities that sum to 1, got {p.tolist()}")

    @classmethod
    def start(cls, emission: Emission, persistence: float = 0.5) -> "HMM":
        """Any first state as likely; staying has the probability `persistence`, the rest is shared by the others."""
        if not 0 <= persistence <= 1:
            raise ValueError(f"persistence lies in 0..1, got {persistence}")
        k = emission.k
        stay = persistence if k > 1 else 1.0
        leave = torch.full((k, k), (1 - stay) / max(1, k - 1), dtype=torch.float64)
        transition = leave - leave.diag().diag() + stay * torch.eye(k, dtype=torch.float64)
        return cls(torch.full((k,), 1 / k, dtype=torch.float64), transition, emission)

    def log_prob(self, data: Any) -> Float[Tensor, "b"]:
        """ln p of each sequence, in nats; differentiable in the parameters ([Rabiner89] eq. 19 to 21)."""
        return self._filter(self._evidence(pad_sequences(data)))[1].sum(1)

    def posterior(self, data: Any) -> Float[Tensor, "b t k"]:
        """p(s_t | all x); beyond a sequence's end the forecast."""
        filtered, _ = self._filter(self._evidence(pad_sequences(data)))
        return self._smooth(filtered)[0]

    def _evidence(self, batch: Sequences) -> Float[Tensor, "b t k"]:
        """ln p(x_t | s_t), 0 where the frame is missing or beyond the end."""
        known = self._known(batch)
        out = batch.x.new_zeros(*known.shape, self.emission.k)
        out[known] = self.emission.log_prob(batch.x[known])
        return out

    def _known(self, batch: Sequences) -> Tensor:
        seen = batch.seen
        if (seen.any(-1) != seen.all(-1)).any():
            raise ValueError("a frame of an HMM is seen or missing as a whole; set all its values to NaN")
        return seen.all(-1)

    def _filter(self, evidence: Tensor) -> tuple[Float[Tensor, "b t k"], Float[Tensor, "b t"]]:
        """ln p(s_t | x_1..x_t) and ln p(x_t | x_1..x_(t-1))."""
        log_a, prior = self.transition.log(), self.initial.log().expand(len(evidence), -1)
        beliefs, totals = [], []
        for each in evidence.unbind(1):
            joint = prior + each
            total = joint.logsumexp(1)
            beliefs.append(joint - total[:, None])
            totals.append(total)
            prior = (beliefs[-1][:, :, None] + log_a).logsumexp(1)
        filtered, log_prob = torch.stack(beliefs, 1), torch.stack(totals, 1)
        if not log_prob.isfinite().all():
            raise ValueError("a sequence has probability 0 under the model; give its zeros some probability")
        return filtered, log_prob

    def _smooth(self, filtered: Tensor) -> tuple[Float[Tensor, "b t k"], Float[Tensor, "b steps k k"]]:
        """p(s_t | all x), and p(s_t | s_(t+1), x_1..x_t) as (b, t - 1, s_t, s_(t+1)) ([Kitagawa87] eq. 2.5)."""
        joint = filtered[:, :-1, :, None] + self.transition.log()
        back = (
            (joint - joint.logsumexp(2, keepdim=True)).exp().nan_to_num()
        )  # a state that none leads to has none behind
        gamma = [filtered[:, -1].exp()]
        for each in reversed(back.unbind(1)):
            gamma.append((each @ gamma[-1][..., None])[..., 0])
        return torch.stack(gamma[::-1], 1), back

    def viterbi(self, data: Any) -> tuple[Int[Tensor, "b t"], Float[Tensor, "b"]]:
        """The most probable path of each sequence, and ln p(path, x); -1 beyond its end ([Rabiner89] eq. 32 to 35).

        Of paths that are equally probable, the one whose last states come first.
        """
        batch = pad_sequences(data)
        evidence, inside = self._evidence(batch), batch.inside
        log_a = self.transition.log()
        stay = torch.arange(len(log_a), device=log_a.device).expand(len(evidence), -1)
        best, back = self.initial.log() + evidence[:, 0], []
        for t in range(1, evidence.shape[1]):
            value, previous = (best[:, :, None] + log_a).max(1)
            use = inside[:, t, None]
            best = torch.where(use, value + evidence[:, t], best)
            back.append(torch.where(use, previous, stay))
        log_prob, state = best.max(1)
        path = [state]
        for previous in reversed(back):
            path.append(previous.gather(1, path[-1][:, None])[:, 0])
        return torch.stack(path[::-1], 1).where(inside, -1), log_prob

    def sample(self, n: int, steps: int, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """States (n, steps) and observations (n, steps, d)."""
        states = [draw(self.initial.expand(n, -1), generator)]
        for _ in range(steps - 1):
            states.append(draw(self.transition[states[-1]], generator))
        path = torch.stack(states, 1)
        return path, self.emission.sample(path, generator)

    def expect(self, data: Any) -> HMMStatistics:
        """Expected counts of first states and transitions, and the sums of the emissions ([Rabiner89] eq. 37 to 40)."""
        batch = pad_sequences(data)
        filtered, log_prob = self._filter(self._evidence(batch))
        gamma, back = self._smooth(filtered)
        later = gamma[:, 1:].where(batch.inside[:, 1:, None], 0.0)  # the next frame belongs to the sequence
        steps = torch.einsum("btij,btj->ij", back, later)
        known = self._known(batch)
        return HMMStatistics(
            gamma[:, 0].sum(0), steps, self.emission.sums(batch.x[known], gamma[known]), log_prob.sum()
        )

    def expected_log_prob(self, statistics: HMMStatistics) -> Tensor:
        """Q: expected ln p(states, observations)."""
        first, steps, sums, _ = statistics
        chain = torch.xlogy(first, self.initial).sum() + torch.xlogy(steps, self.transition).sum()
        return chain + self.emission.expected_log_prob(sums)

    def maximise(self, statistics: HMMStatistics) -> "HMM":
        """Shares of the counts ([Rabiner89] eq. 40a, 40b), and the emissions fitted to the weighted frames."""
        first, steps, sums, _ = statistics
        return HMM(shares(first, self.initial), shares(steps, self.transition), self.emission.fit(sums))
