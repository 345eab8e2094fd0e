from .callbacks import (
    Callback,
    Checkpoint,
    EarlyStopping,
    Evaluate,
    Jsonl,
    Progress,
    Rates,
    Report,
    TensorBoard,
    Wandb,
    every,
)
from .data import Arrays, Data, Loader, digits, split
from .ema import EMA
from .finite import NonFiniteLoss
from .folder import folder, hub
from .hooks import Hooks, Training
from .run import Run
from .runtime import generator, seed_all, select_device, select_precision
from .step import Step
from .task import Metrics, Task, decay_groups, unpack
from .trainer import Interrupted, Trainer

__all__ = [
    "EMA",
    "Arrays",
    "Callback",
    "Checkpoint",
    "Data",
    "EarlyStopping",
    "Evaluate",
    "Hooks",
    "Interrupted",
    "Jsonl",
    "Loader",
    "Metrics",
    "NonFiniteLoss",
    "Progress",
    "Rates",
    "Report",
    "Run",
    "Step",
    "Task",
    "TensorBoard",
    "Trainer",
    "Training",
    "Wandb",
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
    "unpack",
]
