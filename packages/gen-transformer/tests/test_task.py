"""One gradient whatever the micro-batches, the processes and the masks; exact resume; evaluation by tokens."""

import subprocess
import sys

import pytest
import torch
from torch.nn.functional import cross_entropy

from gen_core import Arrays, Loader, Trainer, seed_all
from gen_core.testing import check_task, launch
from gen_transformer.config import Config
from gen_transformer.model import EncoderDecoder, Transformer
from gen_transformer.rnn import CharRNN, RNNConfig
from gen_transformer.task import LMTask

VOCAB, T = 19, 8


def rows(n=16):
    """Sequences of which 0 to 90 % is masked, one row wholly, in two documents each."""
    g = torch.Generator().manual_seed(0)
    ids = torch.randint(VOCAB, (n, T + 1), generator=g)
    weight = (torch.rand(n, T, generator=g) > torch.linspace(0, 0.9, n)[:, None]).float()
    weight[3], weight[:, 4] = 0, 0
    doc = (torch.arange(T) > 4).long().expand(n, T).contiguous()
    return Arrays(ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), weight, doc)


def make(muon=None, dtype=torch.float64):
    seed_all(0)
    model = Transformer(Config(vocab=VOCAB, dim=16, layers=2, heads=2, kv_heads=1, context=T)).to(dtype)
    return LMTask(model, lr=1e-2, muon=muon), Loader(rows(), 8)


def train(micro_batch=None, muon=None, steps=3):
    task, data = make(muon)
    Trainer(task, device="cpu", micro_batch=micro_batch, clip=1.0).fit(data, steps)
    return {name: p.detach() for name, p in task.named_parameters()}


def distance(a, b):
    return max((a[name] - torch.as_tensor(b[name])).abs().max().item() for name in a)


def test_micro_batches_change_nothing():
    """3 of 8 rows at a time leaves 2, of other sizes and masks; a mean of their means would be another gradient."""
    whole = train()
    for size in (1, 3, 4):
        assert distance(whole, train(size)) < 1e-12


def test_two_processes_are_one():
    """Each has its own mask; gradients are averaged over tokens, not over processes, and clipped after that."""
    whole = train()
    for rank in launch(2, train):
        assert distance(whole, rank) < 1e-12


def test_two_processes_with_muon_and_micro_batches_are_one():
    """Muon's iteration is in float32, so that much of a difference is left."""
    whole = train(muon=0.02)
    for rank in launch(2, train, 2, 0.02):
        assert distance(whole, rank) < 1e-5


def make_small():
    return make(None, torch.float32)


def make_muon():
    return make(0.02, torch.float32)


@pytest.mark.parametrize("maker", [make_small, make_muon])
def test_the_task_keeps_the_trainers_promises(maker):
    check_task(maker, only=("resume", "bf16"))


def test_rows_without_a_token_add_nothing():
    """As when all tokens of one process are masked: no error there, and no nan in the mean over processes."""
    task, _ = make()
    ids, targets, weight, doc = (x[:2] for x in rows().tensors)
    loss = task.loss(ids, targets, torch.zeros_like(weight), doc)
    loss.backward()
    assert loss == 0 and all(p.grad is None or p.grad.eq(0).all() for p in task.parameters())


@pytest.mark.parametrize("kind", ["recurrent", "translation"])
def test_recurrent_networks_and_encoder_decoders_are_trained_alike(kind):
    """The loss is the cross-entropy of their own logits, smoothed, and evaluation is that without smoothing."""
    torch.manual_seed(0)
    ids, targets, weight, doc = (x[:6] for x in rows().tensors)
    cfg = Config(vocab=VOCAB, dim=16, layers=1, heads=2, context=T)
    if kind == "recurrent":
        model, source = CharRNN(RNNConfig(vocab=VOCAB, dim=16)), ()
        logits = model.logits(model(ids, doc=doc))
    else:
        model = EncoderDecoder(Config(vocab=VOCAB, dim=16, layers=1, heads=2, context=T, causal=False), cfg)
        torch.nn.init.normal_(model.bias)
        source = (ids.flip(1), doc.flip(1))
        logits = model.logits(model(source[0], ids, source_doc=source[1], doc=doc))
    task = LMTask(model, smoothing=0.1)
    nats = lambda s: cross_entropy(logits.mT, targets, reduction="none", label_smoothing=s) * weight
    loss = task.loss(ids, targets, weight, doc, *source)
    assert loss.item() == pytest.approx((nats(0.1).sum() / weight.sum()).item(), rel=1e-5)
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in task.parameters())
    with torch.no_grad():
        value, count = task.evaluate((ids, targets, weight, doc, *source))["loss"]
    torch.testing.assert_close((value * count)[count > 0], nats(0.0).sum(1)[count > 0])


def test_evaluation_is_a_mean_over_tokens():
    """Not over rows, which have 0 to 7 of them, nor spoilt by the row that has none."""
    task, _ = make()
    ids, targets, weight, doc = rows().tensors
    value = Trainer(task, device="cpu").evaluate(Loader(rows(), 5, shuffle=False))["loss"]
    table = task.model.logits(task.model(ids, doc=doc)).log_softmax(-1)
    nats = -table.gather(2, targets[..., None])[..., 0]
    assert value == pytest.approx(((nats * weight).sum() / weight.sum()).item(), rel=1e-6)


def test_a_token_learns_nothing_across_its_document():
    """The gradient of the second document's loss in the first document's embeddings is exactly 0."""
    task, _ = make()
    ids, _, _, doc = (x[:1] for x in rows().tensors)
    embeds = task.model.embed(ids).detach().requires_grad_()
    hidden = task.model(embeds=embeds, doc=doc)
    (hidden[:, 5:].square().sum()).backward()
    assert embeds.grad[:, :5].eq(0).all() and embeds.grad[:, 5:].ne(0).any()


def test_rows_without_doc_are_one_document_padded_on_the_right():
    """The same loss as with a doc that says so: a causal model does not look at what follows."""
    task, _ = make()
    ids, targets, weight, _ = rows().tensors
    weight = weight.clone()
    weight[:, 5:] = 0
    doc = torch.where(torch.arange(T) < 5, 0, -1).expand(len(ids), T)
    assert task.loss(ids, targets, weight).item() == pytest.approx(
        task.loss(ids, targets, weight, doc).item(), rel=1e-12
    )


def compile_and_compare():
    """Runs in a process of its own: the run-time checks of shapes in tests break graphs, and are no part of a task."""
    whole = torch.compile
    torch.compile = lambda f, **how: whole(f, backend="aot_eager", **how)  # the same graph without a C++ compiler
    weights = []
    for compiled in (False, True):
        seed_all(0)
        model = Transformer(Config(vocab=VOCAB, dim=16, layers=1, heads=2, context=T))
        task = LMTask(model, lr=1e-2, muon=0.02, compile=compiled)
        Trainer(task, device="cpu", clip=1.0).fit(Loader(rows(), 8), 3)
        weights.append(task.state_dict())
    torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_compiled_step_is_the_step():
    code = f"from gen_core.testing import load; load({__file__!r}).compile_and_compare()"
    subprocess.run([sys.executable, "-c", code], check=True)
