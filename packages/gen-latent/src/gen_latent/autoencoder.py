"""Auto-encoders, which know the scale of their own latents; what they are trained on; how corruption is made.

    ae = AutoEncoder(ConvEncoder(3, 32, 64), ConvDecoder(3, 32, 64), latents=64)
    ae.fit_scale(pictures)                     # after training: mean and deviation of the latents, saved with weights
    z = ae.encode(x)                           # of mean 0 and unit deviation
    x = ae.decode(z)                           # undoes the same scale: nobody has a factor to forget

[Bengio07] Greedy layer-wise training of deep networks, NIPS 2006.
[Vincent10] Stacked denoising autoencoders, JMLR 11.
[Rombach22] High-resolution image synthesis with latent diffusion models, arXiv:2112.10752.
[Esser21] Taming transformers for high-resolution image synthesis, arXiv:2012.09841.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Generator, Tensor, nn

from gen_core.description import describable
from gen_core.task import evaluating
from gen_latent.distributions import randn, wide
from gen_latent.quantize import Quantized


@describable
class AutoEncoder(nn.Module):
    """A code z of x, and x again.

    `features` and `restore` are the networks as they are; `encode` and `decode` shift and scale between them by the
    statistics of the latents, one pair for each channel of a map or each dimension of a vector.

    Args:
        encoder: x -> "b d" or "b d h w".
        decoder: the way back.
        latents: d.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, latents: int):
        super().__init__()
        if latents < 1:
            raise ValueError(f"a latent has at least one dimension, got latents={latents}")
        self.encoder, self.decoder, self.latents = encoder, decoder, latents
        self.mean, self.std = nn.Buffer(torch.zeros(latents)), nn.Buffer(torch.ones(latents))

    def features(self, x: Float[Tensor, "b ..."]) -> Float[Tensor, "b d ..."]:
        """The code of the encoder."""
        return wide(self.encoder(x))

    def restore(self, z: Float[Tensor, "b d ..."]) -> Float[Tensor, "b ..."]:
        """The reconstruction of the decoder."""
        return wide(self.decoder(z))

    def forward(self, x: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
        """The reconstruction."""
        return self.restore(self.features(x))

    def encode(self, x: Float[Tensor, "b ..."]) -> Float[Tensor, "b d ..."]:
        """The latents, of zero mean and unit deviation once `fit_scale` was called."""
        z = self.features(x)
        return (z - _along(self.mean, z)) / _along(self.std, z)

    def decode(self, z: Float[Tensor, "b d ..."]) -> Float[Tensor, "b ..."]:
        """The inverse in scale of `encode`."""
        return self.restore(z * _along(self.std, z) + _along(self.mean, z))

    @torch.no_grad()
    def fit_scale(self, batches: Tensor | Iterable[Tensor]) -> None:
        """Measure the latents of these data; in evaluation mode, in double precision, over all batches.

        Raises:
            ValueError: for a latent that never changes, or fewer than two values of each.
        """
        n, first, second = 0, torch.zeros(self.latents).double(), torch.zeros(self.latents).double()
        with evaluating(self):
            for x in (batches,) if isinstance(batches, Tensor) else batches:
                z = self.features(x).cpu().double().movedim(1, 0).flatten(1)
                n, first, second = n + z.shape[1], first + z.sum(1), second + z.square().sum(1)
        if n < 2:
            raise ValueError(f"the scale of latents is measured on at least 2 samples, got {n}")
        mean = first / n
        variance = (second / n - mean**2).clamp_min(0)
        if (variance < 1e-12).any():
            dead = (variance < 1e-12).nonzero().flatten().tolist()
            raise ValueError(f"latents {dead} are the same for all data and have no scale; use fewer latents")
        self.mean.copy_(mean)
        self.std.copy_(variance.sqrt())


def _along(statistic: Float[Tensor, "d"], z: Float[Tensor, "b d ..."]) -> Tensor:
    return statistic.reshape(-1, *[1] * (z.ndim - 2))


@describable
class QuantizedAutoEncoder(AutoEncoder):
    """An auto-encoder whose code is quantised: its latents are codes of `quantizer` ([Oord17], [Esser21]).

    Args:
        quantizer: `VectorQuantizer`, `FSQ` or `Residual`, over the channels of the latent map.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, quantizer: nn.Module, latents: int):
        super().__init__(encoder, decoder, latents)
        self.quantizer: Any = quantizer

    def quantize(self, z: Float[Tensor, "b d ..."]) -> Quantized:
        """The codes of a latent map, as vectors "b n d"."""
        return self.quantizer(rearrange(z, "b d ... -> b (...) d"))

    def features(self, x: Float[Tensor, "b ..."]) -> Float[Tensor, "b d ..."]:
        """The quantised map."""
        z = wide(self.encoder(x))
        return rearrange(self.quantize(z).z, "b n d -> b d n").reshape(z.shape)

    def parts(self, x: Float[Tensor, "b ..."]) -> tuple[Float[Tensor, "b ..."], Quantized]:
        """The reconstruction and the codes that it is made from."""
        z = wide(self.encoder(x))
        codes = self.quantize(z)
        return self.restore(rearrange(codes.z, "b n d -> b d n").reshape(z.shape)), codes


def corrupt(
    x: Float[Tensor, "b ..."],
    *,
    noise: float = 0.0,
    mask: Bool[Tensor, "..."] | None = None,
    fill: float = 0.0,
    generator: Generator | None = None,
) -> Float[Tensor, "b ..."]:
    """Data with noise on it, and with `fill` where `mask` is False: what to undo when denoising or in-painting.

    Args:
        noise: standard deviation, in the units of the data.
        mask: True where the data are seen; broadcast against `x`.
    """
    if noise < 0:
        raise ValueError(f"noise is a standard deviation and cannot be negative, got {noise}")
    if noise:
        x = x + noise * randn(x.shape, x, generator)
    return x if mask is None else torch.where(mask, x, fill)


def inpaint(
    model: Any, x: Float[Tensor, "b ..."], mask: Bool[Tensor, "..."], fill: float = 0.0
) -> Float[Tensor, "b ..."]:
    """Visible values exactly as they were, and the model's reconstruction elsewhere."""
    return torch.where(mask, x, model(corrupt(x, mask=mask, fill=fill)))


@torch.no_grad()
def layerwise(
    x: Float[Tensor, "n d"], sizes: Sequence[int], activation: type[nn.Module] | None = None
) -> list[nn.Linear]:
    """Greedy layers: each spans the leading principal directions of what the one before answers ([Bengio07]).

    What a stack of linear auto-encoders converges to, in closed form: a start for the first layers of a network. It
    helps where a network is too deep and narrow for its random start; one of a layer or two gains nothing by it.

    Args:
        sizes: of the layers.
        activation: between the layers; each answers with unit deviation in its leading direction, the others in
            proportion, so that noise is not made as large as signal. None is linear, by orthonormal weights.

    Raises:
        ValueError: for a layer wider than its input, or than there are samples.
    """
    layers = []
    for size in sizes:
        if not 1 <= size <= min(x.shape):
            raise ValueError(f"a layer of {size} units cannot be started on data of shape {tuple(x.shape)}")
        mean = x.mean(0)
        _, s, vh = torch.linalg.svd(x - mean, full_matrices=False)
        layer = nn.Linear(x.shape[1], size).to(x)
        layer.weight.copy_(vh[:size] * (len(x) ** 0.5 / s[0] if activation else 1.0))
        layer.bias.copy_(-layer.weight @ mean)
        layers.append(layer)
        x = layer(x) if activation is None else activation()(layer(x))
    return layers
