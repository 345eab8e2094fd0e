"""The first stage of latent diffusion: each part of its loss by hand, and one update however it is computed."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gen_core import Arrays, Loader, Trainer
from gen_core.runtime import generator, seed_all
from gen_core.testing import check_task, launch, train
from gen_core.testing import difference as apart
from gen_latent import (
    ConvDecoder,
    ConvEncoder,
    FirstStageTask,
    KLAutoEncoder,
    Normal,
    PatchDiscriminator,
    QuantizedAutoEncoder,
    VectorQuantizer,
    kl,
)


def kl_model() -> KLAutoEncoder:
    return KLAutoEncoder(ConvEncoder(1, 8, 4, width=8, spatial=1), ConvDecoder(1, 8, 2, width=8, spatial=1), latents=2)


def codes_model(decay: float | None = 0.8) -> QuantizedAutoEncoder:
    quantizer = VectorQuantizer(6, 2, decay=decay, revive_below=0.0 if decay is None else 2.0)
    encoder, decoder = ConvEncoder(1, 8, 2, width=8, spatial=1), ConvDecoder(1, 8, 2, width=8, spatial=1)
    return QuantizedAutoEncoder(encoder, decoder, quantizer, latents=2)


def edges(x: torch.Tensor) -> torch.Tensor:
    return x.diff(dim=-1)


def data() -> Loader:
    return Loader(Arrays(torch.rand(48, 1, 8, 8, generator=generator("pictures"), dtype=torch.float64) * 2 - 1), 12)


def make_kl():
    return FirstStageTask(kl_model(), PatchDiscriminator(1, 8), feature=edges, kl=1e-2, start=1, lr=1e-3), data()


def make_codes():
    return FirstStageTask(codes_model(), PatchDiscriminator(1, 8), feature=edges, start=1, lr=1e-3), data()


KINDS = pytest.mark.parametrize("make", [make_kl, make_codes], ids=["kl", "codes"])


# ---------------------------------------------------------------- the parts of the loss


def test_the_cost_of_a_gaussian_code_is_its_kl_divergence():
    seed_all(0)
    model, x, noise = kl_model().double(), torch.randn(3, 1, 8, 8).double(), torch.randn(3, 2, 4, 4).double()
    q = model.posterior(x)
    y, nats = model.parts(x, noise)
    unit = Normal(torch.zeros_like(q.mean), torch.ones_like(q.std))
    assert torch.allclose(nats, kl(q, unit).flatten(1).sum(1), atol=1e-12)
    assert torch.allclose(y, model.decoder(q.mean + q.std * noise), atol=1e-12)
    assert torch.equal(model.encode(x), q.mean)
    model.fit_scale(x)
    assert torch.allclose(model.decode(model.encode(x)), model(x), atol=1e-10)
    with pytest.raises(ValueError, match="gave 4 channels for latents=4; it has to give twice as many"):
        KLAutoEncoder(model.encoder, model.decoder, latents=4).posterior(x)


@KINDS
def test_the_loss_is_the_sum_of_its_parts(make):
    seed_all(0)
    task, x, noise = make()[0].double(), torch.randn(3, 1, 8, 8).double(), torch.randn(3, 2, 4, 4).double()
    task.balance.fill_(0.7)
    if isinstance(task.model, KLAutoEncoder):
        given, (y, nats) = (x, noise), task.model.parts(x, noise)
        cost = 1e-2 * nats / 64
    else:
        given, (y, codes) = (x,), task.model.parts(x)
        cost = codes.loss
    reconstruction, feature = (x - y).abs().mean(), (edges(x) - edges(y)).square().mean()
    adversarial = -task.discriminator(y).mean()
    quiet = reconstruction + feature + cost.mean()
    assert torch.allclose(task.loss(*given, playing=False), quiet, atol=1e-12)
    assert torch.allclose(task.loss(*given), quiet + 0.5 * 0.7 * adversarial, atol=1e-12)
    real, fake = task.discriminator(x), task.discriminator(y)
    assert torch.allclose(task.d_loss(*given), F.relu(1 - real).mean() + F.relu(1 + fake).mean(), atol=1e-12)
    values = task.eval().evaluate(x)
    assert set(values) == {"loss", "reconstruction", "feature", "cost"}
    assert torch.allclose(values["loss"], values["reconstruction"] + values["feature"] + values["cost"])
    assert torch.allclose(values["reconstruction"], (x - task.model(x)).abs().flatten(1).mean(1), atol=1e-12)


class Watch(FirstStageTask):
    """Keeps what a step was given and the weights that it began with."""

    def loss(self, x, *noise, playing=True):
        self.given = (x, *noise)
        self.before = {k: v.clone() for k, v in self.state_dict().items()}
        return super().loss(x, *noise, playing=playing)


def test_lambda_is_the_ratio_of_the_gradients_of_the_step_before():
    """[Esser21] eq. 7 at the decoder's last convolution, over a whole batch."""
    seed_all(0)
    task = Watch(kl_model(), PatchDiscriminator(1, 8), feature=edges, start=2)
    pictures = Loader(Arrays(torch.rand(48, 1, 8, 8)), 12)
    trainer = Trainer(task, device="cpu", precision="fp32")
    discriminator = {k: v.clone() for k, v in task.discriminator.state_dict().items()}
    trainer.fit(pictures, 2)
    assert task.balance == 0  # not yet playing, and the discriminator rests
    assert all(torch.equal(v, discriminator[k]) for k, v in task.discriminator.state_dict().items())
    trainer.fit(pictures, 3)
    task.balance.copy_(settled := task.balance.clone())
    assert task.before["balance"] == 0
    x, noise = task.given
    again = FirstStageTask(kl_model(), PatchDiscriminator(1, 8), feature=edges)
    again.load_state_dict(task.before)
    y, _ = again.model.parts(x, noise)
    last = again.model.decoder.body[-1].weight
    likeness = (x - y).abs().mean() + (edges(x) - edges(y)).square().mean()
    (a,) = torch.autograd.grad(likeness, last, retain_graph=True)
    (b,) = torch.autograd.grad(-again.discriminator(y).mean(), last)
    assert torch.allclose(settled, a.norm() / (b.norm() + 1e-6), rtol=1e-5)
    trainer.fit(pictures, 4)
    assert task.before["balance"] == settled  # what the next step used


