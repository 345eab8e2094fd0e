"""Adapters: nothing at first, the reference when off, ordinary weights when merged, peft's own numbers."""

import pytest
import torch

from gen_transformer import Config, Transformer, adapters_off, add_lora, merge_lora
from gen_transformer.alignment import join, token_logprobs

IDS = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])


def gpt(**options):
    torch.manual_seed(0)
    return Transformer(Config(vocab=12, dim=16, layers=2, heads=2, context=16, **options)).eval()


def logits(model):
    return model.logits(model(IDS)).detach()


def moved(model):
    for p in add_lora(model, rank=4, alpha=8, targets=("q", "v", "down")):
        torch.nn.init.normal_(p, std=0.3)
    return model


def test_new_adapters_change_nothing_and_alone_learn():
    model = gpt()
    before, numbers = logits(model), sum(p.numel() for p in model.parameters())
    new = add_lora(model, rank=4)
    assert torch.equal(logits(model), before)
    assert {id(p) for p in model.parameters() if p.requires_grad} == {id(p) for p in new}
    assert sum(p.numel() for p in model.parameters()) - numbers == sum(p.numel() for p in new) == 2 * 2 * 4 * 32


def test_off_they_are_the_model_before_without_dropout():
    plain = gpt()
    model = moved(gpt(dropout=0.5)).train()
    ids, mask, start = join([[1, 2], [3]], [[4, 5], [6]])
    assert not torch.allclose(logits(model.eval()), logits(plain))
    model.train()
    with adapters_off(model):
        assert torch.equal(logits(model), logits(plain))
        reference = token_logprobs(model, ids, mask, start)
    assert model.training and torch.equal(reference, token_logprobs(plain, ids, mask, start))
    assert not torch.allclose(logits(model.eval()), logits(plain))  # on again


def test_merged_weights_are_the_same_model():
    model = moved(gpt())
    before, names = logits(model), set(gpt().state_dict())
    merge_lora(model)
    assert torch.allclose(logits(model), before, atol=1e-6)
    assert set(model.state_dict()) == names and all(p.requires_grad for p in model.parameters())


def test_refusals():
    model = gpt()
    with pytest.raises(ValueError, match="no adapters to turn off"), adapters_off(model):
        pass
    with pytest.raises(ValueError, match="no linear map is called nothing"):
        add_lora(model, targets=("nothing",))
    with pytest.raises(ValueError, match="rank must be at least 1"):
        add_lora(gpt(), rank=0)
    add_lora(model)
    with pytest.raises(ValueError, match="has adapters already"):
        add_lora(model)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")  # what peft and transformers deprecate
def test_the_same_adapters_in_peft_give_the_same_logits():
    """peft 0.21.2 on a GPT-2 of transformers, whose maps are transposed: on, off and merged."""
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(vocab_size=12, n_positions=16, n_embd=16, n_layer=2, n_head=2)
    torch.manual_seed(0)
    ours = transformers.GPT2LMHeadModel(config).eval()
    theirs = transformers.GPT2LMHeadModel(config).eval()
    theirs.load_state_dict(ours.state_dict())
    plain = ours(IDS).logits
    settings = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["c_attn"], fan_in_fan_out=True, lora_dropout=0.0)
    theirs = peft.get_peft_model(theirs, settings)
    add_lora(ours, rank=4, alpha=8, targets=("c_attn",))
    mine = {n.removesuffix(".a"): m for n, m in ours.named_parameters() if n.endswith(".a")}
    for name, p in theirs.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.3)
            ours.get_submodule(name.split("base_model.model.")[1].split(".lora_B")[0]).b.data.copy_(p)
        if "lora_A" in name:
            mine[name.split("base_model.model.")[1].split(".lora_A")[0]].data.copy_(p)
    on = theirs(IDS).logits
    assert torch.allclose(ours(IDS).logits, on, atol=1e-6) and not torch.allclose(on, plain, atol=1e-2)
    with adapters_off(ours):
        assert torch.equal(ours(IDS).logits, plain)
    assert torch.allclose(merge_lora(ours)(IDS).logits, theirs.merge_and_unload()(IDS).logits, atol=1e-6)
