import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gen_core.summary import Row, summary

DEVICES = ["cpu", "meta"]


class Tied(nn.Module):
    """Embedding and output share one weight; the position table is a parameter of the model itself."""

    def __init__(self, vocabulary=11, width=6, length=5):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.zeros(length, width))
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids):
        return self.head(self.embed(ids) + self.positions[: ids.shape[1]])


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)

    def forward(self, x, causal=False):
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2).flatten(2)


# Parameters and shapes


@pytest.mark.parametrize("device", DEVICES)
def test_a_tied_weight_counts_once_in_rows_and_totals(device):
    with torch.device(device):
        s = summary(Tied(), torch.zeros(2, 4, dtype=torch.long))
    assert s.rows == (
        Row("", "Tied", ((2, 4, 11),), 30, 30),
        Row("embed", "Embedding", ((2, 4, 6),), 66, 66),
        Row("head", "Linear", ((2, 4, 11),), 0, 0),
    )
    assert (s.params, s.trainable, s.bytes) == (96, 96, 4 * 96)  # the state_dict holds 162 numbers
    assert s.flops == 2 * 2 * 4 * 6 * 11


def test_frozen_parameters_buffers_and_other_dtypes():
    model = nn.Sequential(nn.Linear(3, 4).requires_grad_(False), nn.BatchNorm1d(4), nn.Linear(4, 2).bfloat16())
    s = summary(model)
    assert (s.params, s.trainable, s.flops) == (16 + 8 + 10, 8 + 10, None)
    assert s.bytes == 4 * 16 + 4 * 8 + (4 * 8 + 8) + 2 * 10  # running mean and variance, and an int64 counter
    assert [(r.params, r.trainable, r.shapes) for r in s.rows] == [(16, 0, ()), (8, 8, ()), (10, 10, ())]


def test_a_layer_called_twice_is_one_row_with_the_shape_of_its_first_call():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = self.alias = nn.Linear(3, 3)

        def forward(self, x):
            return self.alias(self.layer(x)[:1])

    s = summary(Twice(), torch.zeros(4, 3))
    assert s.rows == (Row("layer", "Linear", ((4, 3),), 12, 12),)
    assert s.flops == 2 * 4 * 3 * 3 + 2 * 1 * 3 * 3


def test_shapes_of_nested_outputs():
    @dataclasses.dataclass
    class Record:
        mean: torch.Tensor
        rest: dict

    class Nested(nn.Module):
        def forward(self, x, *, scale):
            return Record(x, {"list": [x[0], (scale, None)], "n": 3})

    assert summary(Nested(), torch.zeros(2, 5), scale=torch.ones(1)).rows[0].shapes == ((2, 5), (5,), (1,))
    assert summary(nn.LSTM(3, 4), torch.zeros(7, 2, 3)).rows[0].shapes == ((7, 2, 4), (1, 2, 4), (1, 2, 4))


def test_the_table_reads_like_that_of_keras():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Flatten(), nn.Linear(800, 10).requires_grad_(False))
    assert str(summary(model, torch.zeros(2, 3, 10, 10))) == (
        "Layer (type)  Output shape    Parameters\n"
        "----------------------------------------\n"
        "0 (Conv2d)    (2, 8, 10, 10)         224\n"
        "1 (Flatten)   (2, 800)                 0\n"
        "2 (Linear)    (2, 10)              8,010\n"
        "----------------------------------------\n"
        "8,234 parameters (224 trainable), 0.03 MB, 118,400 FLOPs per forward"
    )
    assert "FLOPs" not in str(summary(model))


# FLOPs


@pytest.mark.parametrize("device", DEVICES)
def test_flops_of_linear_and_convolution_are_2_b_in_out(device):
    with torch.device(device):
        assert summary(nn.Linear(7, 5), torch.zeros(3, 7)).flops == 2 * 3 * 7 * 5
        assert summary(nn.Conv2d(3, 8, 3, padding=1), torch.zeros(2, 3, 10, 10)).flops == 86_400
        assert summary(nn.Conv2d(4, 8, 3, groups=2), torch.zeros(2, 4, 10, 10)).flops == 2 * 2 * 64 * 8 * 2 * 9


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("causal", [False, True])
def test_flops_of_attention_are_not_zero(device, causal):
    """b = 2, t = 5, width 16: the projection is 2 b t 16 48, scores and mixture 2 b t t 16 each, masked or not."""
    with torch.device(device):
        s = summary(Attention(16, 4), torch.zeros(2, 5, 16), causal=causal)
    assert s.flops == 2 * 2 * 5 * 16 * 48 + 2 * (2 * 2 * 5 * 5 * 16)