def test_lambda_is_bounded():
    task = make_kl()[0]
    task._settle(torch.stack([torch.ones_like(task.pulls[0]), torch.zeros_like(task.pulls[0])]))
    assert task.balance == 1e4
    task._settle(torch.full_like(task.pulls, torch.nan))
    assert task.balance == 1e4  # that of the step before


def test_each_player_moves_alone_and_codes_are_counted_once():
    seed_all(0)
    task = FirstStageTask(codes_model(), PatchDiscriminator(1, 8))
    pictures, counted, changed = Loader(Arrays(torch.rand(48, 1, 8, 8)), 12), [], {}
    trainer = Trainer(task, device="cpu", precision="fp32", micro_batch=5)
    plain, minimize = task.model.quantizer.update, trainer.minimize

    def update(*args):
        counted.append(task.model.quantizer.seen_counts.sum().item())
        plain(*args)

    def watched(name, *args):
        before = {k: v.clone() for k, v in task.named_parameters()}
        value = minimize(name, *args)
        changed[name] = {k.split(".")[0] for k, v in task.named_parameters() if not torch.equal(v, before[k])}
        return value

    task.model.quantizer.update, trainer.minimize = update, watched
    trainer.fit(pictures, 2)
    assert counted == [12 * 16, 12 * 16]
    assert task.model.quantizer.seen_counts.sum() == 0  # the discriminator's look was not counted
    assert changed == {"ae": {"model"}, "d": {"discriminator"}}


# ---------------------------------------------------------------- however it is computed


@KINDS
def test_it_is_a_task(make):
    """Exact resume in mid-training, micro-batches."""
    check_task(make, only=("resume", "micro"))


def run_codes(steps: int):
    return train(make_codes, steps)


@pytest.mark.slow
@KINDS
def test_two_processes_are_as_one(make):
    check_task(make, only=("world",))


@pytest.mark.slow
def test_codes_and_lambda_are_alike_on_all_processes():
    one, other = launch(2, run_codes, 5)
    tensors = lambda r: {part: {k: torch.as_tensor(v) for k, v in r[part].items()} for part in r}
    assert apart(tensors(one), tensors(other))[0] == 0
    assert one["state"]["balance"] > 0


def test_one_step_in_bf16_is_near_single_precision():
    check_task(make_kl, only=("bf16",))


# ---------------------------------------------------------------- the discriminator, errors


def test_a_patch_is_judged_by_itself():
    """Each halving halves the map, and a logit far away does not see a changed corner but through the norms' sums."""
    for halvings in (1, 2, 3):
        assert PatchDiscriminator(3, 8, halvings)(torch.zeros(2, 3, 32, 32)).shape == (2, *[32 // 2**halvings] * 2)
    body = nn.Sequential(*[m for m in PatchDiscriminator(3, 8).body if not isinstance(m, nn.GroupNorm)])
    x = torch.zeros(1, 3, 32, 32).requires_grad_()
    (seen,) = torch.autograd.grad(body(x)[0, 0, 4, 4], x)
    rows = seen.abs().sum((0, 1, 3)).nonzero()
    assert 16 < len(rows) < 32


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="cannot be negative, got -1"):
        FirstStageTask(kl_model(), PatchDiscriminator(1, 8), kl=-1.0)
    with pytest.raises(ValueError, match="halves its picture at least once, got halvings=0"):
        PatchDiscriminator(1, 8, 0)
    with pytest.raises(ValueError, match="no weight to measure gradients at"):
        FirstStageTask(KLAutoEncoder(nn.Identity(), nn.Identity(), 2), PatchDiscriminator(1, 8))
    resting = FirstStageTask(kl_model(), PatchDiscriminator(1, 8), lr=1e-3, d_lr=0.0).optimizers()
    assert [resting[name].param_groups[0]["lr"] for name in ("ae", "d")] == [1e-3, 0.0]
    task = FirstStageTask(kl_model(), nn.Flatten(0))
    with pytest.raises(ValueError, match="the discriminator gave logits of shape"):
        task._judge(torch.zeros(2, 1, 8, 8))
