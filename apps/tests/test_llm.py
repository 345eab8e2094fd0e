"""`gen llm ...` as a user types it, from raw text to a chat."""

import copy
import io
import json
import random
import shlex
from pathlib import Path

import pytest
import tokenizers
import torch

from gen_apps.__main__ import main
from gen_apps.llm import corpus, scaling, trained
from gen_apps.llm.build import opening
from gen_apps.llm.evaluate import questions
from gen_apps.llm.prepare import without_repeats
from gen_apps.llm.tune import read_chats, rows
from gen_core import Run
from gen_core.checkpoint import latest, load_tensors
from gen_core.testing import launch
from gen_transformer import Config, Tokenizer, Transformer, characters, complete, greedy, hf, score

ENGLISH = "The cat sees the dog and the dog sees the cat in the garden of the house.\n" * 40
FRENCH = "Le chat voit le chien et le chien voit le chat dans le jardin de la maison à côté.\n" * 40
CPU = "--machine.device cpu"
TINY = f"--optim.steps 6 --optim.batch-size 4 --network.layers 1 --network.dim 16 --network.heads 2 {CPU}"


def gen(*words: str) -> None:
    main([part for word in words for part in shlex.split(word)])


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    (folder / "en.txt").write_text(ENGLISH)
    (folder / "fr.txt").write_text(FRENCH, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def run(texts, tmp_path_factory) -> Path:
    """Two languages, mixed two to one."""
    path = tmp_path_factory.mktemp("llm") / "a"
    gen(f"llm pretrain {texts / 'en.txt'} {texts / 'fr.txt'} --ratios 2 1 --out {path} {TINY} --network.context 128")
    return path


@pytest.fixture(scope="module")
def chats(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("chats") / "echo.jsonl"
    turns = [[{"role": "user", "content": w}, {"role": "assistant", "content": w}] for w in ("cat", "dog") * 8]
    file.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in turns))
    return file


def test_pretraining_leaves_what_a_reader_needs(run):
    names = {p.name for p in run.iterdir()}
    assert names >= {"config.json", "model.json", "quality.json", "energy.json", "tokenizer.json", "report.html"}
    last = next(entry for entry in reversed(Run(run).metrics()) if "loss" in entry)  # samples add lines of their own
    assert {"loss", "val/en/loss", "val/fr/loss", "tokens_per_second", "tflops", "energy/joules"} <= last.keys()
    table = {row["name"]: row for row in json.loads((run / "quality.json").read_text())["rows"]}
    read = {name: values["tokens trained on"]["value"] for name, values in table.items()}
    assert read["en"] == pytest.approx(2 * read["fr"], rel=0.2), "mixed by tokens"
    page = (run / "report.html").read_text()
    assert "bits per byte" in page and "<h2>Texts</h2>" in page


def test_bits_per_byte_and_per_character_are_of_one_text(run):
    """French has characters of two bytes, so its two figures differ by their share; nats per token are per character
    with this tokeniser."""
    rows = json.loads((run / "quality.json").read_text())["rows"]
    for row, text in zip(rows, (ENGLISH, FRENCH), strict=True):
        held = text[-round(len(text) * 0.1) :]
        by = {name: v["value"] for name, v in row.items() if isinstance(v, dict)}
        assert row["n"] == len(held) - 1  # nothing stands before the first character: it is not predicted
        assert by["bits per character"] / 1.4426950409 == pytest.approx(by["nats per token"], rel=3e-4)
        bytes_per_character = len(held.encode()) / len(held)
        assert by["bits per character"] / by["bits per byte"] == pytest.approx(bytes_per_character, rel=1e-6)


def test_the_same_command_again_changes_nothing_and_an_interrupted_run_ends_alike(run, texts, tmp_path, monkeypatch):
    from gen_core import Interrupted, Jsonl

    before = (latest(run) / "task.safetensors").read_bytes()
    gen(f"llm pretrain --resume {run} {CPU}")
    assert (latest(run) / "task.safetensors").read_bytes() == before
    log = Jsonl.on_step_end
    command = (
        f"llm pretrain {texts / 'en.txt'} {texts / 'fr.txt'} --ratios 2 1 --out {tmp_path / 'b'} {TINY} "
        "--network.context 128"
    )
    with monkeypatch.context() as m, pytest.raises(Interrupted):
        m.setattr(Jsonl, "on_step_end", lambda self, t, metrics: (log(self, t, metrics), t.step == 3 and t._note(2)))
        gen(command)
    gen(command)
    assert (latest(tmp_path / "b") / "task.safetensors").read_bytes() == before


