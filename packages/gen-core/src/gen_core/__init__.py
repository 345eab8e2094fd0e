"""Device, keyed randomness, Trainer, exact resume, data, sample quality and report.

    from gen_core import Jsonl, Loader, Task, Trainer, digits

The nouns: a `Task` owns networks, losses and what one step is; a `Trainer` owns the loop; `Data` gives batches by
step; a `Callback` watches; a `Run` is the directory of what happened.
"""

from gen_core.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)  # of what __init__.pyi lists
