"""lm-eval's requests: the numbers of its own Hugging Face backend, and answers that end where they should."""

import json

import pytest
import tokenizers
import torch

from gen_transformer.config import Config
from gen_transformer.evaluate import loglikelihood, score_each
from gen_transformer.generate import complete
from gen_transformer.harness import answer, harness
from gen_transformer.hf import load, save
from gen_transformer.model import Transformer
from gen_transformer.sampling import greedy, sampler
from gen_transformer.tokenizer import Tokenizer, train_bpe

TEXT = "In the beginning God created the heaven and the earth. And the earth was without form, and void;\n"
PAIRS = [
    ("In the beginning", " God created"),
    ("", "In the beginning"),
    ("And the earth was ", "without form"),  # the blank goes over to the continuation
    ("And the earth\n\n", "was void"),
    (TEXT * 4, "And God said"),  # longer than the context
]
QUESTIONS = [
    {"q": "In the beginning God created", "choices": [" the heaven", " void", " form and"], "answer": 1},
    {"q": "And the earth was", "choices": [" God", " the beginning", " without"], "answer": 0},
    {"q": "the", "choices": [" earth", " heaven and the earth", " a"], "answer": 2},
    {"q": "God created ", "choices": ["earth", "heaven and the earth", "in"], "answer": 1},
]
# by HFLM of lm-eval 0.4.13 on transformers 5.23, in `test_every_number_is_that_of_the_hugging_face_backend`
GOLDEN = [-11.5077877, -17.1825981, -11.2538223, -29.4013824, -34.3557510]
GOLDEN_ROLLING = [-120.0875244, -601.3938713]


@pytest.fixture(scope="module")
def tok():
    return train_bpe([TEXT * 9], 330, specials=["<s>"])


@pytest.fixture(scope="module")
def model(tok):
    model = Transformer(Config(vocab=len(tok), dim=32, layers=2, heads=4, kv_heads=2, ffn=64, context=48))
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(0, 0.2, generator=g)
    return model.eval()


def test_log_likelihoods_are_those_of_the_hugging_face_backend(model, tok):
    empty = tok.special("<s>")
    assert [v for v, _ in loglikelihood(model, tok, PAIRS, empty=empty)] == pytest.approx(GOLDEN, abs=1e-3)
    rolling = [-s.nats for s in score_each(model, tok, [TEXT, TEXT * 5], bos=empty)]
    assert rolling == pytest.approx(GOLDEN_ROLLING, abs=1e-3)


def test_answers_are_what_generation_says_up_to_a_stop(model, tok):
    prompts = ["In the beginning", "God"]
    whole = [tok.decode(complete(model, torch.tensor([tok.encode(p)]), 12, warp=greedy)[0].tolist()) for p in prompts]
    assert answer(model, tok, prompts, 12, warp=greedy) == whole
    stop, other = whole[0][3:5], whole[1][6]
    until = [stop, other]
    want = [min((text.split(s)[0] for s in until), key=len) for text in whole]
    assert answer(model, tok, prompts, 12, until=until, warp=greedy) == want


def test_answers_end_at_the_end_id_which_is_not_part_of_them(model, tok):
    ids = complete(model, torch.tensor([tok.encode("God")]), 9, warp=greedy)[0].tolist()
    end = ids[4]
    assert answer(model, tok, ["God"], 9, end=end, warp=greedy) == [tok.decode(ids[: ids.index(end)])]


def test_answers_end_at_any_of_several_ids(model, tok):
    ids = complete(model, torch.tensor([tok.encode("God")]), 9, warp=greedy)[0].tolist()
    first = min(ids.index(ids[4]), ids.index(ids[2]))
    assert answer(model, tok, ["God"], 9, end=[ids[4], ids[2]], warp=greedy) == [tok.decode(ids[:first])]


def test_rows_of_a_padded_table_are_no_answer(tok):
    """A table of 400 rows for 330 tokens, of which the last are the likeliest: the answer is that of 330 rows."""
    models = [Transformer(Config(vocab=n, dim=32, layers=1, heads=2, context=48, tie=False)) for n in (330, 400)]
    small, padded = models
    state = {k: x for k, x in small.state_dict().items() if x.shape[:1] != (330,)}
    padded.load_state_dict(state, strict=False)
    with torch.no_grad():
        for ours, theirs in ((padded.tokens, small.tokens), (padded.head, small.head)):
            ours.weight[:330] = theirs.weight
        padded.head.weight[330:] = 9 * small.head.weight[:70]
    assert len(tok) <= 330
    assert answer(padded, tok, ["God"], 9, warp=greedy) == answer(small, tok, ["God"], 9, warp=greedy)
    new = complete(padded, torch.tensor([tok.encode("God")]), 9, warp=greedy)
    assert (new >= len(tok)).any(), "or there would be nothing to keep out"


