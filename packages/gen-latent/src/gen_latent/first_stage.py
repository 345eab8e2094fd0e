"""The first stage of latent diffusion: auto-encoders whose pictures look real, of few numbers or of few codes.

    model = KLAutoEncoder(ConvEncoder(3, 32, 8, spatial=2), ConvDecoder(3, 32, 4, spatial=2), latents=4)
    task = FirstStageTask(model, PatchDiscriminator(3), feature=frozen(network), start=10_000)
    Trainer(task).fit(pictures, steps=100_000)
    model.fit_scale(pictures)                  # now `encode` answers with latents for a diffusion model

What is reconstructed is judged by its absolute error, by a distance of features where there are some, and by a
discriminator whose share is such that it pulls as hard as the other two.

[Esser21] Taming transformers for high-resolution image synthesis, arXiv:2012.09841.
[Rombach22] High-resolution image synthesis with latent diffusion models, arXiv:2112.10752.
[Isola17] Image-to-image translation with conditional adversarial networks, arXiv:1611.07004.
"""

from collections.abc import Callable
from itertools import pairwise
from math import gcd, prod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gen_core.description import describable
from gen_core.step import Step
from gen_core.task import Task, evaluating, unpack
from gen_latent.autoencoder import AutoEncoder, QuantizedAutoEncoder
from gen_latent.distributions import Normal, kl_standard, wide
from gen_latent.gan import hinge


@describable
class KLAutoEncoder(AutoEncoder):
    """An auto-encoder whose code is a Gaussian, held near N(0, I) by a small weight ([Rombach22] section 3.1).

    `encode` answers with the mean; `posterior(x).sample()` is a draw.

    Args:
        encoder: x -> "b 2d ...", the mean and the logarithm of the standard deviation of each latent.
        decoder: "b d ..." -> x.
        latents: d.
    """

    def posterior(self, x: Float[Tensor, "b ..."]) -> Normal:
        """q(z | x), its standard deviation within e^-15 and e^10."""
        parameters = wide(self.encoder(x))
        if parameters.shape[1] != 2 * self.latents:
            raise ValueError(
                f"the encoder gave {parameters.shape[1]} channels for latents={self.latents}; it has to give twice as "
                "many as latents, for a mean and a log-deviation each"
            )
        mean, log_std = parameters.chunk(2, 1)
        return Normal(mean, log_std.clamp(-15, 10).exp())

    def features(self, x: Float[Tensor, "b ..."]) -> Float[Tensor, "b d ..."]:
        """The mean of the latents."""
        return self.posterior(x).mean

    def parts(
        self, x: Float[Tensor, "b ..."], noise: Float[Tensor, "b d ..."]
    ) -> tuple[Float[Tensor, "b ..."], Float[Tensor, "b"]]:
        """The reconstruction of a draw of the latents, and KL(q(z | x) | N(0, I)) in nats."""
        q = self.posterior(x)
        return self.restore(q.at(noise)), kl_standard(q).flatten(1).sum(1)


