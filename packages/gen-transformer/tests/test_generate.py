"""Text token by token: the cache changes nothing, rows are on their own, and a text ends where it should."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from gen_core.testing import load
from gen_transformer.config import Config
from gen_transformer.generate import complete, generate
from gen_transformer.model import EncoderDecoder, Transformer
from gen_transformer.prompt import left_pad
from gen_transformer.rnn import CharRNN, RNNConfig
from gen_transformer.sampling import greedy, sampler, temperature

golden = load(Path(__file__).with_name("generation_golden.py"))

SIZES = {"vocab": 11, "dim": 16, "layers": 3, "heads": 4, "context": 40}
CONFIGS = {
    "llama": Config(**SIZES, kv_heads=2, qk_norm=True),
    "gpt2": Config(**SIZES, norm="layer", mlp="gelu_tanh", pos="learned", bias="all", tie=True),
    "falcon": Config(**SIZES, kv_heads=1, norm="layer", mlp="gelu", parallel="one_norm"),
    "windows": Config(**SIZES, window=(3, 0)),
    "2017": Config(**SIZES, norm="layer", mlp="relu", pos="sinusoidal", post_norm=True),
    "no positions": Config(**SIZES, pos="none", softcap=15.0),
}
PROMPTS = [[3, 1, 4, 1, 5], [9], [2, 6, 5]]
NOISE = -torch.rand(64, 11, generator=torch.Generator().manual_seed(0)).log().neg().log()


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def lottery(logits: Tensor, ids: Tensor | None = None) -> Tensor:
    """The argmax of logits with noise of their place: a sample, always the same; greedy texts repeat themselves."""
    assert ids is not None
    return greedy(logits + 4 * NOISE[(ids >= 0).sum(1)])


def lively(model):
    """Weights large enough for texts that are not one token over and over."""
    for i, p in enumerate(model.parameters()):
        torch.nn.init.normal_(p, mean=float(p.ndim == 1), std=0.4, generator=seeded(i))
    return model.eval()


def models() -> dict:
    made = {name: lively(Transformer(cfg)) for name, cfg in CONFIGS.items()}
    made["recurrent"] = lively(CharRNN(RNNConfig(vocab=11, dim=16, layers=2)))
    return made


@torch.no_grad()
def without_cache(model, prompt: list[int], n: int) -> list[int]:
    """The text by the definition: all of it through the model for every token."""
    text = torch.tensor([prompt])
    for _ in range(n):
        text = torch.cat((text, lottery(model.logits(model(text)[:, -1]), text).argmax(-1)[:, None]), dim=1)
    return text[0, len(prompt) :].tolist()


@pytest.mark.parametrize("name, model", list(models().items()))
def test_text_with_cache_in_a_padded_batch_is_that_of_each_prompt_without(name, model):
    ids, doc = left_pad(PROMPTS)
    together = complete(model, ids, 16, doc=doc, warp=lottery)
    assert together.tolist() == [without_cache(model, prompt, 16) for prompt in PROMPTS]
    assert len(set(together.flatten().tolist())) > 3


@pytest.mark.parametrize("name, model", list(models().items()))
def test_hidden_states_in_chunks_are_those_of_the_whole_text(name, model):
    """A long prompt in two parts, then single tokens; a query must see up to itself, not the triangle from the left."""
    ids = torch.randint(11, (2, 20), generator=seeded(0))
    with torch.no_grad():
        whole = model(ids)
        cache = model.cache(2, 20)
        parts = [model(part, cache=cache) for part in ids.split([9, 6, 1, 1, 3], dim=1)]
        torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-5, rtol=1e-5)
        cache.crop(7)  # what a rejected guess needs
        torch.testing.assert_close(model(ids[:, 7:], cache=cache), whole[:, 7:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["llama", "gpt2", "recurrent"])
def test_sampled_text_of_a_row_does_not_depend_on_the_others(name):
    model, warp = models()[name], sampler(1.3, k=8, p=0.95, r=1.1)
    ids, doc = left_pad(PROMPTS)
    together = complete(model, ids, 12, doc=doc, warp=warp, generator=[seeded(i) for i in range(3)])
    for i, prompt in enumerate(PROMPTS):
        alone = complete(model, torch.tensor([prompt]), 12, warp=warp, generator=seeded(i))
        assert torch.equal(alone[0], together[i])
    one = complete(model, ids, 12, doc=doc, warp=warp, generator=seeded(7))
    fewer = complete(model, ids[:2], 12, doc=doc[:2], warp=warp, generator=seeded(7))
    assert torch.equal(one[:2], fewer)
    assert torch.equal(one[:, :5], complete(model, ids, 5, doc=doc, warp=warp, generator=seeded(7)))


def test_a_translation_goes_on_from_its_own_source():
    small = {"vocab": 11, "dim": 16, "layers": 2, "heads": 2, "context": 32}
    pair = lively(EncoderDecoder(Config(**small, causal=False), Config(**small)))
    source, source_doc = left_pad([[1, 2, 3, 4], [5, 6]])
    together = complete(pair.given(source, source_doc), torch.zeros(2, 1).long(), 9, warp=lottery).tolist()
    assert together == [without_cache(pair.given(torch.tensor([row])), [0], 9) for row in ([1, 2, 3, 4], [5, 6])]
    assert together[0] != together[1]


def test_greedy_text_is_that_of_transformers():
    """Values of 5.23.0, left-padded."""
    ids, doc = left_pad(golden.PROMPTS)
    assert complete(golden.llama(), ids, 20, doc=doc, warp=greedy).tolist() == golden.GOLDEN["greedy"]


@pytest.mark.peers
def test_greedy_text_is_that_of_transformers_live():
    ids, doc = left_pad(golden.PROMPTS)
    model = golden.llama()
    assert torch.equal(complete(model, ids, 20, doc=doc, warp=greedy), golden.greedy_text(golden.theirs(model)))


def test_temperature_0_is_greedy_by_either_path():
    model = models()["llama"]
    ids, doc = left_pad(PROMPTS)
    by_draws = complete(model, ids, 12, doc=doc, warp=lambda logits, ids: greedy(logits), generator=seeded(0))
    assert torch.equal(by_draws, complete(model, ids, 12, doc=doc, warp=temperature(0)))


def test_tokens_come_as_they_are_made():
    """The first token after one pass over the prompt, each other one after a pass over one token."""
    model, seen = models()["llama"], []
    model.register_forward_hook(lambda module, args, out: seen.append(args[0].shape[1]))
    stream = generate(model, torch.tensor([[1, 2, 3]]), 5)
    assert seen == []
    next(stream)
    assert seen == [3]
    list(stream)
    assert seen == [3, 1, 1, 1, 1]


# ---------------------------------------------------------------------- ends


class Script:
    """A model that writes given texts whatever it reads, one for each row."""

    def __init__(self, *texts: list[int]):
        self.texts, self.config = torch.tensor(texts), Config(vocab=11, dim=1, layers=1, heads=1, pos="none")

    def __call__(self, ids: Tensor, *, doc: Tensor | None = None, cache=None) -> Tensor:
        cache.append(ids)
        return self.texts[:, len(cache) - 1, None, None].float()

    def logits(self, hidden: Tensor) -> Tensor:
        return -(hidden - torch.arange(11)).abs()

    def cache(self, batch: int, length: int) -> list:
        return []


def written(stop, *texts: list[int], **options) -> list[list[int]]:
    start = torch.zeros(len(texts), 1).long()
    return complete(Script(*texts), start, len(texts[0]), warp=greedy, stop=stop, **options).tolist()


def test_a_row_ends_with_its_stop_and_the_text_with_the_last_row():
    texts = [1, 2, 3, 4, 5, 6], [4, 3, 2, 1, 2, 3]
    assert written(4, *texts) == [[1, 2, 3, 4], [4, -1, -1, -1]]
    assert written([6, 4], *texts) == [[1, 2, 3, 4], [4, -1, -1, -1]]
    assert written([[2, 3]], *texts) == [[1, 2, 3, -1, -1, -1], [4, 3, 2, 1, 2, 3]]
    assert written([[3, 2], 9], *texts) == [[1, 2, 3, 4, 5, 6], [4, 3, -1 + 3, -1, -1, -1]]
    assert written((), *texts) == list(map(list, texts))


def test_a_stop_in_the_prompt_does_not_count():
    assert written(0, [1, 2, 0, 3]) == [[1, 2, 0]]


def test_a_stop_string_may_lie_across_tokens():
    """Tokens of several characters, and of one byte of a character."""
    pieces = [b"a", b"b c", b" d", b"\xc3", b"\xa9", b"e", b"f", b"g", b"h", b"i", b"j"]
    decode = lambda ids: b"".join(pieces[i] for i in ids).decode(errors="replace").lstrip(" ")
    assert written("c d", [0, 1, 2, 0], decode=decode) == [[0, 1, 2]]
    assert written([" d", "xx"], [0, 1, 2, 0], decode=decode) == [[0, 1, 2]]
    assert written("\u00e9", [0, 3, 5, 3, 4, 0], decode=decode) == [[0, 3, 5, 3, 4]]
    assert written("ab c d", [5, 0, 1, 2, 0], [0, 1, 5, 5, 5], decode=decode) == [[5, 0, 1, 2, -1], [0, 1, 5, 5, 5]]


def test_a_stop_string_may_begin_with_the_blank_that_a_decoder_strips():
    """At the first token, too; the same string in the prompt is no stop."""
    pieces = [b" a", b" b", b"c"]
    decode = lambda ids: b"".join(pieces[i] for i in ids).decode().removeprefix(" ")
    assert written(" b", [1, 2, 2], decode=decode) == [[1]]
    assert written("ab", [2, 1, 2], decode=decode) == [[2, 1, 2]]
    assert written(" a", [2, 0, 2], decode=decode) == [[2, 0]]


def test_with_a_draft_a_row_ends_in_the_same_place():
    model = models()["llama"]
    ids, doc = left_pad(PROMPTS)
    plain = complete(model, ids, 16, doc=doc, warp=greedy, stop=[3, 7])
    assert (plain == -1).any()
    assert torch.equal(plain, complete(model, ids, 16, doc=doc, warp=greedy, stop=[3, 7], draft=models()["llama"]))


# ---------------------------------------------------------------------- what may be done with a text, and what not


def test_a_text_can_be_trained_on():
    """Tokens made under inference mode could not be saved for a backward pass."""
    model = models()["llama"].train()
    made = complete(model, torch.tensor([[1, 2]]), 6)
    model.logits(model(made)).logsumexp(-1).sum().backward()
    for token in generate(model, torch.tensor([[1, 2]]), 2):
        model(token[:, None]).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.blocks.parameters())


def prompt(*ids: int) -> Tensor:
    return torch.tensor([ids]).long()


@pytest.mark.parametrize(
    "ids, n, options, said",
    [
        (prompt(), 5, {}, "the prompt is empty"),
        (prompt(1, 11), 5, {}, "id 11 is outside"),
        (prompt(1, -2), 5, {}, "id -2 is outside"),
        (prompt(*[1] * 41), 1, {}, "41 tokens do not fit the context of 40"),
        (prompt(1, 2), 40, {}, "41 tokens do not fit the context of 40"),
        (prompt(1), 0, {}, "got n=0"),
        (prompt(1), 5, {"stop": "a"}, "stop at the string 'a', pass decode="),
        (prompt(1), 5, {"stop": "", "decode": str}, "a stop string is empty"),
        (prompt(1), 5, {"stop": [[]]}, "at least one id"),
        (prompt(1, 2), 5, {"doc": prompt(0, -1)}, "prompt 0 is empty or ends in padding"),
    ],
)
def test_what_is_refused_before_the_first_token(ids, n, options, said):
    with pytest.raises(ValueError, match=said) as error:
        generate(models()["llama"], ids, n, **options)
    assert "\n" not in str(error.value)


def test_an_empty_prompt_among_others_is_named():
    ids, doc = left_pad([[1, 2], [], [3]])
    with pytest.raises(ValueError, match="prompt 1 is empty"):
        generate(models()["llama"], ids, 3, doc=doc)


def test_the_context_can_be_filled():
    assert complete(models()["llama"], prompt(1, 2), 39).shape == (1, 39)


def test_weights_that_are_not_numbers_are_named():
    model = models()["llama"]
    model.head.weight.data[0, 0] = torch.nan
    for warp in (greedy, None):
        with pytest.raises(ValueError, match="the logits are not finite"):
            complete(model, prompt(1), 3, warp=warp)
