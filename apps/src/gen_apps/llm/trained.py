"""A language model as it is used: from a run of ours or a Hugging Face directory, with its tokeniser."""

import json
from pathlib import Path
from typing import cast

import torch

from gen_apps.llm.corpus import END
from gen_core.checkpoint import load_tensors, sound
from gen_core.config import from_dict
from gen_core.runtime import generator, select_device
from gen_transformer import Config, Tokenizer, Transformer, complete, hf, sampler
from gen_transformer.sampling import known


def load(path: Path, device: str = "auto", *, dtype: torch.dtype | None = None) -> tuple[Transformer, Tokenizer]:
    """The newest weights of a run, or the model of a Hugging Face directory, with its tokeniser.

    Args:
        dtype: of the weights; None: as they are stored.

    Raises:
        FileNotFoundError: where there is neither.
        ValueError: for a run that is no language model's, or a directory whose model is no decoder.
    """
    where = select_device(device)
    tok = Tokenizer.load(path)
    if (path / "model.json").is_file():
        model = Transformer(from_dict(Config, json.loads((path / "model.json").read_text())))
        newest = sound(path, "task.safetensors")
        if newest is None:
            raise FileNotFoundError(f"{path} has no checkpoint yet; train it first: gen llm pretrain --resume {path}")
        state = load_tensors(newest / "task.safetensors")
        model.load_state_dict({name.removeprefix("model."): x for name, x in state.items()})
    else:
        model = hf.load(path, dtype=dtype)
    if not (isinstance(model, Transformer) and model.config.causal):
        raise ValueError(f"{path} holds a {type(model).__name__} that does not write; give a decoder, such as GPT-2's")
    return cast(Transformer, model.to(where).eval()), tok


def ends(path: Path, tok: Tokenizer) -> list[int]:
    """The ids that end a text: of the files of a Hugging Face directory, and ours where the tokeniser has it."""
    theirs = [] if (path / "model.json").is_file() else hf.ends(path)
    return [*theirs, *([tok.specials[END]] if END in tok.specials else [])]


def keep(run: Path, tok: Tokenizer, model: Transformer, *, end: str, template: str = "") -> None:
    """The whole as a Hugging Face directory, where a family has such a model.

    Args:
        end: the control token that generation stops at.
        template: a chat template of Jinja.
    """
    folder = run / "huggingface"
    try:
        hf.save(model, folder, eos_token_id=tok.specials.get(end))
    except ValueError as reason:
        print(f"no Hugging Face directory is written: {reason}")
        return
    tok.save(folder)
    if template:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")


def write(run: Path, name: str, text: str) -> None:
    """For the page."""
    (run / "texts").mkdir(exist_ok=True)
    (run / "texts" / f"{name}.txt").write_text(text + "\n", encoding="utf-8")


def sample(model: Transformer, tok: Tokenizer, prompt: str, n: int, seed: int, t: float = 0.8) -> str:
    """A prompt and the `n` tokens that follow it; where the context is full, the last half of it goes on."""
    device, context = next(model.parameters()).device, model.config.context
    seen, found = tok.encode(prompt), []
    training = model.training
    model.eval()
    while len(found) < n:
        seen = seen if len(seen) < context else seen[-max(1, context // 2) :]
        most = min(n - len(found), context + 1 - len(seen))  # the last one is not read
        source = generator(seed, "sample", len(found))
        warp = known(sampler(t), model.config.vocab, len(tok))
        new = complete(model, torch.tensor([seen], device=device), most, warp=warp, generator=source)[0].tolist()
        seen, found = seen + new, found + new
    model.train(training)
    return prompt + tok.continuation(tok.encode(prompt), found)
