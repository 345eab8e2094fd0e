"""Averages of weights against closed forms and ema-pytorch 0.8.3."""

import numpy as np
import pytest
import torch
from torch import nn

from gen_core import EMA, Arrays, Loader, Task, Trainer, every
from gen_core.ema import constant, gamma, posthoc, power, warmup
from gen_core.testing import parameters_equal

IDLE = Trainer(Task(), device="cpu")


class Scalar(nn.Module):
    def __init__(self, value=0.0, dtype=torch.float64):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(value, dtype=dtype))
        self.register_buffer("count", torch.tensor(0))


def averaged(decay, values, dtype=torch.float64):
    net = Scalar(values[0], dtype)
    ema = EMA(net, decay)
    ema.on_train_begin(IDLE)
    for value in values:
        with torch.no_grad():
            net.w.fill_(value)
        net.count += 1
        ema.on_step_end(IDLE, {})
    assert ema.average["count"] == net.count, "integer buffers are copied"
    return ema.average["w"]


def test_constant_decay_has_its_closed_form():
    """From 1 towards 2: 2 - d^n after n updates."""
    assert averaged(0.9, [1.0] + [2.0] * 50).item() == pytest.approx(2 - 0.9**50, rel=1e-12)


def test_warm_up_with_exponent_one_is_the_plain_average():
    values = torch.randn(50).tolist()
    decay = warmup(1.0, exponent=1.0)
    assert decay(50) == pytest.approx(0.98)
    assert averaged(decay, values).item() == pytest.approx(np.mean(values), rel=1e-12)


@pytest.mark.parametrize(("sigma", "value", "limit"), [(0.05, 9473.41, 9472.91), (0.10, 8881.58, 8881.08)])
def test_power_function_average_of_a_ramp(sigma, value, limit):
    """EMA of 1..T tends to T (g + 1) / (g + 2); figures of edm2's formulas at T = 10,000."""
    t = 10_000
    assert averaged(power(sigma), range(1, t + 1)).item() == pytest.approx(value, rel=1e-6)
    assert t * (gamma(sigma) + 1) / (gamma(sigma) + 2) == pytest.approx(limit, rel=1e-6)


def test_gamma_inverts_the_width_of_its_profile():
    for sigma in (0.01, 0.05, 0.1, 0.25):
        g = gamma(sigma)
        assert np.sqrt((g + 1) / ((g + 2) ** 2 * (g + 3))) == pytest.approx(sigma, rel=1e-9)
    with pytest.raises(ValueError, match=r"0\.2887"):
        gamma(0.3)


def test_bf16_weights_are_averaged_in_float32():
    """10,000 updates of decay .9999 from 1 towards 2: 2 - .9999^10000; in bf16 nothing would move."""
    average = averaged(0.9999, [1.0] + [2.0] * 10_000, torch.bfloat16)
    assert average.dtype == torch.float32
    assert average.item() == pytest.approx(1.6321, abs=2e-4)


def test_posthoc_rebuilds_an_average_that_was_not_kept():
    """Two widths stored at 20 times: any width in between, and at an earlier time, to a small part of the signal."""
    rng, t = np.random.default_rng(0), 2000
    walk = np.cumsum(rng.standard_normal(t)) / np.sqrt(t)
    kept, values = [], []
    for sigma in (0.05, 0.10):
        average, decay = 0.0, power(sigma)
        for n, value in enumerate(walk, 1):
            average += (value - average) * (1 - decay(n))
            if n % 100 == 0:
                kept.append((n, sigma))
                values.append(average)
    for step, sigma in ((2000, 0.07), (2000, 0.15), (1500, 0.08), (2000, 0.05)):
        average, decay = 0.0, power(sigma)
        for n, value in enumerate(walk[:step], 1):
            average += (value - average) * (1 - decay(n))
        weights = posthoc(kept, step, sigma)
        assert weights.sum() == pytest.approx(1, abs=1e-2)
        assert weights @ np.array(values) == pytest.approx(average, abs=2e-2 * walk.std())


class Fit(Task):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(3, 3)

    def optimizers(self):
        return {"net": torch.optim.SGD(self.net.parameters(), lr=0.1)}

    def step(self, batch, t):
        return {"loss": t.minimize("net", lambda x: (self.net(x) - 1).square().mean(), *batch)}


def test_swapped_shows_the_average_and_puts_the_weights_back():
    ema, seen = EMA("net", warmup(0.99)), []

    def look(t, metrics):
        own = t.task.net.weight.clone()
        with ema.swapped() as net:
            seen.append(not torch.equal(net.weight, own) and torch.equal(net.weight, ema.average["weight"]))
            assert not net.training
        assert torch.equal(t.task.net.weight, own) and t.task.net.training

    Trainer(Fit(), device="cpu", callbacks=[ema, every(5, look)]).fit(Loader(Arrays(torch.randn(24, 3)), 6), 10)
    assert seen == [True, True]


def test_the_average_resumes_bit_for_bit(tmp_path):
    data, averages = Loader(Arrays(torch.randn(24, 3)), 6), []
    for path, stops in ((tmp_path / "a", (20,)), (tmp_path / "b", (7, 20))):
        for steps in stops:
            torch.manual_seed(0)
            ema = EMA("net", power(0.1))
            task = Trainer(Fit(), path, device="cpu", callbacks=[ema]).fit(data, steps)
        with ema.swapped() as net:
            averages.append(net.weight.clone())
    assert torch.equal(*averages)
    assert task.net.training


