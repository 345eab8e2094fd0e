"""`gen diffusion sample`."""

from gen_apps.diffusion.config import SampleDiffusion
from gen_apps.diffusion.trained import TrainedDiffusion
from gen_apps.options import given
from gen_apps.samples import requested_labels, write_pictures
from gen_core.callbacks import bar


def sample(config: SampleDiffusion) -> None:
    trained = TrainedDiffusion.open(config.run, config.device)
    labels = requested_labels(config.label, config.n, trained.classes)
    sampler = config.sampler.over(trained.config.sampler).completed(group="", requested=given(config.sampler))
    sampler.check(trained.classes, group="")
    with bar("sampling", config.n) as advance:
        write_pictures(
            config, trained, labels,
            lambda: trained.sample(
                config.n, labels, seed=config.seed, sampler=sampler, batch=config.batch, progress=advance
            ),
        )  # fmt: skip