def _again(texts: str, out: str) -> None:
    gen(f"llm pretrain {texts}/en.txt {texts}/fr.txt --ratios 2 1 --out {out} {TINY} --network.context 128")


def test_two_processes_train_what_one_does(run, texts, tmp_path):
    launch(2, _again, str(texts), str(tmp_path / "two"))
    one, two = (load_tensors(latest(path) / "task.safetensors") for path in (run, tmp_path / "two"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5)


def _prepare(text: str, folder: str) -> str:
    return corpus.prepare([text], Path(folder), tokenizer="bpe:300", held_out=0.1, encoding="utf-8")[0].fingerprint


def test_one_process_writes_the_tokens_and_the_others_wait(tmp_path):
    """Two that wrote would both move their shard to one place, and the second would fail."""
    (tmp_path / "long.txt").write_text(ENGLISH * 200)
    one, two = launch(2, _prepare, str(tmp_path / "long.txt"), str(tmp_path / "data"))
    assert one == two


def test_tokens_of_another_text_or_tokeniser_are_not_taken_for_these(texts, tmp_path):
    english, french = str(texts / "en.txt"), str(texts / "fr.txt")
    first = _prepare(english, str(tmp_path / "d"))
    assert _prepare(english, str(tmp_path / "d")) == first
    with pytest.raises(ValueError, match=r"was made for .*en\.txt.*, not .*fr\.txt.*; remove it"):
        _prepare(french, str(tmp_path / "d"))


def _tune(run: str, chats: str, out: str) -> None:
    gen(f"llm tune {run} {chats} --out {out} --optim.steps 2 --optim.batch-size 2 {CPU}")


def test_two_processes_tune_what_one_does(run, chats, tmp_path):
    """To the end: the last evaluation is everybody's."""
    _tune(str(run), str(chats), str(tmp_path / "one"))
    launch(2, _tune, str(run), str(chats), str(tmp_path / "two"))
    one, two = (load_tensors(latest(tmp_path / name) / "task.safetensors") for name in ("one", "two"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5)


def test_a_text_depends_on_its_number_and_the_seed_alone(run, capsys):
    def written(flags: str) -> list[str]:
        capsys.readouterr()
        gen(f"llm generate {run} 'The c' --tokens 12 --device cpu {flags}")
        return capsys.readouterr().out.split("\n" + "-" * 20 + "\n")

    three = written("--n 3")
    assert written("--n 1")[0].strip("\n") == three[0].strip("\n") and len(set(three)) > 1
    assert written("--n 1 --seed 1") != three[:1]
    assert all(text.startswith("The c") for text in three)
    greedy = "--sampling.temperature 0"
    assert written(greedy) == written(f"{greedy} --draft {run}")


def test_tuning_teaches_what_the_assistant_says_and_chat_answers(run, chats, tmp_path, capsys, monkeypatch):
    path = tmp_path / "tuned"
    gen(
        f"llm tune {run} {chats} --out {path} --optim.steps 60 --optim.lr 0.01 --optim.muon 0.02 {CPU} "
        "--optim.batch-size 2"
    )
    capsys.readouterr()
    monkeypatch.setattr("sys.stdin", io.StringIO("dog\n\n"))
    gen(f"llm chat {path} --device cpu")
    assert capsys.readouterr().out == "dog\n"
    monkeypatch.setattr("sys.stdin", io.StringIO("cat\n"))
    gen(f"llm chat {path} --device cpu")
    assert capsys.readouterr().out == "cat\n"


def copies(folder: Path, cfg: Config, tok: Tokenizer) -> Transformer:
    """A Hugging Face directory of a model with weights of a seed."""
    torch.manual_seed(0)
    model = Transformer(cfg)
    hf.save(model, folder)
    tok.save(folder)
    return model


def counting(folder: Path, vocab: int, tok: Tokenizer) -> Transformer:
    """A Hugging Face directory of a model that says the next id after each, 0 after the last."""
    model = Transformer(Config(vocab, 16, 1, 2, context=64))
    with torch.no_grad():
        for p in model.blocks.parameters():
            p.zero_()
        model.tokens.weight.copy_(torch.eye(vocab, 16))
        model.head.weight.copy_(torch.eye(vocab, 16).roll(1, 0))
    hf.save(model, folder)
    tok.save(folder)
    return model


def test_tuning_shows_a_held_out_chat_that_begins_with_a_system_turn(tmp_path, capsys):
    """All that stands before the first answer that is learnt."""
    tok = characters(ENGLISH + "systemuserassistant", corpus.CONTROLS)
    copies(tmp_path / "base", Config(len(tok), 16, 1, 2, context=160), tok)
    turns = [("system", "the"), ("user", "cat"), ("assistant", "a"), ("user", "dog"), ("assistant", "sees")]
    chat = [{"role": role, "content": content} for role, content in turns]
    chat[2]["weight"] = 0
    (tmp_path / "c.jsonl").write_text(2 * (json.dumps({"messages": chat}) + "\n"))
    _tune(str(tmp_path / "base"), str(tmp_path / "c.jsonl"), str(tmp_path / "t"))
    assert "user: dog\nwanted: sees\nmodel: " in capsys.readouterr().out


def test_tuning_narrow_weights_of_a_padded_table_is_tuning_wide_ones(tmp_path, chats, capsys):
    """bf16 stands on disk; float32 is trained, and no row of the table that is no token is said."""
    tok = characters(ENGLISH + "\nsystemuserassistant", corpus.CONTROLS)
    cfg = Config(
        len(tok) + 40, 16, 1, 2, context=64, norm="layer", mlp="gelu_tanh", pos="learned", bias="all", tie=True
    )
    copies(tmp_path / "wide", cfg, tok)
    narrow = hf.load(tmp_path / "wide", dtype=torch.bfloat16)
    for name, model in (("narrow", narrow), ("wide", copy.deepcopy(narrow).float())):
        hf.save(model, tmp_path / name)
        tok.save(tmp_path / name)
        _tune(str(tmp_path / name), str(chats), str(tmp_path / f"{name}-tuned"))
    one, two = (load_tensors(latest(tmp_path / f"{n}-tuned") / "task.safetensors") for n in ("narrow", "wide"))
    assert all(x.dtype == torch.float32 and torch.equal(x, two[name]) for name, x in one.items())
    assert "model: " in capsys.readouterr().out


def test_generation_ends_at_the_ids_of_the_directory(tmp_path, capsys):
    """Those of generation_config.json, which may be several, as in transformers."""
    tok = characters("abcdefgh")
    counting(tmp_path, 8, tok)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 5]}))
    gen(f"llm generate {tmp_path} ab --tokens 20 --device cpu --sampling.temperature 0")
    assert capsys.readouterr().out == "abcdef\n"


