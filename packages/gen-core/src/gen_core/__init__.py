"""Device, keyed randomness, Trainer, exact resume, data, sample quality and report.

    from gen_core import Jsonl, Loader, Task, Trainer, digits

The nouns: a `Task` owns networks, losses and what one step is; a `Trainer` owns the loop; `Data` gives batches by
step; a `Callback` watches; a `Run` is the directory of what happened.
"""

from gen_core.callbacks import (
    Callback,
    Checkpoint,
    EarlyStopping,
    Evaluate,
    Jsonl,
    Progress,
    Report,
    TensorBoard,
    every,
)
from gen_core.data import Arrays, Data, Loader, digits, split
from gen_core.ema import EMA
from gen_core.folder import folder, hub
from gen_core.run import Run
from gen_core.runtime import generator, seed_all, select_device, select_precision
from gen_core.task import Metrics, Task, decay_groups
from gen_core.trainer import Interrupted, NonFiniteLoss, Trainer

__all__ = [
    "EMA",
    "Arrays",
    "Callback",
    "Checkpoint",
    "Data",
    "EarlyStopping",
    "Evaluate",
    "Interrupted",
    "Jsonl",
    "Loader",
    "Metrics",
    "NonFiniteLoss",
    "Progress",
    "Report",
    "Run",
    "Task",
    "TensorBoard",
    "Trainer",
    "decay_groups",
    "digits",
    "every",
    "folder",
    "generator",
    "hub",
    "seed_all",
    "select_device",
    "select_precision",
    "split",
]
