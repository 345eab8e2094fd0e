"""The command `gen`: a table of commands, each imported when it is called.

gen diffusion train digits --steps 2000
gen report runs/diffusion-digits
"""

import difflib
import importlib
import os
import sys
from collections.abc import Sequence

COMMANDS: dict[str, tuple[str, str]] = {  # words: (module:function, what it does)
    "diffusion train": ("gen_apps.diffusion:train", "train a diffusion model, sample it, measure the samples, report"),
    "diffusion sample": ("gen_apps.diffusion:sample", "draw samples of a trained run as a picture and an .npz file"),
    "report": ("gen_apps.runs:report", "build the page of a run again"),
    "summary": ("gen_apps.runs:summary", "print the layers of a run's network"),
    "embed": ("gen_apps.runs:embed", "draw data, and a run's samples, in one map: pca, tsne or umap"),
}


def main(args: Sequence[str] | None = None) -> None:
    """Find the command that the first words name, import its module and hand it the rest."""
    args = list(sys.argv[1:] if args is None else args)
    words = args[: next((i for i, a in enumerate(args) if a.startswith("-")), len(args))]
    for n in (2, 1):
        if (name := " ".join(words[:n])) in COMMANDS and len(words) >= n:
            module, function = COMMANDS[name][0].split(":")
            from gen_core.config import cli

            cli(getattr(importlib.import_module(module), function), args[n:], prog=f"gen {name}")
            return
    group = words[0] if words and any(c.startswith(f"{words[0]} ") for c in COMMANDS) else ""
    asked = " ".join(words[: 2 if group else 1])
    if asked == group and ("-h" in args or "--help" in args or not args or args == [group]):
        print(usage(group))
        raise SystemExit(0 if "-h" in args or "--help" in args else 2)
    near = difflib.get_close_matches(asked, [*COMMANDS, *{c.split()[0] for c in COMMANDS}], n=1)
    hint = f"did you mean 'gen {near[0]}'?" if near else "see 'gen --help'"
    print(f"gen: {asked or ' '.join(args)!r} is no command; {hint}", file=sys.stderr)
    raise SystemExit(2)


def usage(group: str = "") -> str:
    """One line for each command, of all groups or of one."""
    rows = {name: text for name, (_, text) in COMMANDS.items() if name.startswith(group)}
    width = max(map(len, rows))
    lines = [f"  gen {name:{width}}  {text}" for name, text in rows.items()]
    return "\n".join(["usage: gen COMMAND ...   (gen COMMAND --help for its flags)", "", *lines])


if __name__ == "__main__":
    if os.environ.get("GEN_TRACEBACK"):
        main()
    else:
        try:
            main()
        except KeyboardInterrupt:  # before training began: nothing to save
            raise SystemExit(130) from None
