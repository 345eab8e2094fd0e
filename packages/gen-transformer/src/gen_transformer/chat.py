"""Chats as tokens: which ids a conversation has, and which of them an assistant learns.

    tok = train_bpe(texts, 8000, specials=CHATML.controls)
    ids, mask = CHATML.render([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Salut"}], tok)
    ids = CHATML.prompt([{"role": "user", "content": "Hi"}], tok)    # the assistant goes on from here

Every piece is tokenised apart and control tokens are put in as ids, so the mask is known by construction, and a user
who types the name of a control token has typed text.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from gen_transformer.tokenizer import Tokenizer

Message = Mapping[str, Any]  # {"role": ..., "content": ...}, and "weight": 0 where an assistant's turn is not learnt
Rendered = tuple[list[int], list[int]]  # ids, and 1 where the assistant learns
ORDER = {
    "system": ("",),
    "user": ("", "system", "assistant"),
    "assistant": ("user", "tool"),
    "tool": ("assistant", "tool"),
}


@dataclass(frozen=True)
class Template:
    """What stands around the content of each turn.

    Template({"user": ("[INST]", "[/INST]"), "assistant": ("", "</s>")}, controls=("</s>",), start="<s>")
    """

    roles: Mapping[str, tuple[str, str]]
    """Role -> (before, after); names of control tokens in them are those tokens."""
    controls: tuple[str, ...] = ()
    """Names of the control tokens, which the tokenizer must have."""
    start: str = ""
    """What a conversation begins with, once."""
    assistant: str = "assistant"
    """The role that learns."""
    order: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: ORDER)
    """Role -> roles that it may follow, "" being the start."""

    def __post_init__(self):
        if self.assistant not in self.roles:
            raise ValueError(f"the learning role {self.assistant!r} is not in roles {list(self.roles)}; add its turn")

    def render(self, messages: Sequence[Message], tok: Tokenizer) -> Rendered:
        """The ids of a conversation, and a mask of the same length.

        The mask is 1 on what the assistant said and on the token that ends its turn, 0 on headers, on everybody else
        and on turns of weight 0. (Where nothing but text ends a turn, all of that text.)

        Raises:
            ValueError: for a role that is unknown or out of order, content that is no text, or another weight than
                0 and 1.
        """
        self._check(messages)
        ids = self._ids(self.start, tok)
        mask = [0] * len(ids)
        for message in messages:
            learns = self._learns(message)
            for text, plain, said in self._pieces(message["role"], message["content"]):
                new = tok.encode(text) if plain else self._ids(text, tok)
                ids += new
                mask += [int(said and learns)] * len(new)
        return ids, mask

    def learnt(self, messages: Sequence[Message]) -> list[int]:
        """Which turns are learnt: the assistant's, but those of weight 0."""
        return [i for i, message in enumerate(messages) if self._learns(message)]

    def prompt(self, messages: Sequence[Message], tok: Tokenizer) -> list[int]:
        """The ids of a conversation and of the header under which the assistant answers."""
        self._check([*messages, {"role": self.assistant, "content": ""}])
        return self.render(messages, tok)[0] + self._ids(self.roles[self.assistant][0], tok)

    def stop(self, tok: Tokenizer) -> list[int]:
        """The ids that end the assistant's turn: what generation stops at."""
        return self._ids(self._end()[0], tok)

    def to_jinja(self) -> str:
        """A Hugging Face chat_template, with `{% generation %}` around what the assistant said.

        It knows no weights. The ids are ours where the tokenizer does not merge across the border of header and
        content, and where no content holds the name of a control token: Hugging Face parses it.
        """
        turns = []
        for role, (before, after) in self.roles.items():
            said = f"{{{{ {before!r} }}}}{{{{ message['content'] }}}}{{{{ {after!r} }}}}"
            if role == self.assistant:
                end, rest = self._end()
                learnt = f"{{% generation %}}{{{{ message['content'] }}}}{{{{ {end!r} }}}}{{% endgeneration %}}"
                said = f"{{{{ {before!r} }}}}{learnt}{{{{ {rest!r} }}}}"
            turns.append(f"if message['role'] == {role!r} %}}{said}{{% ")
        unknown = "{{ raise_exception('unknown role ' ~ message['role']) }}"
        header = f"{{% if add_generation_prompt %}}{{{{ {self.roles[self.assistant][0]!r} }}}}{{% endif %}}"
        each = "{% " + "el".join(turns) + f"else %}}{unknown}{{% endif %}}"
        return f"{{{{ {self.start!r} }}}}{{% for message in messages %}}{each}{{% endfor %}}{header}"

    def _pieces(self, role: str, content: str) -> Iterator[tuple[str, bool, bool]]:
        """(text, whether it is only text, whether the assistant said it) of a turn."""
        before, after = self.roles[role]
        yield before, False, False
        if role != self.assistant:
            yield content, True, False
            yield after, False, False
            return
        end, rest = self._end()
        yield content, True, True
        yield end, False, True
        yield rest, False, False

    def _end(self) -> tuple[str, str]:
        """What follows the assistant, cut after the first control token."""
        after = self.roles[self.assistant][1]
        found = self._control().search(after)
        return (after[: found.end()], after[found.end() :]) if found else (after, "")

    def _learns(self, message: Message) -> bool:
        return message["role"] == self.assistant and message.get("weight") != 0

    def _control(self) -> re.Pattern[str]:
        longest = sorted(self.controls, key=len, reverse=True)
        return re.compile("(" + "|".join(map(re.escape, longest)) + ")" if longest else r"(?!)()")

    def _ids(self, text: str, tok: Tokenizer) -> list[int]:
        """Ids of the template's own words, in which control tokens are known by name."""
        parts = self._control().split(text)
        return [
            i for part in parts if part for i in ([tok.special(part)] if part in self.controls else tok.encode(part))
        ]

    def _check(self, messages: Sequence[Message]) -> None:
        if not messages:
            raise ValueError("an empty chat has nothing to render; give at least one turn")
        before = ""
        for i, message in enumerate(messages):
            role, content = message.get("role", ""), message.get("content")
            if role not in self.roles:
                raise ValueError(f"turn {i} has the role {role!r}; this template has {', '.join(self.roles)}")
            if not isinstance(content, str):
                raise ValueError(f"turn {i} ({role}) has {type(content).__name__} as content; give a string")
            if message.get("weight") not in (None, 0, *[1] * (role == self.assistant)):
                rule = f"turns of the {self.assistant} have 0 or 1, all others none or 0"
                raise ValueError(f"turn {i} ({role}) has the weight {message['weight']!r}; {rule}")
            if before not in self.order[role]:
                allowed = " or ".join(r or "the start" for r in self.order[role])
                raise ValueError(f"turn {i} ({role}) follows {before or 'the start'}; {role} turns follow {allowed}")
            before = role


