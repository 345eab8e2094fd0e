"""Motion tags of sampled trajectories, beside those of their captions."""

from typing import Any

import torch

from gen_core.intervals import bootstrap
from gen_core.runtime import generator
from gen_diffusion.motion import Trajectories, motion_score, parse, spread, tag

NOTES = [
    "Motion tags of every frame, read off the trajectories by rule, against those that the captions ask for: macro "
    "averages over the tags, with 95 % intervals over trajectories.",
    "drawn: the trajectories that the captions were made for, whose segments begin a little early or late: the "
    "ceiling. another caption: the samples against captions that were not theirs: the floor.",
]


def measure(x: torch.Tensor, held_out: Trajectories, seed: int) -> dict[str, Any]:
    """The table of quality.json."""
    wanted = torch.stack([spread(parse(text), x.shape[1]) for text in held_out.captions])
    done = {"samples": tag(x), "drawn": tag(held_out.features), "another caption": tag(x).roll(1, 0)}

    def row(name: str, tags: torch.Tensor) -> dict[str, Any]:
        both = torch.stack([tags, wanted], 1).double()
        score = lambda pairs, column: getattr(motion_score(*pairs.long().unbind(1)), column)
        values = {
            column: bootstrap(
                lambda a, _, c=column: score(a, c), both, both,
                draws=25, bounds=(0, 1), generator=generator(seed, name),
            ).figure()
            for column in ("precision", "recall", "f1")
        }  # fmt: skip
        return {"name": name, "n": len(tags), **values}

    return {"columns": ["f1", "precision", "recall"], "rows": [row(*item) for item in done.items()], "notes": NOTES}
