"""Captions: what a tokeniser keeps, and that neither padding nor an empty caption reaches the answer."""

import json

import pytest
import torch
from torch import nn

from gen_core.config import from_dict, to_dict
from gen_diffusion import Preconditioned
from gen_diffusion.text import BytePairs, Characters, Texted, TextEncoder, Words, embed_captions, tokenise

CAPTIONS = ["a red square left of a blue circle", "a green triangle above a red circle", "Élan, naïve & 日本"]


class Pooled(nn.Module):
    """The smallest network that reads a context: the first feature of its mean token, added to the answer."""

    def forward(self, x, c_noise, *, context=None, context_mask=None, label=None):
        if context is None:
            return x
        mean = (context * context_mask[..., None]).sum(1) / context_mask.sum(1).clamp_min(1)[:, None]
        return x + mean[:, 0].reshape(-1, *[1] * (x.ndim - 1))


@pytest.mark.parametrize("kind", [Words, Characters, BytePairs])
def test_a_tokeniser_tells_its_texts_apart_and_survives_json(kind):
    """Ids are 1 ... size - 1, all three texts differ, and the tokeniser that JSON gives back says the same."""
    if kind is BytePairs:
        pytest.importorskip("tokenizers")
    tokeniser = kind.fit(CAPTIONS)
    rows = [tokeniser(text) for text in CAPTIONS]
    assert len({tuple(row) for row in rows}) == 3 and tokeniser("") == []
    assert all(1 <= i < tokeniser.size for row in rows for i in row)
    again = from_dict(kind, json.loads(json.dumps(to_dict(tokeniser))))
    assert again == tokeniser and [again(text) for text in CAPTIONS] == rows


def test_byte_pairs_know_every_string():
    pytest.importorskip("tokenizers")
    tokeniser = BytePairs.fit(CAPTIONS, size=300)
    assert tokeniser.size <= 300 and len(tokeniser("Ω🜁 never seen")) > 0
    with pytest.raises(ValueError, match="at least 257"):
        BytePairs.fit(CAPTIONS, size=256)


def test_unknown_words_are_named_with_the_nearest_known():
    words = Words.fit(CAPTIONS)
    with pytest.raises(ValueError, match=r"'sqare' is not in the vocabulary of 15; nearest: 'square'"):
        words("a red sqare")
    assert words("A RED square") == words("a red square")
    with pytest.raises(ValueError, match="'z'"):
        Characters("abc")("az")


def test_nothing_is_cut_off_in_silence():
    words = Words.fit(CAPTIONS)
    assert tokenise(["", ""], words).tolist() == [[0], [0]]
    assert tokenise(CAPTIONS[:2], words, length=9).shape == (2, 9)
    with pytest.raises(ValueError, match="length=8"):
        tokenise(CAPTIONS[:2], words, length=7)
    with pytest.raises(ValueError, match="built for length=5"):
        TextEncoder(words.size, length=5)(tokenise(CAPTIONS[:2], words))


@pytest.mark.parametrize("training", [True, False])
def test_padding_changes_nothing(training):
    """A caption's context is the same alone, among longer ones and padded further; batch == width on the way."""
    torch.manual_seed(0)
    words = Words.fit(CAPTIONS)
    encoder = TextEncoder(words.size, width=8, heads=2, length=16).train(training)
    ids = tokenise([*CAPTIONS, "", "red", "a", "a a", "blue"], words)
    with torch.no_grad():  # evaluation without gradients takes torch's fast path
        context, mask = encoder(ids)
        wide, wide_mask = encoder(torch.nn.functional.pad(ids, (0, 7)))
        alone, _ = encoder(ids[4:5, :1])
    torch.testing.assert_close(wide[:, : ids.shape[1]], context)
    torch.testing.assert_close(alone[0], context[4, :1])
    assert not wide_mask[:, ids.shape[1] :].any() and (mask == (ids > 0)).all()
    assert (wide[~wide_mask] == 0).all() and context.isfinite().all()


def test_the_order_of_words_matters_from_the_start():
    """A bag of words cannot tell who is on the left; two words swapped change much of what another word changes."""
    torch.manual_seed(0)
    words = Words.fit(CAPTIONS)
    ids = tokenise(["red left of blue", "blue left of red", "green left of square"], words)
    sums = torch.stack([TextEncoder(words.size, width=16)(ids)[0].sum(1) for _ in range(50)])
    swapped, other = ((sums[:, 0] - sums[:, i]).square().mean().sqrt() for i in (1, 2))
    assert swapped > other / 10  # a hundredth, were places drawn at a fiftieth of the tokens


def test_an_empty_caption_is_no_caption():
    """Texted with a row of zeros answers as without text: what classifier-free guidance subtracts."""
    torch.manual_seed(0)
    words = Words.fit(CAPTIONS)
    denoiser = Preconditioned(Texted(Pooled(), TextEncoder(words.size, width=8)))
    x, sigma = torch.randn(3, 1, 3, 3), torch.tensor([0.1, 1.0, 10.0])
    text = tokenise([CAPTIONS[0], "", CAPTIONS[1]], words)
    told, untold = denoiser(x, sigma, text=text), denoiser(x, sigma)
    torch.testing.assert_close(told[1], untold[1])
    assert (told[0] - untold[0]).abs().max() > 1e-4 and (told[2] - untold[2]).abs().max() > 1e-4


def test_the_encoder_learns_through_the_network():
    words = Words.fit(CAPTIONS)
    texted = Texted(Pooled(), TextEncoder(words.size, width=8))
    texted(torch.randn(3, 2), torch.zeros(3), text=tokenise(["", *CAPTIONS[:2]], words)).square().sum().backward()
    gradients = [p.grad for p in texted.encoder.parameters()]
    assert all(g is not None and g.isfinite().all() for g in gradients)
    assert texted.encoder.token.weight.grad.abs().sum() > 0


def test_frozen_encoders_embed_each_caption_once():
    calls = []

    def embed(text):
        calls.append(text)
        return torch.full((len(text), 4), float(len(text)), requires_grad=True)

    context, mask = embed_captions(["abc", "", "a"], embed)
    assert calls == ["abc", "a"] and not context.requires_grad
    assert mask.sum(1).tolist() == [3, 0, 1] and (context[~mask] == 0).all() and (context[0] == 3).all()
    context, mask = embed_captions(["abc", "d"], lambda text: torch.ones(4))
    assert context.shape == (2, 1, 4) and mask.all()
    with pytest.raises(ValueError, match="none of the 2 captions"):
        embed_captions(["", ""], embed)
