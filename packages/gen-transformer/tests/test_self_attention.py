"""Self-attention step by step: the formula, and what it knows of order."""

import math

import pytest
import torch

from gen_transformer.attention import attention
from gen_transformer.config import Config
from gen_transformer.model import Transformer


def test_the_formula_word_by_word_is_the_fused_kernel():
    """softmax(q k' / sqrt(w)) v with loops over queries and keys, causal or not, as scaled_dot_product_attention."""
    q, k, v = torch.randn(3, 1, 2, 5, 4, generator=torch.Generator().manual_seed(0))
    for causal in (False, True):
        want = torch.zeros_like(q)
        for head in range(2):
            for i in range(5):
                keys = range(i + 1 if causal else 5)
                e = [math.exp(float(q[0, head, i] @ k[0, head, j]) / math.sqrt(4)) for j in keys]
                want[0, head, i] = sum(e[j] / sum(e) * v[0, head, j] for j in keys)
        torch.testing.assert_close(attention(q, k, v, causal=causal), want, rtol=0, atol=1e-6)
        fused = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
        torch.testing.assert_close(fused, want, rtol=0, atol=1e-6)


@pytest.mark.parametrize("pos", ["none", "sinusoidal", "rope", "learned"])
def test_without_positions_words_in_another_order_are_the_same_words(pos: str):
    """Shuffling the input shuffles the output, exactly; any position breaks that."""
    torch.manual_seed(0)
    model = Transformer(Config(11, 16, 2, 2, pos=pos, causal=False)).double().eval()
    for p in model.parameters():
        p.data.mul_(10)  # far from zero, where order would hardly show
    ids, order = torch.arange(7)[None], torch.tensor([3, 0, 6, 1, 5, 2, 4])
    same = torch.allclose(model(ids[:, order]), model(ids)[:, order], rtol=0, atol=1e-9)
    assert same is (pos == "none")
