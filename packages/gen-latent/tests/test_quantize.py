"""Codebooks against optimal quantisers, FSQ against its definition and its peer, one update however it is computed."""

import math
import runpy
from pathlib import Path

import pytest
import torch
from torch import nn

from gen_core import Arrays, Loader, Trainer
from gen_core.runtime import generator, seed_all
from gen_core.testing import check_task, difference, launch, train
from gen_latent import FSQ, MLP, AutoEncoderTask, QuantizedAutoEncoder, Residual, VectorQuantizer, perplexity
from gen_latent.quantize import _crossing, nearest, rotation, straight_through

GOLDEN = runpy.run_path(str(Path(__file__).with_name("vector_quantize_golden.py")))


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def digits() -> torch.Tensor:
    """All 1,797 in [0, 1], as vectors of one sample."""
    from sklearn.datasets import load_digits  # here: the processes that tests launch import this file

    return torch.tensor(load_digits().data / 16).float()[None]


# ---------------------------------------------------------------- what the codes become


def test_eight_codes_of_a_normal_are_lloyd_and_max():
    """The best 8 levels of N(0, 1) err by .034548 and use their codes unequally: perplexity 7.0855, not 8."""
    seed_all(0)
    quantizer = VectorQuantizer(8, 1, decay=0.9)
    draws = torch.Generator().manual_seed(1)
    for _ in range(600):
        quantizer(torch.randn(1, 4096, 1, generator=draws))
        quantizer.update()
    quantiles = (torch.arange(65536) + 0.5) / 65536
    x = torch.special.ndtri(quantiles.double()).float()[None, :, None]
    z, index, _ = quantizer.eval()(x)
    error = (z - x).square().mean().item()
    assert 0.0344 < error < 0.0350  # the grid's own tail falls short of .034548 by less than 1e-4
    assert perplexity(index, 8).item() == pytest.approx(7.0855, abs=0.08)


def test_64_codes_of_the_digits_are_as_good_as_k_means():
    """k-means, best of 5 starts, 1.4396; here the best of 3 random starts, none of them stuck."""
    x = digits()
    errors = []
    for seed in range(3):
        seed_all(seed)
        quantizer = VectorQuantizer(64, 64, decay=0.95, revive_below=0.5)
        for _ in range(500):
            quantizer(x[:, torch.randperm(1797)[:256]])
            quantizer.update(generator=torch.Generator().manual_seed(seed))
        errors.append((quantizer.eval()(x).z - x).square().sum(-1).mean().item())
    assert min(errors) < 1.455 and max(errors) < 1.48


def test_codes_started_by_k_means_stay_there():
    x = digits()
    quantizer = VectorQuantizer(64, 64, decay=0.99, revive_below=2.0)
    quantizer.start(x[0])
    started = (quantizer(x).z - x).square().sum(-1).mean()
    quantizer.update()
    assert started < 1.49
    assert (quantizer.eval()(x).z - x).square().sum(-1).mean() <= started + 1e-5  # all are alive
    with pytest.raises(ValueError, match="64 codes cannot start from 8 vectors"):
        quantizer.start(x[0, :8])


def test_codes_learned_by_gradient_reach_the_same_optimum():
    seed_all(0)
    quantizer = VectorQuantizer(4, 1, decay=None)
    optimizer = torch.optim.Adam(quantizer.parameters(), lr=2e-2)
    for _ in range(200):
        optimizer.zero_grad()
        quantizer(torch.randn(1, 512, 1)).loss.mean().backward()
        optimizer.step()
    x = normal(1, 65536, 1, dtype=torch.float32)
    assert (quantizer(x).z - x).square().mean().item() == pytest.approx(0.117482, rel=0.02)
    assert set(dict(quantizer.named_buffers())) == set()


def test_a_code_that_nothing_uses_stays_where_it_is():
    """Both moving averages die away together, and their ratio must not."""
    quantizer = VectorQuantizer(2, 2, decay=0.5)
    quantizer.table[1] = quantizer.sums[1] = 50.0
    for _ in range(200):
        quantizer(torch.zeros(1, 4, 2))
        quantizer.update()
    assert quantizer.table[1].tolist() == [50.0, 50.0]
    assert quantizer.table[0].norm() < 1e-6
    quantizer(torch.full((1, 4, 2), 49.0))
    quantizer.update()
    assert quantizer.table[1].tolist() == pytest.approx([49.0, 49.0], abs=1e-4)  # whatever its old averages were


