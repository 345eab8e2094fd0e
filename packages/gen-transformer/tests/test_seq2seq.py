"""Seq2seq: scores against their formulas, padding, local attention, the encoder's last states."""

import math

import pytest
import torch

from gen_transformer.seq2seq import Alignment, Seq2Seq, plot_alignment

SCORES = ["dot", "general", "concat", "additive"]


def made(attention: str | None = "general", **local) -> Seq2Seq:
    torch.manual_seed(0)
    return Seq2Seq(11, 13, 8, attention, **local).double().eval()


def batch(seed: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randint(11, (3, 7), generator=g), torch.randint(13, (3, 5), generator=g), torch.tensor([7, 3, 5])


@pytest.mark.parametrize("score", SCORES)
def test_weights_are_the_softmax_of_the_score(score: str):
    """[Luong15] eq. 7, one pair of vectors at a time."""
    torch.manual_seed(0)
    align = Alignment(score, 4).double()
    q, h = torch.randn(4, dtype=torch.float64), torch.randn(6, 4, dtype=torch.float64)

    def formula(h_s):
        if score == "dot":
            return q @ h_s
        if score == "general":
            return q @ align.key.weight @ h_s
        w = torch.cat((align.query.weight, align.key.weight), 1)  # W [q; h] = W_q q + W_h h
        return align.v.weight[0] @ torch.tanh(w @ torch.cat((q, h_s)))

    want = torch.stack([formula(h_s) for h_s in h]).exp()
    a = align(q[None], align.keys(h[None]), torch.ones(1, 6).bool(), 0)[0]
    torch.testing.assert_close(a, want / want.sum())


@pytest.mark.parametrize("attention", [None, *SCORES])
def test_padding_changes_nothing(attention: str | None):
    """Rows of a padded batch equal each row alone; what stands in the padding does not matter."""
    model = made(attention)
    source, target, lengths = batch()
    logits, alignment = model(source, target, lengths)
    for row, n in enumerate(lengths):
        alone, weights = model(source[row : row + 1, :n], target[row : row + 1])
        torch.testing.assert_close(logits[row], alone[0], rtol=0, atol=1e-12)
        if alignment is not None:
            torch.testing.assert_close(alignment[row, :, :n], weights[0], rtol=0, atol=1e-12)
            assert (alignment[row, :, n:] == 0).all()
            torch.testing.assert_close(alignment[row].sum(-1), torch.ones(5, dtype=torch.float64))


def test_the_last_states_are_those_after_the_last_word_forward_and_after_the_first_backward():
    """Each direction as a one-way network of its own, the backward one over the reversed words."""
    model = made()
    source, _, lengths = batch()
    _, last = model.encoder(source, lengths)
    forward, backward = torch.nn.GRU(8, 4).double(), torch.nn.GRU(8, 4).double()
    for name, value in model.encoder.rnn.state_dict().items():
        one_way = backward if name.endswith("_reverse") else forward
        getattr(one_way, name.removesuffix("_reverse")).data.copy_(value)
    for row, n in enumerate(lengths):
        words = model.encoder.tokens(source[row, :n])
        want = torch.cat((forward(words)[1][0], backward(words.flip(0))[1][0]))
        torch.testing.assert_close(last[row], want, rtol=0, atol=1e-12)


def test_luong_asks_with_the_state_after_the_word_and_bahdanau_with_the_one_before():
    """So the last target word changes Luong's weights of its step, and not Bahdanau's."""
    source, target, lengths = batch()
    other = target.clone()
    other[:, -1] = (other[:, -1] + 1) % 13
    for attention, same in (("concat", False), ("additive", True)):
        model = made(attention)
        a, b = model(source, target, lengths)[1], model(source, other, lengths)[1]
        assert torch.equal(a[:, :-1], b[:, :-1])
        assert torch.equal(a[:, -1], b[:, -1]) is same


@pytest.mark.parametrize("score", SCORES)
def test_local_attention_that_sees_the_whole_source_is_global(score: str):
    source, target, lengths = batch()
    want = made(score)(source, target, lengths)
    got = made(score, window=7)(source, target, lengths)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
    model = made(score, window=1e6, predictive=True)  # the Gaussian is flat too
    model.load_state_dict(made(score).state_dict(), strict=False)
    torch.testing.assert_close(model(source, target, lengths), want, rtol=0, atol=1e-6)


def test_a_monotonic_window_looks_at_d_words_to_each_side_of_its_place():
    source, target, lengths = batch()
    _, alignment = made(window=1)(source, target, lengths)
    looked = [[(row[t] > 0).nonzero()[:, 0].tolist() for t in range(5)] for row in alignment]
    assert looked[0] == [[0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5]]
    assert looked[1] == [[0, 1], [0, 1, 2], [1, 2], [1, 2], [1, 2]]  # three words: the centre stops at the last


def test_a_predicted_window_falls_off_as_a_gaussian_of_half_its_width():
    """[Luong15] eq. 9 and 10: p = S sigmoid(v' tanh(W q)), weights align(q, h) exp(-(s - p)^2 / (2 (D/2)^2))."""
    torch.manual_seed(0)
    align = Alignment("dot", 4, window=3, predictive=True).double()
    q, h = torch.randn(1, 4, dtype=torch.float64), torch.randn(1, 9, 4, dtype=torch.float64)
    real = torch.arange(9)[None] < 8
    p = 8 * torch.sigmoid(align.centre[2].weight @ torch.tanh(align.centre[0].weight @ q[0])).item()
    scores = (h[0] @ q[0]).tolist()
    inside = [s for s in range(8) if abs(s - p) <= 3]
    total = sum(math.exp(scores[s]) for s in inside)
    want = [
        math.exp(scores[s]) / total * math.exp(-((s - p) ** 2) / (2 * 1.5**2)) if s in inside else 0 for s in range(9)
    ]
    got = align(q, h, real, 0)[0]
    torch.testing.assert_close(got, torch.tensor(want, dtype=torch.float64))
    assert 2 < len(inside) < 8


def test_teacher_forcing_with_what_it_says_repeats_greedy_decoding():
    model, (source, _, lengths) = made("additive"), batch()
    said, weights = model.greedy(source, lengths, start=12, end=99, limit=6)
    given = torch.cat((torch.full((3, 1), 12), said[:, :-1]), 1)
    logits, alignment = model(source, given, lengths)
    assert torch.equal(logits.argmax(-1), said)
    torch.testing.assert_close(alignment, weights)


def test_greedy_decoding_says_the_end_until_all_rows_have_said_it():
    model, (source, _, lengths) = made(), batch()
    free, _ = model.greedy(source, lengths, start=12, end=99, limit=6)
    end = int(free[0, 2])
    said, _ = model.greedy(source, lengths, start=12, end=end, limit=6)
    for row, own in zip(said, free, strict=True):
        stop = (own == end).nonzero()[:, 0].tolist()[:1]
        n = stop[0] + 1 if stop else 6
        assert row[:n].tolist() == own[: min(n, said.shape[1])].tolist() and (row[n:] == end).all()


def test_the_plot_shows_the_weights_with_their_words():
    a = torch.eye(3)[:2]
    figure = plot_alignment(a, ["das", "ist", "gut"], ["this", "is"])
    axes = figure.axes[0]
    assert (axes.images[0].get_array() == a.numpy()).all()
    assert [label.get_text() for label in axes.get_xticklabels()] == ["das", "ist", "gut"]
    with pytest.raises(ValueError, match="target has 3 words and the alignment 2 places"):
        plot_alignment(a, target=["a", "b", "c"])


def test_errors_say_what_is_wrong():
    with pytest.raises(ValueError, match="id 11 is outside"):
        made()(torch.tensor([[11]]), torch.tensor([[0]]))
    with pytest.raises(ValueError, match=r"sources have 1 to 2 words here, got lengths \[0\]"):
        made()(torch.tensor([[1, 2]]), torch.tensor([[0]]), torch.tensor([0]))
    with pytest.raises(ValueError, match="needs attention"):
        made(None, window=3)
    with pytest.raises(ValueError, match="give window"):
        made("dot", predictive=True)
