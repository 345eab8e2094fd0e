"""The chunked loss against torch's own cross-entropy, its gradients against autograd, its normalisation."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from gen_transformer.config import Config
from gen_transformer.loss import lm_loss, logprobs
from gen_transformer.model import Transformer


def draw(n=6, d=6, vocab=11, dtype=torch.float64):
    g = torch.Generator().manual_seed(0)
    hidden, head = torch.randn(n, d, generator=g, dtype=dtype), torch.randn(vocab, d, generator=g, dtype=dtype)
    bias, weight = torch.randn(vocab, generator=g, dtype=dtype), torch.rand(n, generator=g)
    weight[1] = 0
    targets = torch.randint(vocab, (n,), generator=g)
    return hidden.requires_grad_(), head.requires_grad_(), bias.requires_grad_(), targets, weight


@pytest.mark.parametrize("chunk", [1, 4, 6, 100])
@pytest.mark.parametrize("options", [{}, {"smoothing": 0.1}, {"z": 1e-2}, {"softcap": 2.0, "z": 0.1, "smoothing": 0.2}])
def test_value_and_gradients_are_those_of_the_formula(chunk, options):
    hidden, head, bias, targets, weight = draw()

    def formula():
        logits = F.linear(hidden, head, bias)
        if cap := options.get("softcap"):
            logits = cap * torch.tanh(logits / cap)
        smoothing = options.get("smoothing", 0.0)
        nll = F.cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing)
        nll = nll + options.get("z", 0.0) * logits.logsumexp(1).square()
        return (nll * weight).sum() / weight.sum()

    ours = lm_loss(hidden, head, targets, weight, bias=bias, chunk=chunk, **options)
    wanted = torch.autograd.grad(formula(), (hidden, head, bias))
    torch.testing.assert_close(ours, formula(), rtol=1e-12, atol=0)
    for got, want in zip(torch.autograd.grad(3 * ours, (hidden, head, bias)), wanted, strict=True):
        torch.testing.assert_close(got, 3 * want, rtol=1e-10, atol=1e-12)


def test_a_token_without_weight_neither_counts_nor_learns():
    """Not by its target, which may be any number, not by smoothing, not by the penalty on Z."""
    hidden, head, _, targets, weight = draw()
    targets[1] = -100
    options = {"smoothing": 0.1, "z": 0.1}
    loss = lm_loss(hidden, head, targets, weight, **options)
    rows = weight != 0
    same = lm_loss(hidden[rows], head, targets[rows], weight[rows], **options)
    assert loss.item() == pytest.approx(same.item(), rel=1e-12)
    assert torch.autograd.grad(loss, hidden)[0][1].eq(0).all()


def test_micro_batches_under_one_total_sum_to_the_whole():
    """Means of micro-batches averaged over them do not: tokens of the emptier one would weigh more."""
    hidden, head, _, targets, weight = draw()
    weight = torch.tensor([1.0, 0, 1, 1, 1, 0])
    whole = lm_loss(hidden, head, targets, weight)
    parts = [slice(0, 4), slice(4, 6)]
    total = weight.sum()
    summed = sum(lm_loss(hidden[p], head, targets[p], weight[p], total=total) for p in parts)
    means = [lm_loss(hidden[p], head, targets[p], weight[p]) for p in parts]
    assert summed.item() == pytest.approx(whole.item(), rel=1e-12)
    assert sum(means).item() / 2 != pytest.approx(whole.item(), rel=1e-3)


def test_the_gradient_of_a_batch_of_sequences_has_its_shape():
    hidden, head, _, targets, weight = draw()
    shaped = hidden.detach().view(2, 3, 6).requires_grad_()
    lm_loss(shaped, head, targets.view(2, 3), weight.view(2, 3)).backward()
    flat = torch.autograd.grad(lm_loss(hidden, head, targets, weight), hidden)[0]
    torch.testing.assert_close(shaped.grad.view(6, 6), flat, rtol=0, atol=0)


def test_bf16_keeps_the_logits_in_float32():
    hidden, head, _, targets, _ = draw(64, 32, 50, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = lm_loss(hidden, head, targets)
    loss.backward()
    exact = lm_loss(hidden, head, targets)
    assert loss.dtype == torch.float32 and head.grad.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=5e-3)
    want = torch.autograd.grad(exact, head)[0]
    assert F.cosine_similarity(head.grad.flatten(), want.flatten(), dim=0) > 0.9999


def test_a_frozen_head_or_trunk_is_left_alone():
    hidden, head, bias, targets, _ = draw()
    head.requires_grad_(False)
    assert gradcheck(lambda h: lm_loss(h, head, targets, bias=bias), (hidden,))


def test_no_token_at_all_is_an_error():
    hidden, head, _, targets, _ = draw()
    with pytest.raises(ValueError, match="no token counts"):
        lm_loss(hidden, head, targets, torch.zeros(6))


def test_logprobs_are_those_of_the_softmax_and_stop_at_documents():
    torch.manual_seed(0)
    model = Transformer(Config(vocab=13, dim=16, layers=2, heads=2, context=8))
    ids = torch.randint(13, (2, 8))
    doc = torch.tensor([[0, 0, 0, 1, 1, 1, -1, -1], [0] * 8])
    value = logprobs(model, ids, doc)
    table = model.logits(model(ids, doc=doc)).log_softmax(-1)
    want = table[:, :-1].gather(2, ids[:, 1:, None])[..., 0]
    want[0, 2] = want[0, 5] = want[0, 6] = 0  # over a border, into padding, inside of it
    torch.testing.assert_close(value, want, rtol=0, atol=1e-5)
    torch.testing.assert_close(logprobs(model, ids)[1], want[1], rtol=0, atol=1e-5)
    assert logprobs(model.double(), ids).dtype == torch.float64