def test_an_update_is_the_moving_average_of_the_paper():
    """[Oord17] eq. 6-8, by hand."""
    quantizer = VectorQuantizer(3, 2, decay=0.9).double()
    before, z = quantizer.table.clone(), normal(2, 5, 2)
    index = quantizer(z).index
    quantizer.update()
    for k in range(3):
        mine = z[index == k]
        n, m = 0.9 + 0.1 * len(mine), 0.9 * before[k] + 0.1 * mine.sum(0)
        assert torch.allclose(quantizer.table[k], m / n, atol=1e-14)


# ---------------------------------------------------------------- the nearest code


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (300.0, 0.1), (-20.0, 1e-3)])
@pytest.mark.parametrize("d", [7, 64])
def test_the_nearest_code_is_that_of_a_brute_force_in_double_precision(d: int, shift: float, scale: float):
    """Also far from the origin, where the expanded square cancels, and under bf16 autocast."""
    codes, z = shift + scale * normal(64, d, seed=1).float(), shift + scale * normal(5, 64, d, seed=2).float()
    distance = (z.double()[:, :, None] - codes.double()).square().sum(-1)
    two = distance.topk(2, largest=False).values
    clear = two[..., 1] - two[..., 0] > 1e-4 * two[..., 0]
    assert clear.float().mean() > 0.99
    for autocast in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            assert torch.equal(nearest(z, codes)[clear], distance.argmin(-1)[clear])
    narrow = z.bfloat16()
    distance = (narrow.double()[:, :, None] - codes.double()).square().sum(-1)
    two = distance.topk(2, largest=False).values
    clear = two[..., 1] - two[..., 0] > 1e-4 * two[..., 0]
    assert torch.equal(nearest(narrow, codes)[clear], distance.argmin(-1)[clear])


@pytest.mark.parametrize("gradient", ["straight_through", "rotation"])
def test_what_the_decoder_gets_of_16_bit_vectors_are_the_codes(gradient):
    seed_all(0)
    codebook = lambda: VectorQuantizer(16, 4, gradient=gradient)
    z = normal(3, 5, 4).bfloat16()
    for quantizer in (codebook(), Residual([codebook(), codebook()], gradient=gradient), FSQ((5, 4, 3, 3))):
        with torch.autocast("cpu", torch.bfloat16):
            out = quantizer(z)
        assert out.z.dtype == out.loss.dtype == torch.float32
        assert torch.allclose(out.z, quantizer.lookup(out.index), atol=1e-5)


def test_ties_go_to_the_first_code():
    assert nearest(torch.zeros(2, 1), torch.tensor([[1.0], [-1.0], [1.0]])).tolist() == [0, 0]


# ---------------------------------------------------------------- gradients and losses


def test_the_straight_through_gradient_is_the_identity():
    z, q, g = normal(4, 5, 5).requires_grad_(), normal(4, 5, 5, seed=1), normal(4, 5, 5, seed=2)
    out = straight_through(z, q)
    out.backward(g)
    assert torch.allclose(out, q, atol=1e-14)
    assert z.grad is not None and torch.equal(z.grad, g)


def test_the_rotation_keeps_the_angle_of_the_gradient():
    """The gradient at q has the angle to q that the gradient at z has to z, its length times |q| / |z|."""
    z, q, g = normal(50, 6).requires_grad_(), normal(50, 6, seed=1), normal(50, 6, seed=2)
    out = rotation(z, q)
    out.backward(g)
    assert torch.allclose(out, q, atol=1e-10)
    assert z.grad is not None
    cosine = nn.functional.cosine_similarity
    assert torch.allclose(cosine(g, q), cosine(z.grad, z.detach()), atol=1e-6)
    ratio = q.norm(dim=1) / z.detach().norm(dim=1)
    assert torch.allclose(z.grad.norm(dim=1), g.norm(dim=1) * ratio, atol=1e-10)


def test_the_rotation_of_opposite_and_of_equal_vectors():
    z = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 0.0]])
    q = torch.tensor([[-3.0, 0.0], [2.0, 0.0], [0.0, 0.0]])
    assert torch.equal(rotation(z, q), q)


@pytest.mark.parametrize("size", [0.0, 1e-12, 1e-7, 1e-3])
def test_the_gradient_at_a_vector_without_direction_passes_straight_through(size):
    """By |q| / |z| it would be up to a million times larger; the value is the code whatever z is."""
    z, q = torch.tensor([[size, 0.0]], requires_grad=True), torch.tensor([[0.6, 0.8]])
    out = rotation(z, q)
    out.backward(torch.tensor([[2.0, 3.0]]))
    assert torch.allclose(out, q)
    assert z.grad is not None and z.grad.tolist() == [[2.0, 3.0]]


