"""EM of mixtures and factor models beside scikit-learn and closed forms."""

import pytest
import torch
from sklearn.datasets import load_digits, load_iris
from sklearn.decomposition import PCA
from sklearn.decomposition import FactorAnalysis as SklearnFactors
from sklearn.mixture import GaussianMixture

from gen_latent import (
    Categoricals,
    FactorAnalysis,
    Gaussians,
    LikelihoodFell,
    MixtureModel,
    Poissons,
    em_steps,
    fit_em,
    ppca,
)
from gen_latent.regression import at_least

KINDS = {"full": "full", "diagonal": "diag", "spherical": "spherical", "tied": "tied"}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def iris() -> torch.Tensor:
    return torch.from_numpy(load_iris().data).double()


def digits(d: int) -> torch.Tensor:
    return torch.from_numpy(PCA(d).fit_transform(load_digits().data / 16)).double()


@pytest.mark.parametrize("kind", KINDS)
def test_em_of_a_mixture_equals_scikit_learn(kind):
    """From the same start, 20 steps without a floor end at the same parameters, densities and posteriors."""
    x, k = digits(5), 6
    start = MixtureModel.start(Gaussians.start(x, k, covariance=kind, floor=0.0, generator=generator()))
    cov = start.emission.cov
    precision = {
        "full": cov.inverse(),
        "diagonal": 1 / cov.diagonal(dim1=1, dim2=2),
        "spherical": 1 / cov[:, 0, 0],
        "tied": cov[0].inverse(),
    }
    peer = GaussianMixture(
        k,
        covariance_type=KINDS[kind],
        reg_covar=0,
        tol=0.0,
        max_iter=20,
        weights_init=start.weight.numpy(),
        means_init=start.emission.mean.numpy(),
        precisions_init=precision[kind].numpy(),
    )
    with pytest.warns(UserWarning):  # it takes all steps
        peer.fit(x.numpy())
    fit = fit_em(start, x, steps=20, tolerance=0.0)
    assert len(fit.steps) == 20
    torch.testing.assert_close(fit.model.weight, torch.from_numpy(peer.weights_), rtol=0, atol=1e-8)
    torch.testing.assert_close(fit.model.emission.mean, torch.from_numpy(peer.means_), rtol=0, atol=1e-8)
    torch.testing.assert_close(
        fit.model.log_prob(x), torch.from_numpy(peer.score_samples(x.numpy())), rtol=0, atol=1e-8
    )
    torch.testing.assert_close(
        fit.model.posterior(x), torch.from_numpy(peer.predict_proba(x.numpy())), rtol=0, atol=1e-8
    )


def test_each_step_raises_the_likelihood_by_at_least_what_it_raises_q():
    """ln p = Q + entropy of the posterior; the difference of the rises is a KL divergence."""
    x = iris()
    for seed in range(5):
        fit = fit_em(MixtureModel.start(Gaussians.start(x, 3, generator=generator(seed))), x, steps=30)
        for step, after in zip(fit.steps, fit.log_likelihoods[1:], strict=True):
            assert after - step.log_likelihood >= step.q_new - step.q - 1e-9 >= -2e-9
            posterior = step.model.posterior(x)
            assert step.entropy == pytest.approx(-torch.xlogy(posterior, posterior).sum().item(), abs=1e-8)


def test_a_floor_keeps_em_exact_where_a_component_shrinks_to_a_point():
    """Duplicate points without a floor have no largest likelihood; with one EM rises to a finite one and says so."""
    x = torch.cat([torch.zeros(5, 2), torch.randn(30, 2, generator=generator()) + 4]).double()
    start = Gaussians.start(x, 2, floor=1e-6)
    start = MixtureModel.start(Gaussians(torch.tensor([[0.0, 0], [4, 4]]).double(), start.cov, floor=1e-6))
    fit = fit_em(start, x, tolerance=0.0, steps=50)
    assert fit.model.emission.at_floor.tolist() == [True, False]
    assert fit.smallest_rise > -1e-9 * abs(fit.log_likelihood)
    without = MixtureModel(start.weight, Gaussians(start.emission.mean, start.emission.cov, floor=0.0))
    with pytest.raises(ValueError, match="not positive definite; add some variance"):
        fit_em(without, x, steps=50)