@describable
class PatchDiscriminator(nn.Module):
    """A logit for each patch of a picture, by strided convolutions ([Isola17]), with GroupNorm for BatchNorm.

    Args:
        channels: of the pictures.
        width: features after the first halving; doubled at each, up to eight times.
        halvings: of the picture; each more than doubles the patch that a logit sees.
    """

    def __init__(self, channels: int, width: int = 64, halvings: int = 2):
        if halvings < 1:
            raise ValueError(f"a patch discriminator halves its picture at least once, got halvings={halvings}")
        c = [width * min(2**i, 8) for i in range(halvings)]
        layers: list[nn.Module] = [nn.Conv2d(channels, c[0], 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for a, b in pairwise(c):
            layers += [nn.Conv2d(a, b, 4, stride=2, padding=1), nn.GroupNorm(gcd(b, 8), b), nn.LeakyReLU(0.2)]
        layers += [nn.Conv2d(c[-1], c[-1], 3, padding=1), nn.GroupNorm(gcd(c[-1], 8), c[-1]), nn.LeakyReLU(0.2)]
        super().__init__()
        self.body = nn.Sequential(*layers, nn.Conv2d(c[-1], 1, 3, padding=1))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b h2 w2"]:
        return self.body(x)[:, 0]


class FirstStageTask(Task):
    """Reconstruction, a regularised code, and a discriminator: [Esser21] section 3.1 and [Rombach22] appendix G.

    The auto-encoder minimises |x - y| + |f(x) - f(y)|^2 + cost - weight lambda D(y), each a mean over the numbers of a
    sample; D the hinge loss. lambda = |grad of the first two| / (|grad of D(y)| + 1e-6), at the decoder's last layer
    and at most 10^4 ([Esser21] eq. 7), is measured in each step over the whole batch and used in the next, from 0 on:
    so it costs no pass of its own and is the same in micro-batches and on several processes.

    Args:
        model: a `KLAutoEncoder`, whose cost is `kl` times its KL divergence in nats per number of x, or a
            `QuantizedAutoEncoder`, whose cost is that of its codes.
        discriminator: x -> logits, "b" or one for each patch, "b h w"; it must not mix samples.
        feature: x -> features, of a frozen network for instance.
        start: the first step in which the discriminator takes part and is trained.
        weight: of the adversarial loss, on top of lambda.
        last: the weight at which lambda is measured; by default the decoder's last one of two or more dimensions.
    """

    def __init__(
        self,
        model: KLAutoEncoder | QuantizedAutoEncoder,
        discriminator: nn.Module,
        *,
        feature: Callable[[Tensor], Tensor] | None = None,
        kl: float = 1e-6,
        start: int = 0,
        weight: float = 0.5,
        last: nn.Parameter | None = None,
        lr: float = 2e-4,
        d_lr: float | None = None,
        betas: tuple[float, float] = (0.5, 0.9),
    ):
        super().__init__()
        if kl < 0 or weight < 0 or start < 0:
            raise ValueError(f"kl, weight and start cannot be negative, got {kl}, {weight} and {start}")
        self.model, self.discriminator, self.kl, self.start, self.weight = model, discriminator, kl, start, weight
        self.lr, self.d_lr, self.betas = lr, lr if d_lr is None else d_lr, betas
        self._feature = [feature]  # in a list, so that a network is no part of this one's weights
        matrices = [p for p in model.decoder.parameters() if p.ndim >= 2] if last is None else [last]
        if not matrices:
            raise ValueError("the decoder has no weight to measure gradients at; name one as last=")
        self._last = [matrices[-1]]
        self.balance = nn.Buffer(torch.zeros(()))  # lambda
        self.pulls = nn.Buffer(torch.zeros(2, *matrices[-1].shape), persistent=False)  # sums over this step's samples
        self._shapes: dict[tuple[int, ...], tuple[int, ...]] = {}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {
            "ae": torch.optim.Adam(self.model.parameters(), lr=self.lr, betas=self.betas, fused=True),
            "d": torch.optim.Adam(self.discriminator.parameters(), lr=self.d_lr, betas=self.betas, fused=True),
        }

    def step(self, batch: Any, t: Step) -> dict[str, Tensor]:
        (x,) = unpack(batch)
        given = (x, t.randn(len(x), *self._shape(x), dtype=x.dtype)) if isinstance(self.model, KLAutoEncoder) else (x,)
        playing = t.step >= self.start
        metrics = {"loss": t.minimize("ae", lambda *parts: self.loss(*parts, playing=playing), *given)}
        total = lambda v: t.reduce(v, "sum")
        if update := getattr(getattr(self.model, "quantizer", None), "update", None):
            update(total, t.rank, torch.Generator().manual_seed(t.key("codes") % 2**63))
        if playing:
            self._settle(total(self.pulls) / (len(x) * t.world))
        d = t.minimize("d", self.d_loss, *given) if playing else x.new_zeros(())
        return metrics | {"d": d, "lambda": self.balance.clone()}

    def loss(
        self, x: Float[Tensor, "b ..."], *noise: Float[Tensor, "b d ..."], playing: bool = True
    ) -> Float[Tensor, ""]:
        """Loss of the auto-encoder."""
        y, cost = self._reconstruct(x, *noise)
        likeness = torch.stack([*self._distances(x, y).values()]).sum(0).mean()
        if not playing:
            return likeness + cost.mean()
        fake = self._judge(y)
        adversarial = hinge.g(fake, fake).mean()  # it looks at the second argument only
        if torch.is_grad_enabled():
            for pull, part in zip(self.pulls, (likeness, adversarial), strict=True):
                (g,) = torch.autograd.grad(part, self._last, retain_graph=True)
                pull += len(x) * g
        return likeness + cost.mean() + self.weight * self.balance * adversarial

    def d_loss(self, x: Float[Tensor, "b ..."], *noise: Float[Tensor, "b d ..."]) -> Float[Tensor, ""]:
        """Loss of the discriminator; reconstructions are constants."""
        with torch.no_grad():
            y, _ = self._reconstruct(x, *noise)
        return hinge.d(self._judge(x), self._judge(y)).mean()

    def evaluate(self, batch: Any) -> dict[str, Tensor]:
        """The parts of the loss that are comparable over time, and their sum; of the mean of a Gaussian code."""
        (x,) = unpack(batch)
        noise = (x.new_zeros(len(x), *self._shape(x)),) if isinstance(self.model, KLAutoEncoder) else ()
        y, cost = self._reconstruct(x, *noise)
        parts = self._distances(x, y) | {"cost": cost}
        return {"loss": torch.stack([*parts.values()]).sum(0)} | parts

    @torch.no_grad()
    def _settle(self, pulls: Tensor) -> None:
        """Lambda of the gradients of this step ([Esser21] eq. 7); the one before if they are not finite."""
        likeness, adversarial = pulls.flatten(1).norm(dim=1)
        balance = (likeness / (adversarial + 1e-6)).clamp(max=1e4)
        self.balance.copy_(torch.where(balance.isfinite(), balance, self.balance))
        self.pulls.zero_()

    def _reconstruct(self, x: Tensor, *noise: Tensor) -> tuple[Tensor, Float[Tensor, "b"]]:
        """y, and what its code costs each sample."""
        if isinstance(self.model, KLAutoEncoder):
            y, nats = self.model.parts(x, *noise)
            return y, self.kl * nats / prod(x.shape[1:])
        y, codes = self.model.parts(x)
        return y, codes.loss

    def _distances(self, x: Tensor, y: Tensor) -> dict[str, Float[Tensor, "b"]]:
        parts = {"reconstruction": (x - y).abs().flatten(1).mean(1)}
        if feature := self._feature[0]:
            parts["feature"] = (feature(x) - feature(y)).square().flatten(1).mean(1)
        return parts

    def _judge(self, x: Tensor) -> Float[Tensor, "logits"]:
        """All logits, as many for each sample."""
        logits = self.discriminator(x)
        if logits.shape[:1] != x.shape[:1]:
            raise ValueError(
                f"the discriminator gave logits of shape {tuple(logits.shape)} for {len(x)} samples; the first "
                "dimension has to be theirs"
            )
        return wide(logits.flatten())

    @torch.no_grad()
    def _shape(self, x: Tensor) -> tuple[int, ...]:
        """Shape of the latents of one sample; computed by the encoder once for each size of x."""
        size = tuple(x.shape[1:])
        if size not in self._shapes:
            with evaluating(self.model):
                self._shapes[size] = tuple(self.model.features(x[:1]).shape[1:])
        return self._shapes[size]
