"""The command `gen`: a table of commands, each imported when it is called.

gen diffusion train digits --steps 2000
gen report runs/diffusion-digits
"""

import difflib
import importlib
import os
import re
import sys
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

from gen_apps import threads

TABLE: dict[str, dict[str, str]] = {  # group: words of a command: its flags and its function, in modules of gen_apps
    "Pictures and points": {
        "diffusion train": "diffusion.config:TrainDiffusion diffusion.train:train",
        "diffusion sample": "diffusion.config:SampleDiffusion diffusion.sample:sample",
        "diffusion restore": "diffusion.config:Restore diffusion.restore:restore",
        "diffusion calibrate": "diffusion.config:Calibrate diffusion.calibrate:calibrate",
        "diffusion compare": "diffusion.config:CompareSamplers diffusion.compare:compare",
        "diffusion likelihood": "diffusion.config:Likelihood diffusion.likelihood:likelihood",
        "diffusion learn2d": "diffusion.config:Learn2d diffusion.learn2d:learn2d",
        "vae train": "vae.config:TrainVAE vae.train:train",
        "vae sample": "vae.config:SampleVAE vae.use:sample",
        "vae interpolate": "vae.config:InterpolateVAE vae.use:interpolate",
        "vae nll": "vae.config:NLLVAE vae.use:bound",
        "gan train": "gan.config:TrainGAN gan.train:train",
        "gan sample": "gan.config:SampleGAN gan.train:sample",
        "autoencode train": "autoencode.config:TrainAutoEncoder autoencode.train:train",
        "autoencode denoise": "autoencode.config:Denoise autoencode.use:denoise",
        "autoencode inpaint": "autoencode.config:Inpaint autoencode.use:fill",
        "autoencode anomaly": "autoencode.config:Anomaly autoencode.use:anomaly",
        "autoencode compress": "autoencode.config:Compress autoencode.use:compress",
        "latent-diffusion train": "latent_diffusion.config:TrainLatentDiffusion latent_diffusion.train:train",
        "latent-diffusion sample": "latent_diffusion.config:SampleLatentDiffusion latent_diffusion.train:sample",
        "compare": "compare.config:Compare compare.compare:compare",
    },
    "Tables and series": {
        "em mixture": "em.config:FitMixture em.fit:mixture",
        "em hmm": "em.config:FitHMM em.fit:hmm",
        "em kalman": "em.config:FitKalman em.fit:kalman",
    },
    "Camera trajectories": {
        "trajectory train": "trajectory.config:TrainTrajectory trajectory.train:train",
        "trajectory sample": "trajectory.config:SampleTrajectory trajectory.sample:sample",
    },
    "Language": {
        "llm tokenizer": "llm.config:LearnTokenizer llm.prepare:tokenizer",
        "llm data": "llm.config:WriteData llm.prepare:data",
        "llm pretrain": "llm.config:Pretrain llm.pretrain:pretrain",
        "llm tune": "llm.config:Tune llm.tune:tune",
        "llm generate": "llm.config:Generate llm.say:generate",
        "llm chat": "llm.config:Chat llm.say:chat",
        "llm eval": "llm.config:Evaluate llm.evaluate:evaluate",
        "llm scaling": "llm.config:Scaling llm.scaling:scaling",
        "align bandit": "align.config:Bandit align.bandit:bandit",
        "align two-token": "align.config:TwoTokens align.two_tokens:two_tokens",
        "align sort": "align.sort:Sort align.sort:sort",
    },
    "Data": {
        "data list": "catalogue.config:ListData catalogue.listing:list_data",
        "data show": "catalogue.config:ShowData catalogue.showing:show_data",
        "data get": "catalogue.config:GetData catalogue.getting:get_data",
        "embed": "runs.config:Embed runs.embed:embed",
    },
    "Runs": {
        "runs": "runs.config:ListRuns runs.table:list_runs",
        "runs compare": "runs.config:CompareRuns runs.compare:compare_runs",
        "runs check": "runs.config:CheckRun runs.check:check_run",
        "report": "runs.config:Report runs.page:report",
        "summary": "runs.config:Summary runs.page:summary",
        "completion": "completion:Completion completion:completion",
    },
}
COMMANDS: dict[str, tuple[str, ...]] = {
    name: tuple(places.split()) for group in TABLE.values() for name, places in group.items()
}
GREEN = {  # commands of gen-green, which reads its own words with the standard library: its overhead is its users'
    "green run": "Run any command and say what it cost: gen green run --grid FR -- COMMAND",
    "green predict": "Predict what a training will cost, from its size or its FLOPs",
    "green compare": "Compare two measured or predicted computations",
    "green audit": "Check whether the hours, watts and tonnes of a published card agree",
    "green doctor": "Show what would be measured here, from what source, how sure",
}
FIRST = "To begin: gen diffusion train   (trains on bundled digits in about a minute, and writes a page)"