@pytest.mark.parametrize("revive_below", [0.0, 0.5])
def test_vectors_that_are_not_finite_do_not_enter_the_averages(revive_below):
    """The codebook after a batch with nan and infinities is that after the batch without them."""
    tables = []
    for spoilt in (False, True):
        seed_all(0)
        quantizer = VectorQuantizer(4, 3, decay=0.5, revive_below=revive_below)
        z = normal(2, 10, 3).float()
        bad = torch.full((2, 2, 3), torch.nan)
        bad[0, 0] = torch.tensor([torch.inf, 0, 0])
        quantizer(torch.cat([z, bad], 1) if spoilt else z)
        quantizer.update(generator=torch.Generator().manual_seed(0))
        tables.append(quantizer.table)
        assert all(b.isfinite().all() for b in quantizer.buffers())
    if not revive_below:
        torch.testing.assert_close(*tables)


def test_the_loss_of_a_sample_does_not_depend_on_its_batch():
    z = normal(3, 4, 6)
    for decay in (None, 0.9):
        quantizer = VectorQuantizer(5, 6, decay=decay).double()
        once, often = quantizer(z).loss, quantizer(z.repeat(4, 1, 1)).loss
        assert once.shape == (3,)
        assert torch.equal(often, once.repeat(4))
        assert torch.equal(quantizer.eval()(z).loss, once)  # in evaluation as in training


def test_beta_weighs_the_commitment_and_one_the_codes():
    """The gradient at z is beta 2 (z - q) / (n d), that of the code 2 (q - z) / (n d)."""
    z = normal(1, 1, 4).requires_grad_()
    quantizer = VectorQuantizer(3, 4, decay=None, beta=0.3).double()
    out = quantizer(z)
    out.loss.sum().backward()
    q = quantizer.table[out.index[0, 0]].detach()
    assert z.grad is not None and torch.allclose(z.grad[0, 0], 0.3 * 2 * (z.detach()[0, 0] - q) / 4, atol=1e-15)
    assert quantizer.table.grad is not None
    assert torch.allclose(quantizer.table.grad[out.index[0, 0]], 2 * (q - z.detach()[0, 0]) / 4, atol=1e-15)
    assert quantizer.table.grad.count_nonzero() == 4
    assert torch.allclose(out.loss, 1.3 * (z - q).square().mean(), atol=1e-15)


def test_perplexity_counts_equally_used_codes():
    assert perplexity(torch.tensor([[0, 1], [2, 3]]), 9).item() == pytest.approx(4)
    assert perplexity(torch.zeros(7, dtype=torch.long), 9).item() == pytest.approx(1)
    assert perplexity(torch.tensor([0, 0, 0, 1]), 2).item() == pytest.approx(4 / 3**0.75)


# ---------------------------------------------------------------- residual


def test_a_residual_quantiser_is_the_sum_of_its_codes():
    seed_all(0)
    parts = [VectorQuantizer(8, 4, decay=d) for d in (None, 0.9, 0.9)]
    quantizer, z = Residual(parts).double().eval(), normal(3, 5, 4).requires_grad_()
    out = quantizer(z)
    rest, loss = z.detach(), torch.zeros(3, dtype=torch.float64)
    for m, part in enumerate(parts):
        distance = (rest[:, :, None] - part.table.detach()).square().sum(-1)
        assert torch.equal(out.index[..., m], distance.argmin(-1))
        q = part.table.detach()[out.index[..., m]]
        loss += (0.25 + (m == 0)) * (rest - q).square().flatten(1).mean(1)
        rest = rest - q
    assert torch.allclose(out.loss, loss, atol=1e-14)
    assert torch.allclose(out.z, z - rest, atol=1e-14)
    assert torch.allclose(quantizer.lookup(out.index), out.z, atol=1e-14)
    g = normal(3, 5, 4, seed=3)
    (grad,) = torch.autograd.grad(out.z, z, g)
    assert torch.equal(grad, g)


