"""`gen completion bash|zsh|fish`: a script that completes commands, flags and names of data.

eval "$(gen completion bash)"
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import tyro


@dataclass(frozen=True)
class Completion:
    """Print a script that completes commands and flags: for a shell to read when it starts; it knows names of data."""

    shell: tyro.conf.Positional[Literal["bash", "zsh", "fish"]] = "bash"
    """bash and zsh: eval "$(gen completion bash)" in ~/.bashrc or ~/.zshrc; fish: gen completion fish | source."""


def completion(config: Completion) -> None:
    from gen_apps.__main__ import COMMANDS, GREEN, find

    flags = {}
    for name, (place, _) in COMMANDS.items():
        cls = find(place)
        flags[name] = [*sorted(flag_names(cls)), *sets(cls)]
    print((_fish if config.shell == "fish" else _bash)(flags | {name: ["--help"] for name in GREEN}, config.shell))


def sets(cls: Any) -> list[str]:
    """The names of sets of data that the first argument of a command may be.

    >>> from gen_apps.llm.config import Pretrain
    >>> sets(Pretrain)
    ['descriptions', 'shakespeare', 'handbook-en', 'handbook-fr', 'kjv']
    """
    from gen_apps.catalogue.config import SetName
    from gen_apps.catalogue.entries import ENTRIES
    from gen_apps.command import DataName
    from gen_apps.llm.config import Texts

    hints = get_type_hints(cls, include_extras=True).values()
    return [
        entry.name
        for entry in ENTRIES
        if SetName in hints
        or (DataName in hints and entry.takers == "DATA")
        or (Texts in hints and entry.takers == "TEXT")
    ]


def flag_names(cls: Any, prefix: str = "") -> Iterator[str]:
    """The flags of a configuration, with those of nested ones: --optim.steps.

    >>> from gen_apps.runs.config import Embed
    >>> sorted(flag_names(Embed))
    ['--method', '--n', '--out', '--seed', '--size']
    """
    for name, hint in get_type_hints(cls, include_extras=True).items():
        if name not in {f.name for f in fields(cls)}:
            continue
        kind, marks = (get_args(hint)[0], get_args(hint)[1:]) if get_origin(hint) is Annotated else (hint, ())
        if any(mark is _POSITIONAL for mark in marks):
            continue
        flag = "" if any(getattr(mark, "name", None) == "" for mark in marks) else name.replace("_", "-")
        path = ".".join(part for part in (prefix, flag) if part)
        if is_dataclass(kind):
            yield from flag_names(kind, path)
        else:
            yield f"--{path}"


_POSITIONAL = get_args(tyro.conf.Positional[int])[1]


def _bash(flags: dict[str, list[str]], shell: str) -> str:
    cases = "\n".join(f'    "{name}") words="{" ".join(names)}" ;;' for name, names in flags.items())
    groups = {name.split()[0]: [] for name in flags}
    for group, _, word in (name.partition(" ") for name in flags):
        groups[group] += [word] if word else []
    firsts = "\n".join(f'    "{group}") words="{" ".join(words)}" ;;' for group, words in groups.items() if words)
    head = "autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else ""
    return f"""{head}_gen() {{
  local words="" current="${{COMP_WORDS[COMP_CWORD]}}" one="${{COMP_WORDS[1]}}"
  local two="$one ${{COMP_WORDS[2]}}"
  if [ "$COMP_CWORD" = 1 ]; then words="{" ".join(groups)}"; else
  case "$one" in
{firsts}
  esac
  [ "$COMP_CWORD" = 2 ] && [ -n "$words" ] || case "$two" in
{cases}
    *) case "$one" in
{cases}
    esac ;;
  esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  [ -n "${{COMPREPLY[*]}}" ] || COMPREPLY=($(compgen -f -- "$current"))
}}
complete -F _gen gen"""


def _fish(flags: dict[str, list[str]], shell: str) -> str:
    lines = []
    for name, names in flags.items():
        group, _, word = name.partition(" ")
        lines.append(f"complete -c gen -n '__fish_use_subcommand' -a {group}")
        seen = f"__fish_seen_subcommand_from {group}"
        if word:
            lines.append(f"complete -c gen -n '{seen}' -a {word}")
            seen += f"; and __fish_seen_subcommand_from {word}"
        for word in names:
            how = f"-l {word.removeprefix('--')}" if word.startswith("--") else f"-a {word}"
            lines.append(f"complete -c gen -n '{seen}' {how}")
    return "\n".join(dict.fromkeys(lines))
