"""Hidden Markov models against a sum over all paths, Fisher's identity, and golden values of hmmlearn."""

import itertools
import math

import pytest
import torch

from gen_latent import HMM, Categoricals, Gaussians, Poissons, fit_em, pad_sequences

NAN = torch.nan


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def chain(emission, seed: int = 0) -> HMM:
    k = emission.k
    raw = torch.rand(k + 1, k, generator=generator(seed), dtype=torch.float64) + 0.1
    p = raw / raw.sum(1, keepdim=True)
    return HMM(p[0], p[1:], emission)


def gaussians(k: int = 3, d: int = 2, seed: int = 0) -> Gaussians:
    root = normal(k, d, d, seed=seed + 1)
    return Gaussians(2 * normal(k, d, seed=seed), root @ root.mT + 0.2 * torch.eye(d))


def every_path(model: HMM, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """All paths (k^t, t), and ln p(path, x) of each."""
    k, t = model.emission.k, len(x)
    paths = torch.tensor(list(itertools.product(range(k), repeat=t)))
    log_prob = model.initial.log()[paths[:, 0]] + model.transition.log()[paths[:, :-1], paths[:, 1:]].sum(1)
    for s in range(t):
        if not x[s].isnan().any():
            log_prob = log_prob + model.emission.log_prob(x[s : s + 1])[0][paths[:, s]]
    return paths, log_prob


def sample_data(model: HMM, lengths: list[int]) -> list[torch.Tensor]:
    return [model.sample(1, t, generator(t))[1][0] for t in lengths]


EMISSIONS = {
    "gaussian": gaussians(),
    "label": Categoricals(torch.tensor([[0.5, 0.5, 0, 0], [0.1, 0.2, 0.3, 0.4], [0, 0, 0.9, 0.1]]).double()),
    "count": Poissons(torch.tensor([[1.0, 4], [3, 3], [9, 1]]).double()),
}


@pytest.mark.parametrize("kind", EMISSIONS)
def test_likelihood_posterior_and_viterbi_are_those_of_all_paths(kind: str):
    """Ragged sequences of length 1 to 7 with missing frames, by enumeration."""
    model = chain(EMISSIONS[kind])
    data = sample_data(model, [6, 1, 7, 2])
    data[0][2], data[2][0], data[2][6] = NAN, NAN, NAN
    log_prob, posterior, (path, best) = model.log_prob(data), model.posterior(data), model.viterbi(data)
    for i, x in enumerate(data):
        paths, each = every_path(model, x)
        assert log_prob[i].item() == pytest.approx(each.logsumexp(0).item(), abs=1e-10)
        weight = each.softmax(0)
        marginal = torch.stack([torch.nn.functional.one_hot(p, 3).double().T @ weight for p in paths.T])
        torch.testing.assert_close(posterior[i, : len(x)], marginal, rtol=0, atol=1e-10)
        assert best[i].item() == pytest.approx(each.max().item(), abs=1e-10)
        assert torch.equal(path[i, : len(x)], paths[each.argmax()])
        assert (path[i, len(x) :] == -1).all()


def test_the_umbrella_has_the_values_of_hmmlearns_own_test():
    model = HMM(
        torch.tensor([0.5, 0.5]),
        torch.tensor([[0.7, 0.3], [0.3, 0.7]]).double(),
        Categoricals(torch.tensor([[0.9, 0.1], [0.2, 0.8]]).double()),
    )
    seen = [torch.tensor([0, 0, 1, 0, 0])]
    assert model.log_prob(seen).item() == pytest.approx(-3.3725, rel=1e-4)
    path, log_prob = model.viterbi(seen)
    assert path.tolist() == [[0, 0, 1, 0, 0]] and log_prob.item() == pytest.approx(-4.4590, rel=1e-4)


@pytest.mark.parametrize("kind", EMISSIONS)
def test_the_entropy_that_q_lacks_is_that_of_all_paths(kind: str):
    model = chain(EMISSIONS[kind])
    data = sample_data(model, [5, 1, 4])
    data[2][1] = NAN
    statistics = model.expect(data)
    entropy = 0.0
    for x in data:
        weight = every_path(model, x)[1].softmax(0)
        entropy -= torch.xlogy(weight, weight).sum().item()
    gap = statistics.log_likelihood - model.expected_log_prob(statistics)
    assert gap.item() == pytest.approx(entropy, abs=1e-9)


def test_the_gradient_of_the_likelihood_is_that_of_q():
    """Fisher's identity, for logarithms of the probabilities and for the means."""
    base = chain(gaussians())
    data = sample_data(base, [6, 3])
    statistics = base.expect(data)
    log_a, mean = base.transition.log().requires_grad_(), base.emission.mean.clone().requires_grad_()
    model = HMM(base.initial, log_a.softmax(1), Gaussians(mean, base.emission.cov))
    a = torch.autograd.grad(model.log_prob(data).sum(), (log_a, mean), retain_graph=True)
    b = torch.autograd.grad(model.expected_log_prob(statistics), (log_a, mean))
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=1e-8)


