"""Losses of policies: trl's own numbers, the exact optima of the two-token trap and of the bandit, clipping, values."""

from itertools import product
from pathlib import Path

import pytest
import torch
from scipy.optimize import root
from torch.nn.functional import logsigmoid

from gen_core.testing import load
from gen_transformer.alignment import (
    cispo,
    kl_loss,
    log_ratio_kl,
    ppo_clip,
    reduce,
    reinforce,
    reward_to_go,
    shape_rewards,
    value_loss,
)

golden = load(Path(__file__).with_name("alignment_golden.py"))
bandit = load(Path(__file__).with_name("bandit.py"))

# ---------------------------------------------------------------------- trl


def ours(kind, level, beta):
    """The composition that the table of methods names, as (loss, norm of its gradient)."""
    logp, old, ref = golden.inputs()
    logp.requires_grad_()
    adv, mask = golden.ADVANTAGES[:, None].expand_as(logp), golden.MASK
    if kind == "rloo":
        a, b = ((x * mask).sum(1, keepdim=True) for x in (logp, old))
        loss = ppo_clip(a, b, golden.ADVANTAGES[:, None], golden.CLIP).mean()
    else:
        x = cispo(logp, old, adv, golden.HIGH) if kind == "cispo" else None
        x = ppo_clip(logp, old, adv, golden.CLIP, level=level, mask=mask) if x is None else x
        x = x + beta * log_ratio_kl(logp, ref, "k3")
        how = {"grpo": "sequence", "dr_grpo": "constant", "luspo": "constant"}.get(kind, "token")
        loss = reduce(x, mask, how, denom=mask.numel() if kind == "dr_grpo" else None)
    return loss.item(), torch.autograd.grad(loss, logp)[0].norm().item()


@pytest.mark.parametrize("case", golden.CASES)
def test_losses_are_trls(case):
    for beta in (0.0, golden.BETA):
        assert ours(*case, beta) == pytest.approx(golden.GOLDEN[*case, beta], rel=1e-12)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")  # what trl and transformers deprecate
@pytest.mark.parametrize("case", golden.CASES)
def test_losses_are_trls_live(case):
    pytest.importorskip("trl")
    for beta in (0.0, golden.BETA):
        assert ours(*case, beta) == pytest.approx(golden.trl_loss(*case, beta), rel=1e-12)


# ---------------------------------------------------------------------- exact optima (expected gradients, no sampling)


class Tree:
    """All sequences of two tokens: a or b, and after a: x or y; after b there is an end alone. beta is 1."""

    mask = torch.tensor([[1, 1], [1, 1], [1, 0]]).bool()
    score = torch.tensor([0.0, 4.0, 0.6], dtype=torch.float64)
    ref = torch.tensor([[0.5, 0.99], [0.5, 0.01], [0.5, 1.0]], dtype=torch.float64).log()

    def logp(self, z):
        (a, b), (y, x) = ((logsigmoid(v), logsigmoid(-v)) for v in z)
        return torch.stack([torch.stack([a, x]), torch.stack([a, y]), torch.stack([b, torch.zeros_like(b)])])

    def gradient(self, z, loss):
        """Expected over all sequences, each as often as the policy samples it."""
        z = torch.tensor(z, requires_grad=True)
        logp = self.logp(z)
        x = loss(logp, self.mask) * logp.detach().sum(1, keepdim=True).exp()
        return torch.autograd.grad(reduce(x, self.mask, "constant", denom=1), z)[0].numpy()

    def minimise(self, loss, near):
        """(p(a), p(y | a), J) where the gradient is 0."""
        start = torch.tensor(near, dtype=torch.float64).logit() + 0.2
        found = root(self.gradient, start.tolist(), args=(loss,), tol=1e-12)
        z = torch.tensor(found.x)
        logp = self.logp(z)
        j = logp.sum(1).exp() @ (self.score - (logp - self.ref).where(self.mask, 0).sum(1))
        assert found.success
        return *z.sigmoid().tolist(), j.item()


def kl_in_reward(logp, mask):
    """RLOO without its baseline, which has no effect on the mean."""
    total = shape_rewards(Tree.score, logp.detach(), Tree.ref, mask, 1.0).sum(1, keepdim=True)
    return ppo_clip(logp, logp.detach(), total.expand_as(logp))


def kl_to_go(logp, mask):
    return reinforce(logp, reward_to_go(shape_rewards(Tree.score, logp.detach(), Tree.ref, mask, 1.0), mask))


def in_loss(kl):
    return lambda logp, mask: reinforce(logp, Tree.score[:, None].expand_as(logp)) + kl(logp, mask)


bare = lambda estimator: in_loss(lambda logp, mask: log_ratio_kl(logp, Tree.ref, estimator))
METHODS = {  # a method: p(a), p(y | a), J; the first three reach the optimum
    "in reward": (kl_in_reward, (0.457396, 0.355461, 0.518228)),
    "in reward, to go": (kl_to_go, (0.457396, 0.355461, 0.518228)),
    "kl_loss": (in_loss(lambda logp, mask: kl_loss(logp, Tree.ref, mask)), (0.457396, 0.355461, 0.518228)),
    "k2 of each token": (
        in_loss(lambda logp, mask: log_ratio_kl(logp, Tree.ref, "k2")),
        (0.694628, 0.355461, 0.403537),
    ),
    "k3 of each token": (
        in_loss(lambda logp, mask: log_ratio_kl(logp, Tree.ref, "k3")),
        (0.834040, 0.753319, -0.060499),
    ),
}


@pytest.mark.parametrize("name", METHODS)
def test_kl_of_sequences_reaches_the_optimum_and_kl_of_tokens_does_not(name):
    """J* = log E_ref exp(score) is .518228; a token's own KL forgets that the token chooses the states after it."""
    loss, expected = METHODS[name]
    assert Tree().minimise(loss, expected[:2]) == pytest.approx(expected, abs=1e-6)


