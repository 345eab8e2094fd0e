"""The same operators as deepinv 0.5.0 where the convention is the same: its values by default, its code under -m peers.

Its own default of `Decolorize` is rec601 with weights to three digits; its reductions are others than ours.
"""

import pytest
import torch

from gen_diffusion import blur, channel_mean, inpaint, mri, rec601


def wave(*shape):
    """Numbers without symmetry, the same everywhere."""
    n = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return (n + n**2 / 7).sin().reshape(1, *shape)


KERNEL = wave(3, 4)[0].abs() / wave(3, 4).abs().sum()
MASK, FREQUENCIES = wave(3, 8, 6)[0] > 0.2, wave(8, 6)[0] > 0
OURS = {  # and the sum of wave * A(x), of deepinv 0.5.0, printed by `golden` below
    "Inpainting": (inpaint(MASK), 1.199954),
    "Decolorize flat": (channel_mean((3, 8, 6)), 11.282008),
    "Decolorize rec601": (rec601((3, 8, 6)), 7.877220),
    "BlurFFT": (blur(KERNEL, (3, 8, 6)), 2.816342),
    "Blur constant": (blur(KERNEL[:, :3], (3, 8, 6), "zero"), 4.094426),
    "MRI": (mri(FREQUENCIES, (2, 8, 6)), -4.734814),
}


def peer(name, x):
    """A(x) and its adjoint there by deepinv, on masked entries only where ours are packed."""
    from deepinv import physics

    kernel = KERNEL.float()[None, None]
    p = {
        "Inpainting": lambda: physics.Inpainting(img_size=(3, 8, 6), mask=MASK.float()),
        "Decolorize flat": lambda: physics.Decolorize(channels=3, srf="flat"),
        "Decolorize rec601": lambda: physics.Decolorize(channels=3, srf="rec601"),
        "BlurFFT": lambda: physics.BlurFFT(img_size=(3, 8, 6), filter=kernel),
        "Blur constant": lambda: physics.Blur(filter=kernel[..., :3], padding="constant"),
        "MRI": lambda: physics.MRI(img_size=(2, 8, 6), mask=FREQUENCIES.float()),
    }[name]()
    y = p.A(x.float())
    back = p.A_adjoint(y)
    packed = {"Inpainting": lambda: y[:, MASK], "MRI": lambda: y[:, :, FREQUENCIES]}.get(name, lambda: y)()
    return packed.double(), back.double()


def golden():
    """Print what OURS is compared with."""
    for name, (A, _) in OURS.items():
        y, _ = peer(name, wave(*A.shape_in))
        print(name, float((wave(*A.shape_out) * y).sum()))


@pytest.mark.parametrize("name", OURS)
def test_values_are_those_of_deepinv(name):
    A, value = OURS[name]
    y = A(wave(*A.shape_in))
    assert float((wave(*A.shape_out) * y).sum()) == pytest.approx(value, abs=1e-3 if "rec601" in name else 1e-5)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", OURS)
def test_operators_are_those_of_deepinv(name):
    pytest.importorskip("deepinv")
    A, _ = OURS[name]
    x = wave(*A.shape_in)
    y, back = peer(name, x)
    atol = 1e-3 if "rec601" in name else 1e-5
    torch.testing.assert_close(A(x), y, rtol=0, atol=atol)
    torch.testing.assert_close(A.T(A(x)), back, rtol=0, atol=atol)