def main(args: Sequence[str] | None = None) -> None:
    """Find the command that the first words name, import its module and hand it the rest."""
    try:
        _dispatch(list(sys.argv[1:] if args is None else args))
    except KeyboardInterrupt:  # before training began, or a second time: nothing to save
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None


def _dispatch(args: list[str]) -> None:
    if args == ["--version"]:
        return print(f"gen {version('gen-apps')}")
    words = args[: next((i for i, a in enumerate(args) if a.startswith("-")), len(args))]
    for n in (2, 1):
        name = " ".join(words[:n])
        if name in GREEN:
            from gen_green.cli import main as green

            return green(args[1:], prog="gen green")  # a command that it runs chooses its threads for itself
        if name in COMMANDS and len(words) >= n:
            if "torch" not in sys.modules:
                threads.share()
            from gen_apps import recipes
            from gen_core.config import cli

            place, function = COMMANDS[name]
            flags, rest = find(place), args[n:]
            usual = recipes.named(flags, rest)
            return cli(partial(_call, function), rest, prog=f"gen {name}", flags=flags, default=usual)
    group = words[0] if words and any(c.startswith(f"{words[0]} ") for c in [*COMMANDS, *GREEN]) else ""
    command = " ".join(words[: 2 if group else 1])
    if command == group and ("-h" in args or "--help" in args or not args or args == [group]):
        print(usage(group))
        raise SystemExit(0 if "-h" in args or "--help" in args else 2)
    near = difflib.get_close_matches(command, [*COMMANDS, *GREEN, *{c.split()[0] for c in [*COMMANDS, *GREEN]}], n=1)
    hint = f"did you mean 'gen {near[0]}'?" if near else "see 'gen --help'"
    print(f"gen: {command or ' '.join(args)!r} is no command; {hint}", file=sys.stderr)
    raise SystemExit(2)


def find(place: str) -> Any:
    """The object that `module:name` names in gen_apps."""
    module, name = place.split(":")
    return getattr(importlib.import_module(f"gen_apps.{module}"), name)


def _call(function: str, config: Any) -> None:
    """Call a command's function with its configuration; a train command also gets the directory of its run."""
    from gen_apps import recipes
    from gen_apps.command import TrainCommand

    if (said := recipes.words(config)) and os.environ.get("RANK", "0") == "0":
        print(said)
    if not isinstance(config, TrainCommand):
        return find(function)(config)
    from gen_apps.identity import train_in

    train_in(find(function), config)


def summary(flags: Any) -> str:
    """The beginning of a docstring: its first sentence, to the colon or semicolon if it has one.

    >>> summary(type("Toy", (), {"__doc__": "Draw samples: a picture. More."}))
    'Draw samples'
    """
    return re.split(r"[:;]|\.(?:\s|$)", str(flags.__doc__), maxsplit=1)[0]


def usage(word: str = "") -> str:
    """One line for each command, by groups, or of those that begin with `word`."""
    texts = {head: {name: summary(find(COMMANDS[name][0])) for name in group} for head, group in TABLE.items()}
    texts["Energy"] = GREEN
    groups = {head: {n: t for n, t in group.items() if n.startswith(word)} for head, group in texts.items()}
    width = max(len(name) for group in groups.values() for name in group)
    lines = ["usage: gen COMMAND ...   (gen COMMAND --help for its flags)", *([] if word else ["", FIRST])]
    for head, group in groups.items():
        lines += ["", head, *(f"  gen {name:{width}}  {text}" for name, text in group.items())] if group else []
    return "\n".join(lines)


if __name__ == "__main__":
    main()