def test_clipped_eigenvalues_are_the_best_covariance_above_a_floor():
    """No other covariance with eigenvalues of at least the floor has a larger expected log-likelihood."""
    g = generator()
    s = torch.randn(3, 3, generator=g, dtype=torch.float64)
    s = s @ s.T * torch.tensor(0.3)

    def value(c):
        return -torch.logdet(c) - (s @ torch.linalg.inv(c)).trace()

    best = at_least(s, 0.2)
    assert torch.linalg.eigvalsh(s)[0] < 0.2 <= torch.linalg.eigvalsh(best)[0] + 1e-12
    for _ in range(200):
        step = torch.randn(3, 3, generator=g, dtype=torch.float64)
        other = at_least(best + 0.1 * (step + step.T), 0.2)
        assert value(other) <= value(best) + 1e-12


def test_a_component_that_no_point_belongs_to_stays_and_weighs_nothing():
    x = iris()
    far = Gaussians(torch.stack([x.mean(0), x.mean(0) + 1e6]), torch.eye(4).double().expand(2, 4, 4))
    fit = fit_em(MixtureModel.start(far), x, steps=3)
    assert fit.model.weight.tolist() == [1, 0]
    torch.testing.assert_close(fit.model.emission.mean[1], far.mean[1])
    assert fit.model.log_prob(x).isfinite().all()


def test_a_wrong_m_step_raises():
    class Wrong(MixtureModel):
        def maximise(self, statistics):
            better = super().maximise(statistics)
            return Wrong(better.weight.flip(0), better.emission)

    x = iris()
    start = fit_em(MixtureModel.start(Gaussians.start(x, 2, generator=generator())), x, steps=5).model
    with pytest.raises(LikelihoodFell, match="Q, the expected complete-data log-likelihood, fell"):
        fit_em(Wrong(start.weight, start.emission), x)


def test_a_wrong_e_step_raises():
    class Wrong(MixtureModel):
        def expect(self, data):
            s = super().expect(data)
            return s._replace(log_likelihood=-s.log_likelihood)

        def maximise(self, statistics):
            better = super().maximise(statistics)
            return Wrong(better.weight, better.emission)

    x = iris()
    start = MixtureModel.start(Gaussians.start(x, 2, generator=generator()))
    with pytest.raises(LikelihoodFell, match="the log-likelihood fell"):
        fit_em(Wrong(start.weight, start.emission), x)


def test_em_stops_at_the_tolerance_and_says_so():
    x = iris()
    start = MixtureModel.start(Gaussians.start(x, 2, generator=generator()))
    fit = fit_em(start, x, steps=1000, tolerance=1e-4)
    assert fit.converged and fit.log_likelihoods[-1] - fit.log_likelihoods[-2] < 1e-4
    assert not fit_em(start, x, steps=2).converged
    with pytest.raises(ValueError, match="at least one step"):
        fit_em(start, x, steps=0)


def test_far_from_zero_the_covariance_is_as_accurate():
    """Sums of squares around 0 would lose 12 digits at 1e6."""
    x = iris()
    start = Gaussians.start(x, 3, generator=generator())
    near = fit_em(MixtureModel.start(start), x, steps=10, tolerance=0.0)
    moved = Gaussians(start.mean + 1e6, start.cov)
    far = fit_em(MixtureModel.start(moved), x + 1e6, steps=10, tolerance=0.0)
    torch.testing.assert_close(far.model.emission.cov, near.model.emission.cov, rtol=1e-5, atol=1e-7)


def test_samples_have_the_moments_of_the_mixture():
    x = iris()
    model = fit_em(MixtureModel.start(Gaussians.start(x, 3, generator=generator())), x).model
    y = model.sample(100_000, generator())
    error = (y.var(0) / len(y)).sqrt()
    assert ((y.mean(0) - x.mean(0)).abs() < 4 * error).all()  # EM keeps the mean of the data
    torch.testing.assert_close(y.T.cov(), x.T.cov(correction=0), atol=0.05, rtol=0.05)


@pytest.mark.parametrize("q", [1, 3, 10])
def test_ppca_is_scikit_learns_and_what_em_converges_to(q):
    x = torch.from_numpy(load_digits().data[:500, 2:30] / 16).double()
    exact = ppca(x, q, floor=0.0)
    n = len(x)
    peer = PCA(q).fit(x.numpy())  # its covariance has n - 1
    scaled = FactorAnalysis(exact.mean, exact.loadings * (n / (n - 1)) ** 0.5, exact.noise * n / (n - 1))
    torch.testing.assert_close(scaled.log_prob(x), torch.from_numpy(peer.score_samples(x.numpy())), rtol=0, atol=1e-8)
    fit = fit_em(FactorAnalysis.start(x, q, isotropic=True, generator=generator()), x, steps=2000, tolerance=1e-9)
    assert fit.log_likelihood == pytest.approx(exact.log_prob(x).sum().item(), abs=1e-4)
    assert fit.log_likelihood <= exact.log_prob(x).sum().item() + 1e-8