@pytest.mark.parametrize("device", DEVICES)
def test_flops_of_torchs_fused_encoder_layer_are_not_zero(device):
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, device=device)
    s = summary(layer, torch.zeros(2, 5, 16, device=device))  # under torch.device(...) torch would not fuse
    assert s.flops == 2 * 2 * 5 * (4 * 16 * 16 + 2 * 16 * 32) + 2 * (2 * 2 * 5 * 5 * 16)
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind, gates", [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_flops_of_recurrent_layers_are_not_zero(device, kind, gates):
    """Two layers in two directions over 5 x 2 tokens: inputs 8 and then 2 x 16, and 16 from the step before."""
    with torch.device(device):
        s = summary(kind(8, 16, num_layers=2, bidirectional=True), torch.zeros(5, 2, 8))
    assert s.flops == 2 * (5 * 2) * gates * 16 * 2 * ((8 + 16) + (32 + 16))


# What it leaves as it was


class Noisy(nn.Module):
    """Draws noise, counts its calls in a buffer, and updates BatchNorm; in train mode, with part of it in eval mode."""

    def __init__(self):
        super().__init__()
        self.norm, self.frozen, self.drop = nn.BatchNorm1d(3), nn.BatchNorm1d(3), nn.Dropout()
        self.register_buffer("calls", torch.zeros(()))
        self.train()
        self.frozen.eval()
        self.log = []

    def forward(self, x, fail=False):
        self.calls += 1
        self.log.append((self.training, torch.is_grad_enabled()))
        if fail:
            raise RuntimeError("on purpose")
        return self.drop(self.frozen(self.norm(x + torch.randn_like(x))))


@pytest.mark.parametrize("fail", [False, True])
def test_the_module_and_the_random_state_are_left_as_they_were(fail):
    model = Noisy()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    tensors = [*model.parameters(), *model.buffers()]
    rng, numpy = torch.get_rng_state(), np.random.get_state()[1].copy()
    try:
        summary(model, torch.ones(4, 3), fail=fail)
        assert not fail
    except RuntimeError as error:
        assert fail and str(error) == "on purpose"
    assert model.log == [(False, False)]
    assert [m.training for m in model.modules()] == [True, True, False, True]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(x is y for x, y in zip(tensors, [*model.parameters(), *model.buffers()], strict=True))
    torch.testing.assert_close(model.state_dict(), state, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), rng)
    assert (np.random.get_state()[1] == numpy).all()
    assert torch.is_grad_enabled()
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch.backends.cuda.flash_sdp_enabled()


def test_a_frozen_encoder_that_overrides_train_keeps_its_mode():
    class Frozen(nn.Linear):
        def train(self, mode=True):
            return super().train(False)

    model = nn.Sequential(Frozen(2, 2), nn.Dropout()).train()
    summary(model, torch.zeros(1, 2))
    assert [m.training for m in model.modules()] == [True, False, True]


def test_lazy_parameters_have_no_count_yet():
    with pytest.raises(ValueError, match="Sequential has lazy parameters of no shape yet; run one forward first"):
        summary(nn.Sequential(nn.LazyLinear(3)), torch.zeros(2, 4))


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_gpt2_of_transformers_has_124_439_808_parameters():
    """transformers 5.23.0; a sum over the state_dict says 163,037,184, with the tied embedding twice."""
    from transformers import GPT2Config, GPT2LMHeadModel

    with torch.device("meta"):
        model = GPT2LMHeadModel(GPT2Config())
    s = summary(model)
    assert s.params == s.trainable == 124_439_808
    assert sum(x.numel() for x in model.state_dict().values()) == 163_037_184


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_flops_of_gpt2_of_transformers_are_the_closed_form():
    """transformers 5.23.0, whose mask code reads values and so does not run on meta: a smaller GPT-2 on the CPU."""
    from transformers import GPT2Config, GPT2LMHeadModel

    t, d, layers, vocabulary = 16, 64, 3, 101
    model = GPT2LMHeadModel(GPT2Config(vocab_size=vocabulary, n_embd=d, n_layer=layers, n_head=4))
    s = summary(model, torch.zeros(1, t, dtype=torch.long))
    assert s.flops == layers * (2 * t * d * 12 * d + 2 * (2 * t * t * d)) + 2 * t * d * vocabulary
    assert s.rows[-1] == Row("lm_head", "Linear", ((1, t, vocabulary),), 0, 0)


def test_layers_may_answer_with_a_view_of_a_parameter():
    """... which under no_grad claims a gradient that it does not have."""

    class Token(nn.Module):
        def __init__(self):
            super().__init__()
            self.null = nn.Parameter(torch.zeros(4))

        def forward(self, x):
            return self.null.expand(len(x), 4)

    assert summary(nn.Sequential(Token(), nn.Linear(4, 2)), torch.zeros(3, 1)).flops == 2 * 3 * 4 * 2