def test_prompt_and_continuation_are_one_text(tmp_path, capsys):
    """A tokeniser of Llama's kind, whose decoder strips the blank before the first word."""
    words = [("▁the", -1.0), ("▁cat", -1.0), ("▁sat", -1.0), ("?", -9.0)]
    inner = tokenizers.Tokenizer(tokenizers.models.Unigram(words, 3))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()  # pyright: ignore[reportAttributeAccessIssue]
    inner.decoder = tokenizers.decoders.Metaspace()  # pyright: ignore[reportAttributeAccessIssue]
    tok = Tokenizer(inner)
    model = counting(tmp_path, 3, tok)
    gen(f"llm generate {tmp_path} 'the cat' --tokens 4 --device cpu --sampling.temperature 0")
    assert capsys.readouterr().out == "the cat sat the cat sat\n"
    assert trained.sample(model, tok, "the cat", 5, 0).startswith("the cat ")


def test_separators_of_unicode_and_a_mark_are_no_lines(tmp_path):
    """In chats and questions; the line that is broken is named."""
    text = "a\u2028b\u0085c"
    chat = {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": text}]}
    question = {"context": text, "choices": [text, "b"], "answer": 0}
    for name, line in (("chats", chat), ("questions", question)):
        body = "\ufeff" + 2 * (json.dumps(line, ensure_ascii=False) + "\n")
        (tmp_path / f"{name}.jsonl").write_text(body, encoding="utf-8")
    assert read_chats(tmp_path / "chats.jsonl") == [chat["messages"]] * 2
    assert questions(tmp_path / "questions.jsonl") == [(text, [text, "b"], 0)] * 2
    (tmp_path / "n.csv").write_text("N,D,loss\n1,2,3\n", encoding="utf-8-sig")
    assert scaling.read(tmp_path / "n.csv") == [[1.0, 2.0, 3.0]]


def test_samples_have_the_length_that_is_asked_whatever_the_prompt_and_the_context():
    torch.manual_seed(0)
    tok = characters("abc", corpus.CONTROLS)
    for context in (1, 2, 8):
        model = Transformer(Config(len(tok), 8, 1, 1, context=context))
        for prompt in ("a", "abcabcabcabc"):
            assert opening(tok) == "a"
            assert trained.sample(model, tok, prompt, 21, 0).startswith(prompt)
            assert len(tok.encode(prompt)) + 21 == _length(tok, trained.sample(model, tok, prompt, 21, 0))


def _length(tok: Tokenizer, text: str) -> int:
    """Tokens, a control token's name being one."""
    for name in tok.specials:
        text = text.replace(name, "a")
    return len(tok.encode(text))


def test_chats_in_which_nothing_is_left_to_learn_are_left_out(capsys):
    tok = characters("abcsystemuserassistant\n", corpus.CONTROLS)
    turns = lambda question: [{"role": "user", "content": question}, {"role": "assistant", "content": "b"}]
    data = rows([turns("a" * 60), turns("a")], tok, 40)
    assert len(data) == 1 and data.tensors[2].sum() > 0
    assert "left out 1 chats" in capsys.readouterr().out
    with pytest.raises(ValueError, match="in none of 1 chats"):
        rows([turns("a" * 60)], tok, 40)


def test_frozen_blocks_stay_as_they_were(run, chats, tmp_path):
    gen(f"llm tune {run} {chats} --out {tmp_path / 'f'} --freeze --optim.steps 2 --optim.batch-size 1 {CPU}")
    before, after = (load_tensors(latest(path) / "task.safetensors") for path in (run, tmp_path / "f"))
    assert all(torch.equal(after[name], x) for name, x in before.items() if "blocks" in name)
    exported = json.loads((tmp_path / "f" / "huggingface" / "config.json").read_text())
    tok = Tokenizer.load(tmp_path / "f")
    assert exported["eos_token_id"] == tok.special("<|im_end|>"), "transformers stops where the answer ends"
    assert "<|im_start|>" in (tmp_path / "f" / "huggingface" / "chat_template.jinja").read_text()
    assert not torch.equal(after["model.head.weight"], before["model.head.weight"])


def test_a_tokeniser_of_one_language_costs_the_other(texts, tmp_path, capsys):
    gen(f"llm tokenizer {texts / 'en.txt'} --vocab 300 --out {tmp_path / 'en'}")
    gen(f"llm tokenizer {texts / 'en.txt'} {texts / 'fr.txt'} --vocab 330 --out {tmp_path / 'both'}")
    one, both = (Tokenizer.load(tmp_path / name) for name in ("en", "both"))
    assert len(both.encode(FRENCH)) < 0.7 * len(one.encode(FRENCH))
    assert "tokens per word" in capsys.readouterr().out


def test_data_says_what_it_left_out_and_trains(texts, tmp_path, capsys):
    pages = tmp_path / "pages.jsonl"
    say = random.Random(0)
    vocabulary = "the and of to that with have be time day night king queen sword horse road river song tree".split()
    words = [" ".join(say.choices(vocabulary, k=80)) for _ in range(9)]
    pages.write_text("".join(json.dumps({"text": t}) + "\n" for t in [*words, words[0], FRENCH, "short"]))
    (tmp_path / "test.txt").write_text(words[1])
    gen(
        f"llm data {pages} --language en --dedup --cut 60 --against {tmp_path / 'test.txt'} --tokenizer bpe:270 "
        f"--out {tmp_path / 'd'} --held-out 0.2"
    )
    said = capsys.readouterr().out
    assert "language 1" in said and "near copy" in said and "contaminated" in said
    gen(f"llm pretrain {tmp_path / 'd' / 'pages'} --out {tmp_path / 'r'} {TINY} --network.context 32")
    assert (tmp_path / "r" / "report.html").is_file()
    for again, sentence in [
        (f"llm data {pages} --quality --out {tmp_path / 'd'}", "d/pages is there already; remove it"),
        (f"llm pretrain {tmp_path / 'd' / 'pages'} --tokenizer bpe:300 --out {tmp_path / 's'}", "drop --tokenizer"),
    ]:
        with pytest.raises(SystemExit):
            gen(again)
        assert sentence in capsys.readouterr().err


def test_passages_that_stood_before_are_cut_where_they_stand_again(capsys):
    """From the second document and from what is held out; every character of more bytes than one stays whole."""
    notice = "Tous droits réservés — été 2024. "
    source = corpus.Source("x", ["un:" + notice + "deux", "trois " + notice + "quatre"], [notice, "cinq"])
    tok = corpus.learned("characters", [], [*source.training, *source.held_out])
    found = without_repeats(source, tok, len(notice))
    assert found == corpus.Source("x", ["un:" + notice + "deux", "trois quatre"], ["cinq"])
    assert f"x: {2 * len(notice)} of " in capsys.readouterr().out
    tok = corpus.learned("bpe:259", ["abc"], [])  # bytes
    assert without_repeats(source, tok, len(notice.encode())) == found


def test_a_hugging_face_directory_is_used_as_a_run_is(texts, tmp_path, capsys):
    torch.manual_seed(0)
    cfg = Config(262, 16, 1, 2, context=64, norm="layer", mlp="gelu_tanh", pos="learned", bias="all", tie=True)
    hf.save(Transformer(cfg), tmp_path / "hf")
    gen(f"llm tokenizer {texts / 'en.txt'} --vocab 262 --out {tmp_path / 'hf'}")
    gen(f"llm generate {tmp_path / 'hf'} 'The' --tokens 4 --device cpu")
    (tmp_path / "q.jsonl").write_text('{"context": "The", "choices": [" cat", " dog"], "answer": 0}\n')
    out = tmp_path / "eval.json"
    gen(f"llm eval {tmp_path / 'hf'} {texts / 'en.txt'} --choices {tmp_path / 'q.jsonl'} --device cpu --json {out}")
    assert "bits per byte" in json.loads(out.read_text())["rows"][0]
    assert "right of 1 by likelihood" in capsys.readouterr().out


def test_a_tokeniser_that_begins_texts_with_a_token_has_it_before_prompts_and_scored_texts(tmp_path, capsys):
    """As Llama's: the first token of a text is then predicted too, and the model writes after the token."""
    torch.manual_seed(0)
    tok = characters("The cat.\n", ["<s>"])
    tok.inner.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tok.special("<s>"))]
    )
    tok.save(tmp_path)
    model = Transformer(Config(len(tok), 16, 1, 2, context=8, tie=True))
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.5)
    hf.save(model, tmp_path)
    (tmp_path / "t.txt").write_text("The cat.")
    gen(f"llm eval {tmp_path} {tmp_path / 't.txt'} --device cpu")
    bits = score(model, tok, ["The cat."], bos=tok.special("<s>"), stride=4).bits_per_byte
    assert f" {bits:.4f} " in capsys.readouterr().out
    gen(f"llm generate {tmp_path} Th --tokens 5 --device cpu --sampling.temperature 0")
    ids = complete(model, torch.tensor([[tok.special("<s>"), *tok.encode("Th")]]), 5, warp=greedy)[0].tolist()
    wanted = "Th" + tok.decode([i for i in ids if i != tok.special("<s>")])
    assert capsys.readouterr().out.strip("\n") == wanted.strip("\n")