CHATML = Template(
    {role: (f"<|im_start|>{role}\n", "<|im_end|>\n") for role in ORDER}, controls=("<|im_start|>", "<|im_end|>")
)


def batch(
    rows: Sequence[Sequence[Rendered]], length: int
) -> tuple[Int64[Tensor, "b t"], Int64[Tensor, "b t"], Float32[Tensor, "b t"], Int64[Tensor, "b t"]]:
    """Rendered chats as a batch of language modelling: (ids, targets, weight, doc), each of `length` tokens a row.

    Args:
        rows: the chats of each row, laid one after another as documents of their own; what is too long is cut.
    """
    filled = [_row(chats, length) for chats in rows]
    ids, targets, weight, doc = (torch.stack(column) for column in zip(*filled, strict=True))
    return ids, targets, weight.float(), doc


def _row(chats: Sequence[Rendered], length: int) -> list[Int64[Tensor, "t"]]:
    columns: list[list[int]] = [[], [], [], []]
    for number, (ids, mask) in enumerate(chats):
        for column, new in zip(columns, (ids, [*ids[1:], 0], [*mask[1:], 0], [number] * len(ids)), strict=True):
            column += new
    return [
        torch.tensor(column[:length] + [pad] * (length - len(column)))
        for column, pad in zip(columns, (0, 0, 0, -1), strict=True)
    ]
