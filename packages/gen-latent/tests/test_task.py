import pytest
import torch

from gen_core import Arrays, Loader, Step, Trainer, seed_all
from gen_core.runtime import generator as keyed
from gen_core.testing import check_task, difference, launch, train
from gen_latent import (
    MLP,
    VAE,
    AutoEncoder,
    AutoEncoderTask,
    Gaussian,
    HierarchicalVAE,
    Level,
    Mixture,
    QuantizedAutoEncoder,
    VAETask,
    Vamp,
    VectorQuantizer,
    elbo,
    kl_terms,
)


def data(batch=12):
    x = torch.rand(48, 6, generator=keyed("x"), dtype=torch.float64)
    label = torch.randint(3, (48,), generator=keyed("y"))
    return Loader(Arrays(x, label), batch)


class Plain(VAETask):
    """By steps of the gradient itself, so that a difference of weights is one of gradients."""

    def optimizers(self):
        return {"net": torch.optim.SGD(self.parameters(), lr=1.0)}


def vae(task=VAETask, **options):
    conditional = options.pop("conditional", False)
    prior = options.pop("prior", None)
    classes = 3 if conditional else 0
    encoder = MLP(6, 8, 4, classes=classes)
    if prior == "vamp":
        options["lr"] = 1e-3
        prior = Vamp(encoder, torch.rand(4, 6))
    elif prior == "mixture":
        prior = Mixture(2, 3)
    model = VAE(encoder, MLP(2, 8, 6, classes=classes), latents=2, prior=prior, likelihood=Gaussian(0.5))
    return task(model, conditions=("label",) if conditional else (), **options), data()


def elbo_task():
    return vae(beta=lambda step: min(1.0, (step + 1) / 4), free_bits=0.1, conditional=True)


def iwae_task():
    return vae(objective="iwae", k=5, prior="vamp")


def dreg_task():
    return vae(objective="dreg", k=5)


def mixture_task():
    return vae(prior="mixture", beta=0.5, k=2)


def tc_task():
    return vae(objective="tc", beta=4.0, samples=48)


def hierarchy_task():
    levels = [Level(3, MLP(6, 8), MLP(8 + 2, 6), MLP(2, 6)), Level(2, MLP(8, 5), MLP(5, 4))]
    return VAETask(HierarchicalVAE(levels, MLP(3, 6), likelihood=Gaussian(0.5)), beta=0.5), data()


def plain_elbo():
    return vae(Plain, k=2, conditional=True)


def plain_dreg():
    return vae(Plain, objective="dreg", k=5, prior="mixture")


def plain_iwae():
    return vae(Plain, objective="iwae", k=5)


def denoise_task():
    hide = lambda u, x: torch.arange(6, device=x.device) / 6 >= u[:, None] / 2
    return AutoEncoderTask(AutoEncoder(MLP(6, 8, 2), MLP(2, 8, 6), 2), noise=0.2, mask=hide), data()


def test_a_vae_task_conforms():
    """Conditional, with a beta that grows and free bits: exact resume, micro-batches, bf16; two processes below."""
    check_task(elbo_task, only=("resume", "micro", "bf16"))


def test_a_denoising_task_conforms():
    check_task(denoise_task, only=("resume", "micro", "bf16"))


@pytest.mark.parametrize("make", [iwae_task, dreg_task, mixture_task, hierarchy_task])
def test_the_other_objectives_conform(make):
    check_task(make, only=("resume", "micro", "bf16"))


@pytest.mark.parametrize("make", [plain_elbo, plain_dreg, plain_iwae])
def test_micro_batches_leave_the_gradient_as_it_is(make):
    whole = train(make, 1)
    for rows in (1, 5):
        assert difference(train(make, 1, micro_batch=rows), whole)[0] < 1e-12


def gradients_of_two():
    """The weights after one step of the gradient on two processes, for each objective."""
    return {make.__name__: train(make, 1) for make in (plain_elbo, plain_dreg, plain_iwae)}


def test_two_processes_have_the_gradient_of_one():
    for name, result in launch(2, gradients_of_two)[0].items():
        apart, where = difference(result, train(globals()[name], 1))
        assert apart < 1e-12, f"{name}: {where} differs by {apart}"


def given(k, seed=0):
    seed_all(seed)
    g = keyed("given")
    return torch.rand(7, 6, generator=g), torch.randn(7, k, 2, generator=g)


@torch.no_grad()
def test_the_losses_are_their_formulas():
    """Of k draws: the analytic KL or the sampled one times beta, the bounds, the weighted total correlation."""
    x, noise = given(3)
    for options in ({}, {"prior": "mixture"}, {"objective": "tc", "samples": 48}):
        task, _ = vae(k=3, **options)
        model = task.model
        z, log_q = model.infer(x, 3, noise=noise.movedim(1, 0))
        likelihood, q = model.log_likelihood(x, z).mean(), model.encode(x)
        if options == {}:
            cost = 2.5 * model.kl(x).sum(1).mean()
        elif "prior" in options:
            cost = 2.5 * (log_q - model.prior.log_prob(z)).mean()
        else:
            terms = kl_terms(q, z[0], 48)
            cost = terms.index_code + 2.5 * terms.total_correlation + terms.dimension_wise
        torch.testing.assert_close(task.loss(x, noise, beta=2.5), cost - likelihood)