def test_rows_of_a_padded_table_are_no_tokens(tmp_path, capsys):
    """Three in four ids of the model are nobody's: none of a hundred is drawn."""
    torch.manual_seed(0)
    characters("The cat.\n").save(tmp_path)
    hf.save(Transformer(Config(36, 16, 1, 2, context=128)), tmp_path)
    gen(f"llm generate {tmp_path} Th --tokens 100 --device cpu")
    assert len(capsys.readouterr().out.rstrip("\n")) > 80


def test_scaling_finds_the_law_that_made_the_runs(run, tmp_path, capsys):
    rows = [(n, d, 1.8 + 480 / n**0.35 + 2000 / d**0.37) for n in (1e7, 1e8, 1e9) for d in (1e9, 1e10, 1e11)]
    file = tmp_path / "runs.csv"
    file.write_text("N,D,loss\n" + "".join(f"{n},{d},{l}\n" for n, d, l in rows))
    gen(f"llm scaling {file} --bootstrap 20 --budget 1e21 --out {tmp_path / 's.png'}")
    said = capsys.readouterr().out
    assert "/ N^0.35 " in said and "/ D^0.37\n" in said and (tmp_path / "s.png").stat().st_size > 1000
    point = json.loads((run / "scaling.json").read_text())
    assert point["D"] == pytest.approx(6 * 4 * 128, rel=0.05)


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("llm pretrain {tmp}/none.txt", "neither a file nor a folder"),
        ("llm pretrain {tmp}/latin.txt", "latin.txt (byte 0xe9)"),
        ("llm pretrain {tmp}/empty.txt", "holds no text"),
        ("llm pretrain {texts}/en.txt {texts}/en.txt", "2 TEXTs would have the name"),
        ("llm pretrain {texts}/en.txt --ratios 1 2", "2 shares for 1 TEXTs"),
        ("llm pretrain {texts}/en.txt --prompt ?", "'?' is not among the"),
        ("llm tune {run} {tmp}/bad.jsonl --held-out 1", "--held-out is a share between 0 and 1"),
        ("llm pretrain {texts}/en.txt --tokenizer bpe:many", "bpe:SIZE needs a number"),
        ("llm pretrain {texts}/en.txt --network.heads 3 --network.dim 16", "does not divide into 3 heads"),
        ("llm generate {run} 'Zebra!'", "not among the"),
        ("llm generate {run} The --tokens 1000", "do not fit the context of 128"),
        ("llm generate {tmp} The", "tokenizer.json"),
        ("llm tune {run} {tmp}/bad.jsonl", "line 1 is no chat"),
        ("llm tune {run} {tmp}/systems.jsonl", "follows system"),
        ("llm data {tmp}/half.jsonl", "half.jsonl line 2 has '\\ud83d', half of a surrogate pair"),
        ("llm tune {run} {tmp}/half.jsonl", "half.jsonl line 2 has '\\ud83d', half of a surrogate pair"),
        ("llm eval {run} --choices {tmp}/bad.jsonl", "bad.jsonl line 1 is no question: KeyError('context')"),
        ("llm eval {run}", "give TEXT, --choices or --tasks"),
        ("llm scaling {run}", "need 6 runs"),
    ],
)
def test_bad_input_is_one_sentence(command, sentence, run, texts, tmp_path, capsys):
    (tmp_path / "latin.txt").write_bytes("été".encode("latin-1"))
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "bad.jsonl").write_text("{}\n")
    fine = {"text": "a", "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "a"}]}
    (tmp_path / "half.jsonl").write_text(json.dumps(fine) + "\n" + '{"text": "a \\ud83d", "messages": []}\n')
    two = [{"role": "system", "content": "a"}, {"role": "system", "content": "b"}]
    (tmp_path / "systems.jsonl").write_text(2 * (json.dumps({"messages": two}) + "\n"))
    with pytest.raises(SystemExit) as exit:
        gen(
            command.format(run=run, texts=texts, tmp=tmp_path)
            + (f" --out {tmp_path / 'o'}" if "train" in command else "")
        )
    said = capsys.readouterr().err
    assert exit.value.code == 2 and sentence in " ".join(said.split())
    assert said.count("\n") == 1 or "full helptext" in said  # flags that contradict each other are shown in a frame