def test_more_residual_codebooks_err_less():
    x = digits()
    seed_all(0)
    quantizer = Residual([VectorQuantizer(16, 64, decay=0.9, revive_below=0.5) for _ in range(3)])
    for _ in range(200):
        quantizer(x)
        quantizer.update(generator=torch.Generator().manual_seed(0))
    index = quantizer.eval()(x).index
    tables = [q.table for q in quantizer.quantizers]
    errors = [(sum(t[index[..., j]] for j, t in enumerate(tables[:m])) - x).square().sum(-1).mean() for m in (1, 2, 3)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1.455  # 12 bits beat the 6 bits of 64 codes


def test_the_way_of_the_gradient_through_a_residual_quantiser_is_its_own():
    quantizer = Residual([VectorQuantizer(8, 4), VectorQuantizer(8, 4)], gradient="rotation").double()
    z, g = normal(2, 3, 4).requires_grad_(), normal(2, 3, 4, seed=1)
    out = quantizer(z).z
    (grad,) = torch.autograd.grad(out, z, g)
    cosine = lambda a, b: nn.functional.cosine_similarity(a, b, dim=-1)
    assert torch.allclose(cosine(grad, z), cosine(g, out), atol=1e-8)


# ---------------------------------------------------------------- FSQ


@pytest.mark.parametrize("levels", [(8, 5, 5, 5), (2, 2), (3, 4)])
def test_indices_and_codes_of_fsq_are_one_to_one(levels: tuple[int, ...]):
    quantizer = FSQ(levels)
    index = torch.arange(math.prod(levels))
    codes = quantizer.lookup(index)
    assert len(codes.unique(dim=0)) == quantizer.codes == math.prod(levels)
    assert torch.equal(quantizer.index(codes), index)
    assert codes.min() >= -1 and codes.max() <= 1
    z = 1.5 * normal(1, 200_000, len(levels), dtype=torch.float32)
    out = quantizer(z)
    assert torch.allclose(quantizer.lookup(out.index), out.z)
    assert torch.equal(out.index.unique(), index)  # every code can be reached, and no other


@pytest.mark.parametrize("levels", GOLDEN["LEVELS"])
def test_fsq_gives_the_codes_of_vector_quantize_pytorch(levels: tuple[int, ...]):
    """Values of version 1.32.0, printed by vector_quantize_golden.py."""
    golden = {
        (7, 5, 3): ([34, 98, 2, 34, 98, 3, 34, 91, 5, 34, 77, 6], -0.6666666865348816),
        (3, 4): ([11, 0, 11, 1, 9, 2, 9, 8, 0, 11, 0, 10], -2.0),
        (8, 5, 5, 5): ([39, 79, 194, 592, 960, 920, 806, 215, 39, 79, 193, 784], 0.5),
    }
    out = FSQ(levels)(GOLDEN["vectors"](levels))
    assert out.index[0].tolist() == golden[levels][0]
    assert out.z.sum().item() == pytest.approx(golden[levels][1], abs=1e-5)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("levels", GOLDEN["LEVELS"])
def test_fsq_beside_vector_quantize_pytorch(levels: tuple[int, ...]):
    peer = pytest.importorskip("vector_quantize_pytorch")
    z = 3 * normal(4, 5000, len(levels), dtype=torch.float32)
    codes, index = peer.FSQ(list(levels))(z)
    out = FSQ(levels)(z)
    assert torch.equal(out.index, index.long())
    assert torch.allclose(out.z, codes, atol=1e-6)


def test_the_gradient_of_fsq_is_that_of_its_bound():
    quantizer, z, g = FSQ((8, 5)), normal(3, 4, 2).requires_grad_(), normal(3, 4, 2, seed=1)
    (through,) = torch.autograd.grad(quantizer(z).z, z, g)
    (bound,) = torch.autograd.grad(quantizer.bound(z) / torch.tensor([4, 2]), z, g)
    assert torch.allclose(through, bound, atol=1e-12)


# ---------------------------------------------------------------- one update, however it is computed


def task(decay: float | None = 0.8, revive_below: float = 2.0, residual: bool = False) -> AutoEncoderTask:
    quantizers = [VectorQuantizer(6, 4, decay=decay, revive_below=revive_below) for _ in range(1 + residual)]
    quantizer = Residual(quantizers) if residual else quantizers[0]
    encoder, decoder = MLP(8, 16, (4, 3)), MLP((4, 3), 16, 8)
    return AutoEncoderTask(QuantizedAutoEncoder(encoder, decoder, quantizer, latents=4), noise=0.1, lr=1e-2)


def data() -> Loader:
    return Loader(Arrays(torch.randn(64, 8, generator=generator("codes"), dtype=torch.float64)), 12)


def make():
    return task(), data()


def make_residual():
    return task(residual=True), data()


def make_learned():
    return task(decay=None, revive_below=0.0), data()


def curve(steps: int, **options):
    return train(make, steps, **options)


def test_two_processes_and_micro_batches_move_the_codes_as_one_does():
    """With codes revived on the way: counts, sums and codes to 1e-12 in double precision."""
    whole = curve(8)
    assert difference(curve(8, micro_batch=5), whole)[0] < 1e-12
    two = launch(2, curve, 8)
    for rank in two:
        assert difference(rank, whole)[0] < 1e-12
    assert difference(two[0], {k: {n: torch.as_tensor(v) for n, v in p.items()} for k, p in two[1].items()})[0] == 0


def test_codes_are_revived_in_that_run():
    """Otherwise the test above shows less than it says."""
    seed_all(0)
    model, revived = task(), []
    quantizer = model.model.quantizer
    plain = quantizer._revive
    quantizer._revive = lambda dead, *rest: (revived.append(len(dead)), plain(dead, *rest))[1]
    Trainer(model, device="cpu", precision="fp32").fit(Loader(Arrays(torch.randn(64, 8)), 12), 8)
    assert sum(revived) > 0


@pytest.mark.parametrize("kind", [make, make_residual, make_learned], ids=["moving", "residual", "learned"])
def test_a_quantised_auto_encoder_is_a_task(kind):
    """Exact resume in mid-training, micro-batches, bf16."""
    check_task(kind, only=("resume", "micro", "bf16"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [make_residual, make_learned], ids=["residual", "learned"])
def test_other_codebooks_in_two_processes(kind):
    check_task(kind, only=("world",))


def test_a_step_counts_each_vector_once_and_evaluation_none():
    seed_all(0)
    model = task(revive_below=0.0)
    quantizer = model.model.quantizer
    loader = Loader(Arrays(torch.randn(64, 8)), 12)
    trainer = Trainer(model, device="cpu", precision="fp32", micro_batch=4)
    seen = []
    plain = quantizer.update
    quantizer.update = lambda *args: (seen.append(quantizer.seen_counts.sum().item()), plain(*args))[1]
    trainer.fit(loader, 2)
    assert seen == [12 * 3, 12 * 3]
    trainer.evaluate(loader)
    with torch.no_grad():
        model.train()(model.loss, torch.randn(5, 8), torch.randn(5, 8))
    assert quantizer.seen_counts.sum() == 0
    model.eval()(model.loss, torch.randn(5, 8), torch.randn(5, 8))
    assert quantizer.seen_counts.sum() == 0
    model.train()(model.loss, torch.randn(5, 8), torch.randn(5, 8))
    assert quantizer.seen_counts.sum() == 15


def test_a_revived_code_is_a_vector_of_the_step_and_its_averages_begin_anew():
    seed_all(0)
    quantizer = VectorQuantizer(4, 2, decay=0.5, revive_below=1.5)
    quantizer.table[2:] = 99.0
    quantizer.sums.copy_(1.5 * quantizer.table)
    z = torch.randn(3, 4, 2)
    quantizer(z)
    quantizer.update(generator=torch.Generator().manual_seed(0))
    fresh = quantizer.table[2:]
    assert all((z.flatten(0, 1) == code).all(1).any() for code in fresh)
    assert not torch.equal(fresh[0], fresh[1])
    assert quantizer.counts[2:].tolist() == [1.5, 1.5]
    assert torch.allclose(quantizer.sums[2:], 1.5 * fresh)


def test_fewer_vectors_than_dead_codes_revive_as_many():
    quantizer = VectorQuantizer(10, 2, decay=0.0, revive_below=1.0)
    quantizer(torch.ones(1, 1, 2))
    quantizer.update()
    assert (quantizer.table == 1).all(1).sum() == 2  # the one that was hit, and one revived


# ---------------------------------------------------------------- errors


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="at least one code of at least one dimension, got 0 of 3"):
        VectorQuantizer(0, 3)
    with pytest.raises(ValueError, match=r"in \[0, 1\), got 1.0"):
        VectorQuantizer(2, 3, decay=1.0)
    with pytest.raises(ValueError, match=r"revive_below=1\.0 needs moving counts"):
        VectorQuantizer(2, 3, decay=None, revive_below=1.0)
    with pytest.raises(ValueError, match="got 'gumbel'"):
        _crossing("gumbel")
    with pytest.raises(ValueError, match="codes have 3 dimensions but the vectors 4"):
        VectorQuantizer(2, 3)(torch.zeros(1, 1, 4))
    with pytest.raises(ValueError, match="3 levels were given for vectors of 4 dimensions"):
        FSQ((3, 3, 3))(torch.zeros(1, 1, 4))
    with pytest.raises(ValueError, match="at least 2 levels, got "):
        FSQ((3, 1))
    with pytest.raises(ValueError, match="at least one quantiser"):
        Residual([])


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_kmeans_starts_from_any_seed(seed):
    quantizer = VectorQuantizer(2, 1)
    quantizer.start(torch.tensor([[0.0], [0.0], [4.0]]), seed=seed)
    assert sorted(quantizer.table.flatten().tolist()) == [0.0, 4.0]