class Buffers(nn.Module):
    """A weight beside buffers that have no average: a mask, a unit vector, and one that is called `updates`."""

    def __init__(self):
        super().__init__()
        self.net = nn.utils.parametrizations.spectral_norm(nn.Linear(3, 3))
        self.phase = nn.Parameter(torch.ones(2, dtype=torch.complex64))
        self.mask = nn.Buffer(torch.full((4, 4), -torch.inf).triu(1))
        self.updates = nn.Buffer(torch.tensor([7.0]))
        self.narrow = nn.Buffer(torch.tensor([1.0], dtype=torch.bfloat16))


def test_buffers_are_copied_and_complex_parameters_averaged():
    net = Buffers()
    ema = EMA(net, 0.5)
    ema.on_train_begin(IDLE)
    for _ in range(3):
        net.net(torch.randn(5, 3))  # one power iteration
        net.phase.data += 1j
        ema.on_step_end(IDLE, {})
    own = net.state_dict()
    for name, _ in net.named_buffers():
        assert torch.equal(ema.average[name], own[name]) and ema.average[name].dtype == own[name].dtype
    mean = 1 + 1j * (0.125 * 0 + 0.125 * 1 + 0.25 * 2 + 0.5 * 3)
    assert ema.average["phase"].tolist() == [mean, mean]
    with ema.swapped():
        assert torch.equal(net.mask, torch.full((4, 4), -torch.inf).triu(1))
        assert torch.linalg.matrix_norm(net.net.weight, 2) < 2


def test_the_average_follows_a_module_whose_tensors_are_replaced():
    """A new parameter, buffer, module or memory of a parameter counts from the next update, as in the state_dict."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))

    def change(net, seed):
        linear, norm = net.body
        fresh = torch.randn(2, 2, generator=torch.Generator().manual_seed(seed))
        if seed == 1:
            linear.weight = nn.Parameter(fresh)
        elif seed == 2:
            norm.running_mean = fresh[0]
        elif seed == 3:
            net.body[0] = nn.Linear(2, 2)
            net.body[0].weight.data, net.body[0].bias.data = fresh, fresh[0]
        else:
            linear.weight.data = fresh

    torch.manual_seed(0)
    net = Net()
    ema = EMA(net, 0.5)
    ema.on_train_begin(IDLE)
    wanted = {k: v.clone() for k, v in net.state_dict().items()}
    for seed in (1, 2, 3, 4):
        change(net, seed)
        ema.on_step_end(IDLE, {})
        parameters = dict(net.named_parameters())
        wanted = {k: (wanted[k] + v) / 2 if k in parameters else v.clone() for k, v in net.state_dict().items()}
        assert all(torch.allclose(ema.average[k], v) for k, v in wanted.items()), seed


def test_entries_that_a_hook_adds_to_the_state_are_averaged_with_it():
    net = nn.Linear(2, 2, bias=False)
    net.register_state_dict_post_hook(lambda m, state, *_: state.update(double=2 * m.weight.detach()))
    net.register_load_state_dict_pre_hook(lambda m, state, *_: state.pop("double"))
    ema = EMA(net, 0.5)
    ema.on_train_begin(IDLE)
    net.weight.data += 1
    ema.on_step_end(IDLE, {})
    assert torch.equal(ema.average["double"], 2 * net.weight)
    torch.testing.assert_close(ema.average["weight"], net.weight.detach() - 0.5)


def test_what_is_no_tensor_stays_out_of_the_average():
    class Counted(nn.Linear):
        def get_extra_state(self):
            return {"seen": 3}

        def set_extra_state(self, state):
            pass

    net = Counted(2, 2)
    ema = EMA(net, 0.5)
    ema.on_train_begin(IDLE)
    ema.on_step_end(IDLE, {})
    with ema.swapped():
        assert ema.average.keys() == {"weight", "bias"}


def test_a_buffer_called_updates_does_not_replace_the_count_on_resume(tmp_path):
    class Fitted(Fit):
        def __init__(self):
            super().__init__()
            self.net.updates = nn.Buffer(torch.tensor(1000.0))

    data, counts = Loader(Arrays(torch.randn(24, 3)), 6), []
    for steps in (7, 9):
        ema = EMA("net", power(0.1))
        Trainer(Fitted(), tmp_path, device="cpu", callbacks=[ema]).fit(data, steps)
        counts.append((ema.updates, ema.average["updates"].item()))
    assert counts == [(7, 1000.0), (9, 1000.0)]


def test_decay_of_a_constant_is_that_constant():
    assert averaged(constant(0.999), [3.0] * 20).item() == pytest.approx(3.0, rel=1e-12)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_warm_up_equals_ema_pytorch():
    from ema_pytorch import EMA as Peer

    torch.manual_seed(0)
    net = nn.Linear(3, 3)
    peer = Peer(net, beta=0.95, update_every=1, update_after_step=0, inv_gamma=1.0, power=2 / 3)
    ours = EMA(net, warmup(0.95))
    ours.on_train_begin(IDLE)
    for _ in range(100):
        with torch.no_grad():
            for p in net.parameters():
                p.add_(torch.randn_like(p))
        peer.update()
        ours.on_step_end(IDLE, {})
    torch.testing.assert_close(ours.average["weight"], peer.ema_model.weight.detach(), rtol=1e-5, atol=1e-5)
    assert parameters_equal(net, peer.model)
