"""A language model as it is used: from a run of ours or a Hugging Face directory, with its tokeniser."""

from functools import cached_property
from pathlib import Path

import torch

import gen_transformer
from gen_apps.llm.config import Pretrain, Tune
from gen_apps.llm.corpus import END
from gen_apps.opening import Trained
from gen_core.runtime import generator, select_device
from gen_transformer import Tokenizer, Transformer, complete, hf, sampler
from gen_transformer.sampling import known


class TrainedLM(Trained[Pretrain]):
    """generate(prompt, tokens, seed=...), and `tokenizer`; `network` gives hidden states, its `logits` their logits."""

    kind = Pretrain
    open_network = staticmethod(gen_transformer.load)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.load(self.run.path)

    def groups(self) -> dict[str, tuple[torch.Tensor, torch.Tensor | None]]:
        """None: texts are no points.

        Raises:
            ValueError: always, and says so.
        """
        raise ValueError(
            f"{self.run.path} is a language model, which has texts and no points to draw; read them in texts"
        )

    def generate(self, prompt: str = "\n", tokens: int = 200, *, seed: int = 0, temperature: float = 0.8) -> str:
        """The prompt and the text that continues it."""
        return sample(self.network, self.tokenizer, prompt, tokens, seed, temperature)


class TunedLM(TrainedLM):
    """A language model that was tuned on chats, with the methods of `TrainedLM`."""

    kind = Tune


def load(path: Path, device: str = "auto", *, dtype: torch.dtype | None = None) -> tuple[Transformer, Tokenizer]:
    """The newest weights of a run, or the model of a Hugging Face directory, with its tokeniser.

    Args:
        dtype: of the weights; None: as they are stored.

    Raises:
        FileNotFoundError: where there is neither.
        ValueError: for a run that is no language model's, or a directory whose model is no decoder.
    """
    tok, is_run = Tokenizer.load(path), (path / "model.json").is_file()
    model = gen_transformer.load(path) if is_run else hf.load(path, dtype=dtype)
    if not (isinstance(model, Transformer) and model.config.causal):
        raise ValueError(f"{path} holds a {type(model).__name__} that does not write; give a decoder, such as GPT-2's")
    return model.to(select_device(device)).eval(), tok


def ends(path: Path, tok: Tokenizer) -> list[int]:
    """The ids that end a text: of the files of a Hugging Face directory, and ours where the tokeniser has it."""
    theirs = [] if (path / "model.json").is_file() else hf.ends(path)
    return [*theirs, *([tok.specials[END]] if END in tok.specials else [])]


def export(run: Path, tok: Tokenizer, model: Transformer, *, end: str, template: str = "") -> None:
    """Write the model as a Hugging Face directory, where a family has such a model.

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
