"""A language model as it is used: from a run of ours or a Hugging Face directory, with its tokeniser."""

import json
from pathlib import Path
from typing import cast

import torch

from gen_core.checkpoint import latest, load_tensors
from gen_core.config import from_dict
from gen_core.runtime import generator, select_device
from gen_transformer import Config, Tokenizer, Transformer, complete, hf, sampler


def load(path: Path, device: str = "auto") -> tuple[Transformer, Tokenizer]:
    """The newest weights of a run, or the model of a Hugging Face directory, with its tokeniser.

    Raises:
        FileNotFoundError: where there is neither.
        ValueError: for a run that is no language model's, or a directory whose model is no decoder.
    """
    where = select_device(device)
    tok = Tokenizer.load(path)
    if (path / "model.json").is_file():
        model = Transformer(from_dict(Config, json.loads((path / "model.json").read_text())))
        newest = latest(path)
        if newest is None:
            raise FileNotFoundError(f"{path} has no checkpoint yet; train it first: gen llm pretrain --resume {path}")
        state = load_tensors(newest / "task.safetensors")
        model.load_state_dict({name.removeprefix("model."): x for name, x in state.items()})
    else:
        model = hf.load(path)
    if not (isinstance(model, Transformer) and model.config.causal):
        raise ValueError(f"{path} holds a {type(model).__name__} that does not write; give a decoder, such as GPT-2's")
    return cast(Transformer, model.to(where).eval()), tok


def keep(run: Path, tok: Tokenizer, model: Transformer) -> None:
    """The tokeniser beside the weights, and the whole as a Hugging Face directory where a family has such a model."""
    tok.save(run)
    try:
        hf.save(model, run / "huggingface")
    except ValueError as reason:
        print(f"no Hugging Face directory is written: {reason}")
        return
    tok.save(run / "huggingface")


def write(run: Path, name: str, text: str) -> None:
    """For the page."""
    (run / "texts").mkdir(exist_ok=True)
    (run / "texts" / f"{name}.txt").write_text(text + "\n", encoding="utf-8")


def sample(model: Transformer, tok: Tokenizer, prompt: str, n: int, seed: int, t: float = 0.8) -> str:
    """A prompt and what follows it."""
    device = next(model.parameters()).device
    ids = torch.tensor([tok.encode(prompt)], device=device)
    most = min(n, model.config.context - ids.shape[1])
    training = model.training
    model.eval()
    text = prompt
    for piece in range(-(-n // most)):  # further than the context: go on from the last half of it
        new = complete(model, ids, most, warp=sampler(t), generator=generator(seed, "sample", piece))
        text += tok.decode(new[0])
        ids = torch.cat((ids, new), 1)[:, -(model.config.context // 2) :]
        most = model.config.context - ids.shape[1]
    model.train(training)
    return text