def test_factor_analysis_reaches_scikit_learns_likelihood():
    g = generator()
    x = torch.randn(500, 2, generator=g) @ torch.randn(2, 6, generator=g) + torch.randn(500, 6, generator=g)
    x = x.double()
    peer = SklearnFactors(2, tol=1e-9, max_iter=5_000, svd_method="lapack").fit(x.numpy())
    same = FactorAnalysis(*map(torch.from_numpy, (peer.mean_, peer.components_.T.copy(), peer.noise_variance_)))
    torch.testing.assert_close(same.log_prob(x), torch.from_numpy(peer.score_samples(x.numpy())), rtol=0, atol=1e-8)
    torch.testing.assert_close(same.posterior(x)[0], torch.from_numpy(peer.transform(x.numpy())), rtol=0, atol=1e-8)
    fit = fit_em(FactorAnalysis.start(x, 2, floor=0.0, generator=g), x, steps=5_000, tolerance=1e-9)
    assert fit.log_likelihood == pytest.approx(same.log_prob(x).sum().item(), abs=1e-5)
    assert fit.smallest_rise > -1e-9 * abs(fit.log_likelihood)


def test_the_entropy_of_factors_is_that_of_their_posterior():
    """ln p - Q = n/2 ln det(2 pi e cov): the check of every term of Q."""
    x = iris()
    for isotropic in (False, True):
        for step, _ in zip(em_steps(FactorAnalysis.start(x, 2, isotropic=isotropic), x), range(3), strict=False):
            cov = step.model.posterior(x)[1]
            want = len(x) / 2 * torch.logdet(2 * torch.pi * torch.e * cov)
            assert step.entropy == pytest.approx(want.item(), abs=1e-7)


def test_a_constant_dimension_needs_the_floor():
    x = torch.cat([iris(), torch.ones(150, 1)], 1)
    fit = fit_em(FactorAnalysis.start(x, 2, floor=1e-4, generator=generator()), x, steps=50)
    assert fit.model.noise[-1] == 1e-4 and fit.smallest_rise > -1e-9 * abs(fit.log_likelihood)


def test_mixtures_of_labels_and_counts_rise_to_the_likelihood_of_one_component():
    """With one component EM is the maximum likelihood estimate after one step."""
    labels = torch.tensor([0, 1, 1, 2, 2, 2]).double()
    fit = fit_em(MixtureModel.start(Categoricals.start(1, 4)), labels, steps=2, tolerance=0.0)
    torch.testing.assert_close(fit.model.emission.prob, torch.tensor([[1, 2, 3, 0]]).double() / 6)
    counts = torch.poisson(torch.tensor([[2.0, 7.0]]).expand(200, 2), generator=generator())
    start = MixtureModel.start(Poissons(torch.tensor([[1.0, 1], [3, 9]]).double()))
    two = fit_em(start, counts, steps=100)
    assert two.smallest_rise > -1e-9 * abs(two.log_likelihood)
    weighted = two.model.weight @ two.model.emission.rate
    torch.testing.assert_close(weighted, counts.double().mean(0), rtol=1e-8, atol=0)  # EM keeps the mean


def test_bad_data_are_refused():
    x = iris()
    with pytest.raises(ValueError, match="3 components need as many different points, and the data have 2"):
        Gaussians.start(torch.tensor([[0.0, 1], [0, 1], [2, 2]]), 3)
    with pytest.raises(ValueError, match="drop rows with NaN"):
        MixtureModel.start(Gaussians.start(x, 2)).log_prob(x.masked_fill(x > 7, torch.nan))
    with pytest.raises(ValueError, match="1 <= q < dimensions"):
        ppca(x, 4)
    with pytest.raises(ValueError, match="whole numbers from 0 to 2"):
        MixtureModel.start(Categoricals.start(2, 3)).log_prob(torch.tensor([0.0, 3.0]))
    with pytest.raises(ValueError, match="counts are whole numbers"):
        MixtureModel.start(Poissons(torch.ones(1, 1).double())).log_prob(torch.tensor([-1.0]))