@pytest.mark.parametrize("kind", EMISSIONS)
@pytest.mark.parametrize("seed", range(4))
def test_em_never_lowers_the_likelihood(kind: str, seed: int):
    truth = chain(EMISSIONS[kind], seed)
    data = sample_data(truth, [50, 1, 20, 2, 33])
    data[0][5:9] = NAN
    emission = EMISSIONS[kind]
    start = chain(gaussians(seed=seed + 9) if kind == "gaussian" else emission, seed + 50)
    fit = fit_em(start, data, steps=25, tolerance=0.0)
    for step, after in zip(fit.steps, fit.log_likelihoods[1:], strict=True):
        assert after - step.log_likelihood >= step.q_new - step.q - 1e-8 >= -2e-8


def test_em_of_several_sequences_has_no_transition_across_their_border():
    """Counts of a batch are the sums of those of each, and the steps of each are one fewer than its frames."""
    model = chain(gaussians())
    data = sample_data(model, [6, 1, 4])
    both, each = model.expect(data), [model.expect([x]) for x in data]
    torch.testing.assert_close(both.transition, sum(s.transition for s in each), rtol=0, atol=1e-12)
    torch.testing.assert_close(both.initial, sum(s.initial for s in each), rtol=0, atol=1e-12)
    assert both.transition.sum().item() == pytest.approx(5 + 0 + 3, abs=1e-10)
    assert both.sums.sums.n.sum().item() == pytest.approx(11, abs=1e-10)


def test_zeros_stay_and_ten_thousand_steps_of_unlikely_data_are_safe():
    """A left-to-right chain, far from its means: no underflow, no NaN, and zeros of the transition stay zero."""
    a = torch.tensor([[0.999, 0.001, 0], [0, 0.999, 0.001], [0, 0, 1]]).double()
    model = HMM(torch.tensor([1.0, 0, 0]), a, gaussians())
    data = pad_sequences([1e3 + normal(10_000, 2), normal(3, 2)])
    assert model.log_prob(data).isfinite().all()
    new = model.maximise(model.expect(data))
    assert (new.transition[a == 0] == 0).all() and new.initial.tolist() == [1, 0, 0]
    assert model.viterbi(data)[0][1].tolist()[:3] == sorted(model.viterbi(data)[0][1].tolist()[:3])


def test_missing_frames_at_the_end_change_nothing():
    model = chain(gaussians())
    (x,) = sample_data(model, [6])
    longer = torch.cat([x, torch.full((5, 2), NAN)])
    assert model.log_prob([longer]).item() == pytest.approx(model.log_prob([x]).item(), abs=1e-12)
    torch.testing.assert_close(model.posterior([longer])[:, :6], model.posterior([x]), rtol=0, atol=1e-12)


def test_samples_have_the_frequencies_of_the_chain():
    model = chain(EMISSIONS["label"])
    states, x = model.sample(40_000, 3, generator())
    p = model.initial @ model.transition @ model.transition
    share = torch.bincount(states[:, 2], minlength=3) / 40_000
    assert ((share - p).abs() < 4 * (p * (1 - p) / 40_000).sqrt()).all()
    label = torch.bincount(x[:, 2, 0].long(), minlength=4) / 40_000
    q = p @ model.emission.prob
    assert ((label - q).abs() < 4 * (q * (1 - q) / 40_000).sqrt()).all()


def test_bad_models_and_data_are_refused():
    with pytest.raises(ValueError, match="transition must be probabilities that sum to 1"):
        HMM(torch.ones(3) / 3, torch.ones(3, 3), gaussians())
    with pytest.raises(ValueError, match="3 emissions need initial"):
        HMM(torch.ones(2) / 2, torch.ones(2, 2) / 2, gaussians())
    model = chain(gaussians())
    with pytest.raises(ValueError, match="seen or missing as a whole"):
        model.log_prob([torch.tensor([[0.0, NAN]])])
    stuck = HMM(torch.tensor([1.0, 0]), torch.eye(2), Categoricals(torch.eye(2).double()))
    with pytest.raises(ValueError, match="probability 0 under the model"):
        stuck.log_prob([torch.tensor([0, 1])])
    with pytest.raises(ValueError, match="persistence lies"):
        HMM.start(gaussians(), persistence=1.5)
    assert HMM.start(gaussians(), persistence=0.8).transition.diag().tolist() == pytest.approx([0.8] * 3)
    assert math.isclose(HMM.start(Categoricals(torch.ones(1, 2).double() / 2)).transition.item(), 1)
