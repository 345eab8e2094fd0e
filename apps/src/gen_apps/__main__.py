"""The command `gen`: a table of commands, each imported when it is called.

gen diffusion train digits --steps 2000
gen report runs/diffusion-digits
"""

import difflib
import importlib
import sys
from collections.abc import Sequence

from gen_apps import threads

COMMANDS: dict[str, tuple[str, str]] = {  # words: (module:function, what it does)
    "diffusion train": (
        "gen_apps.diffusion.train:train",
        "train a diffusion model, sample it, measure the samples, report",
    ),
    "diffusion learn2d": (
        "gen_apps.diffusion.learn2d:learn2d",
        "train on 2-D points in a minute, and explain diffusion on a page",
    ),
    "diffusion likelihood": ("gen_apps.diffusion.likelihood:likelihood", "bits per dimension of held-out data"),
    "diffusion compare": (
        "gen_apps.diffusion.compare:compare",
        "sample quality against network evaluations and joules",
    ),
    "diffusion sample": (
        "gen_apps.diffusion.sample:sample",
        "draw samples of a trained run as a picture and an .npz file",
    ),
    "trajectory train": ("gen_apps.trajectory.train:train", "train a model of camera trajectories by captions, report"),
    "trajectory sample": ("gen_apps.trajectory.sample:sample", "draw camera trajectories that do what a prompt says"),
    "vae train": ("gen_apps.vae.train:train", "train a variational auto-encoder, sample it, draw its latents, report"),
    "vae sample": ("gen_apps.vae.use:sample", "draw samples of a trained variational auto-encoder"),
    "vae interpolate": ("gen_apps.vae.use:interpolate", "walk between the codes of held-out samples"),
    "vae nll": ("gen_apps.vae.use:bound", "bound the likelihood of held-out data"),
    "gan train": ("gen_apps.gan.train:train", "train a generator against a discriminator, sample it, report"),
    "gan sample": ("gen_apps.gan.train:sample", "draw samples of a trained generator"),
    "autoencode train": ("gen_apps.autoencode.train:train", "train an auto-encoder on clean or corrupted data, report"),
    "autoencode denoise": ("gen_apps.autoencode.use:denoise", "take noise away, beside the Wiener filter"),
    "autoencode inpaint": ("gen_apps.autoencode.use:fill", "fill in what is hidden, beside a Gaussian and a neighbour"),
    "autoencode anomaly": ("gen_apps.autoencode.use:anomaly", "find a class never seen, beside PCA and neighbours"),
    "autoencode compress": ("gen_apps.autoencode.use:compress", "what a code of so many numbers loses, beside PCA"),
    "latent-diffusion train": (
        "gen_apps.latent_diffusion.train:train",
        "train diffusion on the codes of an auto-encoder",
    ),
    "latent-diffusion sample": ("gen_apps.latent_diffusion.train:sample", "draw codes by diffusion, and decode them"),
    "llm tokenizer": ("gen_apps.llm.prepare:tokenizer", "learn byte pairs from text, and what each language costs"),
    "llm data": ("gen_apps.llm.prepare:data", "filter and deduplicate text, and write it as tokens"),
    "llm pretrain": ("gen_apps.llm.pretrain:pretrain", "train a language model on text, let it write, report"),
    "llm tune": ("gen_apps.llm.tune:tune", "teach a trained model to answer, from chats"),
    "llm generate": ("gen_apps.llm.say:generate", "go on with a prompt"),
    "llm chat": ("gen_apps.llm.say:chat", "talk with a tuned model"),
    "llm eval": ("gen_apps.llm.evaluate:evaluate", "bits per byte of texts, multiple choice, lm-eval's tasks"),
    "llm scaling": ("gen_apps.llm.scaling:scaling", "fit a scaling law to runs, with intervals, and spend a budget"),
    "compare": ("gen_apps.compare.compare:compare", "VAE, GAN and diffusion on the same data at the same budget"),
    "green run": ("gen_green.cli:main", "run any command and say what it cost: gen green run --grid FR -- COMMAND"),
    "green predict": ("gen_green.cli:main", "what a training will cost, from its size or its FLOPs"),
    "green compare": ("gen_green.cli:main", "two measured or predicted computations side by side"),
    "green audit": ("gen_green.cli:main", "whether the hours, watts and tonnes of a published card agree"),
    "green doctor": ("gen_green.cli:main", "what would be measured here, from what source, how sure"),
    "report": ("gen_apps.runs:report", "build the page of a run again"),
    "summary": ("gen_apps.runs:summary", "print the layers of a run's network"),
    "embed": ("gen_apps.runs:embed", "draw data, and a run's samples, in one map: pca, tsne or umap"),
}


def main(args: Sequence[str] | None = None) -> None:
    """Find the command that the first words name, import its module and hand it the rest."""
    try:
        _dispatch(list(sys.argv[1:] if args is None else args))
    except KeyboardInterrupt:  # before training began, or a second time: nothing to save
        raise SystemExit(130) from None


def _dispatch(args: list[str]) -> None:
    words = args[: next((i for i, a in enumerate(args) if a.startswith("-")), len(args))]
    for n in (2, 1):
        if (name := " ".join(words[:n])) in COMMANDS and len(words) >= n:
            module, function = COMMANDS[name][0].split(":")
            if module != "gen_green.cli" and "torch" not in sys.modules:
                threads.share()  # a command that gen green runs chooses for itself
            command = getattr(importlib.import_module(module), function)
            if module == "gen_green.cli":  # reads its own words, with the standard library: its overhead is its users'
                return command(args[1:], prog="gen green")
            from gen_core.config import cli

            return cli(command, args[n:], prog=f"gen {name}")
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
    main()
