"""The command `gen`: a table of commands, each imported when it is called.

gen diffusion train digits --steps 2000
gen report runs/diffusion-digits
"""

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

from gen_apps import threads

COMMANDS: dict[str, tuple[str, str, str]] = {  # words: (flags, function, summary), in modules of gen_apps
    "diffusion train": (
        "diffusion.config:TrainDiffusion",
        "diffusion.train:train",
        "train a diffusion model, sample it, measure the samples, report",
    ),
    "diffusion learn2d": (
        "diffusion.config:Learn2d",
        "diffusion.learn2d:learn2d",
        "train on 2-D points in a minute, and explain diffusion on a page",
    ),
    "diffusion likelihood": (
        "diffusion.config:Likelihood",
        "diffusion.likelihood:likelihood",
        "bits per dimension of held-out data",
    ),
    "diffusion compare": (
        "diffusion.config:CompareSamplers",
        "diffusion.compare:compare",
        "sample quality against network evaluations and joules",
    ),
    "diffusion sample": (
        "diffusion.config:SampleDiffusion",
        "diffusion.sample:sample",
        "draw samples of a trained run as a picture and an .npz file",
    ),
    "trajectory train": (
        "trajectory.config:TrainTrajectory",
        "trajectory.train:train",
        "train a model of camera trajectories by captions, report",
    ),
    "trajectory sample": (
        "trajectory.config:SampleTrajectory",
        "trajectory.sample:sample",
        "draw camera trajectories that do what a prompt says",
    ),
    "vae train": (
        "vae.config:TrainVAE",
        "vae.train:train",
        "train a variational auto-encoder, sample it, draw its latents, report",
    ),
    "vae sample": ("vae.config:SampleVAE", "vae.use:sample", "draw samples of a trained variational auto-encoder"),
    "vae interpolate": (
        "vae.config:InterpolateVAE",
        "vae.use:interpolate",
        "walk between the codes of held-out samples",
    ),
    "vae nll": ("vae.config:NLLVAE", "vae.use:bound", "bound the likelihood of held-out data"),
    "gan train": (
        "gan.config:TrainGAN",
        "gan.train:train",
        "train a generator against a discriminator, sample it, report",
    ),
    "gan sample": ("gan.config:SampleGAN", "gan.train:sample", "draw samples of a trained generator"),
    "autoencode train": (
        "autoencode.config:TrainAutoEncoder",
        "autoencode.train:train",
        "train an auto-encoder on clean or corrupted data, report",
    ),
    "autoencode denoise": (
        "autoencode.config:Use",
        "autoencode.use:denoise",
        "take noise away, beside the Wiener filter",
    ),
    "autoencode inpaint": (
        "autoencode.config:Use",
        "autoencode.use:fill",
        "fill in what is hidden, beside a Gaussian and a neighbour",
    ),
    "autoencode anomaly": (
        "autoencode.config:Use",
        "autoencode.use:anomaly",
        "find a class never seen, beside PCA and neighbours",
    ),
    "autoencode compress": (
        "autoencode.config:Use",
        "autoencode.use:compress",
        "what a code of so many numbers loses, beside PCA",
    ),
    "latent-diffusion train": (
        "latent_diffusion.config:TrainLatentDiffusion",
        "latent_diffusion.train:train",
        "train diffusion on the codes of an auto-encoder",
    ),
    "latent-diffusion sample": (
        "latent_diffusion.config:SampleLatentDiffusion",
        "latent_diffusion.train:sample",
        "draw codes by diffusion, and decode them",
    ),
    "llm tokenizer": (
        "llm.config:LearnTokenizer",
        "llm.prepare:tokenizer",
        "learn byte pairs from text, and what each language costs",
    ),
    "llm data": (
        "llm.config:WriteData",
        "llm.prepare:data",
        "filter and deduplicate text, and write it as tokens",
    ),
    "llm pretrain": (
        "llm.config:Pretrain",
        "llm.pretrain:pretrain",
        "train a language model on text, let it write, report",
    ),
    "llm tune": ("llm.config:Tune", "llm.tune:tune", "teach a trained model to answer, from chats"),
    "llm generate": ("llm.config:Generate", "llm.say:generate", "continue a prompt"),
    "llm chat": ("llm.config:Chat", "llm.say:chat", "talk with a tuned model"),
    "llm eval": (
        "llm.config:Evaluate",
        "llm.evaluate:evaluate",
        "bits per byte of texts, multiple choice, lm-eval's tasks",
    ),
    "llm scaling": (
        "llm.config:Scaling",
        "llm.scaling:scaling",
        "fit a scaling law to runs, with intervals, and spend a budget",
    ),
    "data list": ("catalogue.config:ListData", "catalogue.listing:list_data", "list real data that packages carry"),
    "data show": ("catalogue.config:ShowData", "catalogue.showing:show_data", "draw a sheet of a set of data"),
    "data get": ("catalogue.config:GetData", "catalogue.getting:get_data", "install the packages of a set of data"),
    "compare": (
        "compare.config:Compare",
        "compare.compare:compare",
        "VAE, GAN and diffusion on the same data at the same budget",
    ),
    "runs": ("runs.config:ListRuns", "runs.table:list_runs", "list the runs of a directory, newest first"),
    "runs compare": (
        "runs.config:CompareRuns",
        "runs.compare:compare_runs",
        "one page with the settings, figures and curves of several runs",
    ),
    "runs check": ("runs.config:CheckRun", "runs.check:check_run", "verify the hashes of a run's checkpoints"),
    "report": ("runs.config:Report", "runs.page:report", "build the page of a run again"),
    "summary": ("runs.config:Summary", "runs.page:summary", "print the layers of a run's network"),
    "completion": (
        "completion:Completion",
        "completion:completion",
        "print a script that completes commands and flags in bash, zsh or fish",
    ),
    "embed": (
        "runs.config:Embed",
        "runs.embed:embed",
        "draw data, and a run's samples, in one map: pca, tsne or umap",
    ),
}
GREEN = {  # commands of gen-green, which reads its own words with the standard library: its overhead is its users'
    "green run": "run any command and say what it cost: gen green run --grid FR -- COMMAND",
    "green predict": "what a training will cost, from its size or its FLOPs",
    "green compare": "two measured or predicted computations side by side",
    "green audit": "whether the hours, watts and tonnes of a published card agree",
    "green doctor": "what would be measured here, from what source, how sure",
}


def main(args: Sequence[str] | None = None) -> None:
    """Find the command that the first words name, import its module and hand it the rest."""
    try:
        _dispatch(list(sys.argv[1:] if args is None else args))
    except KeyboardInterrupt:  # before training began, or a second time: nothing to save
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

            place, function, _ = COMMANDS[name]
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


def usage(group: str = "") -> str:
    """One line for each command, of all groups or of one."""
    rows = {name: text for name, (_, _, text) in COMMANDS.items()} | GREEN
    rows = {name: text for name, text in rows.items() if name.startswith(group)}
    width = max(map(len, rows))
    lines = [f"  gen {name:{width}}  {text}" for name, text in rows.items()]
    return "\n".join(["usage: gen COMMAND ...   (gen COMMAND --help for its flags)", "", *lines])


if __name__ == "__main__":
    main()