def test_a_step_weighs_by_the_beta_of_its_number():
    x, noise = given(1)

    class Third(Step):
        step = 2

        def randn(self, *shape):
            return noise

        def minimize(self, name, loss, *batch):
            return loss(*batch)

    task, _ = vae(beta=lambda step: 10.0 * step, free_bits=0.2)
    losses = [task.loss(x, noise, beta=beta).item() for beta in (1.0, 20.0)]
    assert task.step(x, Third())["loss"].item() == pytest.approx(losses[1]) != losses[0]


@torch.no_grad()
def test_an_auto_encoder_sees_what_is_left_and_is_judged_by_what_was_there():
    """The corruption, the squared error, the cost of codes and the distance of features, by hand."""
    x, _ = given(1)
    noise, u = torch.randn(7, 6), torch.rand(7)
    hide = lambda u, x: torch.arange(6) / 6 >= u[:, None] / 2
    feature = lambda x: x[:, :2] ** 2
    quantizer = VectorQuantizer(5, 2)
    model = QuantizedAutoEncoder(MLP(6, 8, 2), MLP(2, 8, 6), quantizer, 2)
    model.quantize = lambda z: quantizer(z[:, None])  # vectors have no map: one vector a sample
    task = AutoEncoderTask(model, noise=0.3, mask=hide, feature=feature).eval()
    seen = torch.where(hide(u, x), x + 0.3 * noise, torch.zeros(()))
    assert torch.equal(task._corrupt(x, lambda x: noise, lambda n: u), seen)
    y, codes = model.parts(seen)
    each = (y - x).square().mean(1) + codes.loss + (feature(y) - feature(x)).square().mean(1)
    torch.testing.assert_close(task.loss(x, seen), each.mean())
    assert (codes.loss > 0).all()
    seed_all(3)
    judged = task.evaluate(x)["loss"]
    seed_all(3)
    torch.testing.assert_close(judged, task._losses(x, task._corrupt(x, torch.randn_like, torch.rand)))
    assert not torch.allclose(judged, task._losses(x, x))


def test_the_total_correlation_is_of_a_whole_batch():
    check_task(tc_task, only=("resume", "bf16"))
    with pytest.raises(ValueError, match="whole batch; train on one process without micro_batch"):
        train(tc_task, 1, micro_batch=3)


def test_the_validation_loss_is_minus_the_elbo_whatever_the_warm_up():
    task, loader = elbo_task()
    batch = next(iter(loader.batches()))
    x, label = batch[0].float(), batch[1]
    seed_all(5)
    values = task.evaluate((x, label))
    seed_all(5)
    torch.testing.assert_close(values["loss"], -elbo(task.model.log_weights(x, 1, label=label)))
    assert values["kl"].shape == (12,)


def test_training_says_its_deviation_and_refuses_grey_levels_for_binary_data():
    task, loader = elbo_task()
    curve = train(elbo_task, 2)["curve"]
    assert set(curve) == {"loss", "sigma"} and (curve["sigma"] > 0).all()
    task = VAETask(VAE(MLP(6, 4), MLP(2, 6), latents=2))
    with pytest.raises(ValueError, match="0s and 1s"):
        seed_all(0)
        Trainer(task.double(), device="cpu", precision="fp32").fit(loader, 1)
    with pytest.raises(ValueError, match="0s and 1s"):
        task.float().evaluate(torch.full((3, 6), 0.5))


def test_options_that_would_do_nothing_are_refused():
    model = lambda **options: VAE(MLP(6, 4), MLP(2, 6), latents=2, **options)
    with pytest.raises(ValueError, match="beta weighs a KL, which iwae does not have"):
        VAETask(model(), "iwae", beta=4.0)
    with pytest.raises(ValueError, match=r"free_bits=0.5 is of the elbo objective"):
        VAETask(model(prior=Mixture(2, 3)), free_bits=0.5)
    with pytest.raises(ValueError, match="needs samples"):
        VAETask(model(), "tc")
    with pytest.raises(ValueError, match="samples=48 is of the tc objective"):
        VAETask(model(), samples=48)
    with pytest.raises(ValueError, match="got k=0"):
        VAETask(model(), k=0)
    with pytest.raises(ValueError, match="a hierarchy is trained by the elbo or iwae objective, got dreg"):
        VAETask(hierarchy_task()[0].model, "dreg")
    with pytest.raises(ValueError, match="cannot be negative, got -1"):
        AutoEncoderTask(AutoEncoder(MLP(6, 2), MLP(2, 6), 2), noise=-1.0)