def test_an_answer_begins_with_its_blank_where_decoders_strip_the_first():
    """Llama's kind of tokenizer: prompt and answer are one text."""
    vocab = [("▁the", -1.0), ("▁cat", -1.0), ("▁sat", -1.0), ("s", -1.0), ("?", -9.0)]
    inner = tokenizers.Tokenizer(tokenizers.models.Unigram(vocab, 4))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    inner.decoder = tokenizers.decoders.Metaspace()
    tok = Tokenizer(inner)
    model = Transformer(Config(vocab=4, dim=8, layers=1, heads=1, context=16))
    with torch.no_grad():  # every token is followed by the next one
        model.tokens.weight.copy_(torch.eye(4, 8))
        model.head.weight.copy_(torch.eye(4, 8).roll(1, 0))
        for p in model.blocks.parameters():
            p.zero_()
    assert tok.encode("the") == [0] and tok.decode([1, 2]) == "cat sat"
    assert answer(model, tok, ["the"], 3, warp=greedy) == [" cat sats"]
    assert answer(model, tok, ["the"], 3, until=[" sat"], warp=greedy) == [" cat"]


def test_long_prompts_are_cut_on_the_left_to_leave_room(model, tok):
    ids = tok.encode(TEXT * 3)
    want = complete(model, torch.tensor([ids[-(48 - 6) :]]), 6, warp=greedy)[0].tolist()
    assert answer(model, tok, [TEXT * 3], 6, warp=greedy) == [tok.decode(want)]
    with pytest.raises(ValueError, match="48 new tokens leave no room for a prompt in a context of 48"):
        answer(model, tok, ["God"], 48)


def test_sampled_answers_are_functions_of_the_generator(model, tok):
    a, b, c = (
        answer(model, tok, ["God"], 20, warp=sampler(1.0), generator=torch.Generator().manual_seed(s))
        for s in (1, 1, 2)
    )
    assert a == b != c


# ---------------------------------------------------------------------- against lm-eval


@pytest.fixture(scope="module")
def both(model, tok, tmp_path_factory):
    """Our adapter and lm-eval's Hugging Face backend over one directory."""
    pytest.importorskip("lm_eval")
    transformers = pytest.importorskip("transformers")
    from lm_eval.models.huggingface import HFLM

    folder = tmp_path_factory.mktemp("llama")
    save(model, folder)
    tok.save(folder)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, eos_token="<s>", pad_token="<s>")
    hf = HFLM(theirs, tokenizer=tokenizer, device="cpu", batch_size=2, max_length=48)
    end = tok.special("<s>")
    return harness(load(folder), tok, empty=end, end=end, new_tokens=16, batch_size=3), hf


def instances(kind, arguments):
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, args, i) for i, args in enumerate(arguments)]


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_every_number_is_that_of_the_hugging_face_backend(both):
    ours, theirs = (lm.loglikelihood(instances("loglikelihood", PAIRS)) for lm in both)
    assert [v for v, _ in ours] == pytest.approx([v for v, _ in theirs], abs=1e-3)
    assert [g for _, g in ours] == [g for _, g in theirs]
    assert [v for v, _ in theirs] == pytest.approx(GOLDEN, abs=1e-3)
    texts = [(TEXT,), (TEXT * 5,)]
    ours, theirs = (lm.loglikelihood_rolling(instances("loglikelihood_rolling", texts)) for lm in both)
    assert ours == pytest.approx(theirs, abs=1e-3)
    assert theirs == pytest.approx(GOLDEN_ROLLING, abs=1e-3)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_greedy_answers_are_those_of_the_hugging_face_backend(both):
    options = [{"until": ["e", "\n"], "max_gen_toks": 9}, {"until": [], "max_gen_toks": 12, "do_sample": False}]
    requests = [(prompt, kwargs) for prompt in ("In the beginning", "God", TEXT * 4) for kwargs in options]
    ours, theirs = (lm.generate_until(instances("generate_until", requests)) for lm in both)
    assert ours == theirs and any(ours)
    with pytest.raises(ValueError, match="the task asks for num_beams; generation here knows do_sample, "):
        both[0].generate_until(instances("generate_until", [("God", {"num_beams": 4})]))


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_simple_evaluate_drives_it(both, tmp_path):
    """A task of each kind, from a file: every metric as with the Hugging Face backend."""
    import lm_eval

    file = tmp_path / "questions.jsonl"
    file.write_text("".join(json.dumps(q) + "\n" for q in QUESTIONS))
    base = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(file)}}, "test_split": "test"}
    tasks = [
        base | {"task": "choice", "output_type": "multiple_choice", "doc_to_text": "{{q}}",
                "doc_to_choice": "{{choices}}", "doc_to_target": "{{answer}}",
                "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}]},
        base | {"task": "rolling", "output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{q}}",
                "metric_list": [{"metric": "bits_per_byte"}, {"metric": "word_perplexity"}]},
        base | {"task": "continue", "output_type": "generate_until", "doc_to_text": "{{q}}", "doc_to_target": "x",
                "generation_kwargs": {"until": ["."], "max_gen_toks": 8}, "metric_list": [{"metric": "exact_match"}]},
    ]  # fmt: skip
    ours, theirs = (
        lm_eval.simple_evaluate(lm, tasks=tasks, bootstrap_iters=0, log_samples=True, verbosity="ERROR") for lm in both
    )
    for task, metrics in theirs["results"].items():
        for name, value in metrics.items():
            if isinstance(value, float):
                assert ours["results"][task][name] == pytest.approx(value, rel=1e-4), (task, name)
    for a, b in zip(ours["samples"]["continue"], theirs["samples"]["continue"], strict=True):
        assert a["resps"] == b["resps"]