def bandit_gradient(z, estimator, scale=1.0):
    """Expected gradient of -scale score log p + beta KL, the estimator as it is in the loss."""
    z = torch.tensor(z, dtype=torch.float64, requires_grad=True)
    logp = z.log_softmax(0)
    loss = -scale * bandit.REWARD * logp + bandit.BETA * log_ratio_kl(logp, bandit.REF.log(), estimator)
    return torch.autograd.grad(logp.detach().exp() @ loss, z)[0].numpy()


def test_fixed_points_of_bare_estimators_in_the_loss():
    """k2 tilts as it should; k3 is the KL the other way round: pi = beta ref / (lambda - r); k1 does not regularise."""
    forward = torch.tensor([0.129598, 0.120653, 0.079513, 0.092041, 0.578196], dtype=torch.float64)
    assert torch.allclose(forward, bandit.BETA * bandit.REF / (1.543238 - bandit.REWARD), atol=2e-5)
    for estimator, expected in (("k2", bandit.OPTIMUM), ("k3", forward)):
        found = root(bandit_gradient, (expected.log() + 0.1 * bandit.REWARD).tolist(), args=(estimator,), method="lm")
        assert found.success and bandit.variation(torch.tensor(found.x).softmax(0), expected) < 1e-6
    assert abs(bandit_gradient([0.3, -0.2, 0.0, 1.0, -1.0], "k1", scale=0.0)).max() < 1e-15


def test_kl_loss_has_the_gradient_of_the_kl_of_sequences():
    """On random trees of 3 tokens and depth 3, by enumeration of all 27 sequences."""
    generator = torch.Generator().manual_seed(2)
    z, ref = torch.randn(2, 13, 3, generator=generator, dtype=torch.float64)
    z.requires_grad_()
    sequences = list(product(range(3), repeat=3))
    state = lambda s, t: (0, 1 + s[0], 4 + 3 * s[0] + s[1])[t]

    def logp(table):
        p = table.log_softmax(1)
        return torch.stack([torch.stack([p[state(s, t), s[t]] for t in range(3)]) for s in sequences])

    own, other, mask = logp(z), logp(ref), torch.ones(27, 3).bool()
    p = own.sum(1).exp()
    (exact,) = torch.autograd.grad((p * (own - other).sum(1)).sum(), z, retain_graph=True)
    for estimator in ("k1", "k3"):
        loss = kl_loss(own, other, mask, estimator) * p.detach()[:, None]
        (gradient,) = torch.autograd.grad(loss.sum(), z, retain_graph=True)
        assert torch.allclose(gradient, exact, atol=1e-12)
        assert loss.sum().item() == pytest.approx((p * (own - other).sum(1)).sum().item())


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_estimators_are_unbiased(estimator):
    p, q = torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.2, 0.6]], dtype=torch.float64).log()
    exact = (p.exp() * (p - q)).sum()
    assert (p.exp() * log_ratio_kl(p, q, estimator)).sum().item() == pytest.approx(exact.item())


# ---------------------------------------------------------------------- clipping and values


def test_clipping_takes_the_smaller_objective_for_either_sign():
    """Of ratios .5, 1, 2 with A = 1, -1: min(r A, clip(r) A); an advantage below 0 is not bounded without dual."""
    logp = torch.tensor([0.5, 1.0, 2.0]).log().expand(2, 3).contiguous().requires_grad_()
    adv = torch.tensor([[1.0], [-1.0]]).expand(2, 3)
    loss = ppo_clip(logp, torch.zeros(2, 3), adv)
    assert torch.allclose(loss, torch.tensor([[-0.5, -1.0, -1.2], [0.8, 1.0, 2.0]]))
    (gradient,) = torch.autograd.grad(loss.sum(), logp)
    assert torch.allclose(gradient, torch.tensor([[-0.5, -1.0, 0.0], [0.0, 1.0, 2.0]]))
    far = ppo_clip(torch.full((2, 3), 5.0), torch.zeros(2, 3), adv, dual=3.0)
    assert torch.allclose(far, torch.tensor([[-1.2], [3.0]]).expand(2, 3))


def test_a_fresh_sample_has_the_gradient_of_reinforce():
    logp = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    adv, mask = torch.randn(3, 4, generator=torch.Generator().manual_seed(1)), torch.ones(3, 4).bool()
    (expected,) = torch.autograd.grad(reinforce(logp, adv).sum(), logp)
    constant = adv[:, :1].expand_as(adv)
    for loss in (ppo_clip(logp, logp.detach(), adv), cispo(logp, logp.detach(), adv)):
        assert torch.allclose(torch.autograd.grad(loss.sum(), logp)[0], expected)
    whole = ppo_clip(logp, logp.detach(), constant, level="sequence", mask=mask)
    (gradient,) = torch.autograd.grad(whole.sum(), logp)
    assert torch.allclose(gradient, -constant)


def test_values_are_clipped_by_the_larger_loss():
    v, old, returns = torch.tensor([[1.0, 1.0, 0.05]]), torch.zeros(1, 3), torch.tensor([[1.0, -1.0, 1.0]])
    assert torch.allclose(value_loss(v, old, returns, clip=0.2), torch.tensor([[0.32, 2.0, 0.45125]]))
    assert torch.allclose(value_loss(v, old, returns), torch.tensor([[0.0, 2.0, 0.45125]]))


def test_refusals():
    x = torch.zeros(1, 2)
    with pytest.raises(ValueError, match="pass mask"):
        ppo_clip(x, x, x, level="sequence")
    with pytest.raises(ValueError, match="dual is above 1"):
        ppo_clip(x, x, x, dual=0.5)
