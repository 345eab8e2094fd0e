"""Processes that train together: one wrapper around Accelerate and torch.distributed.

    group = Processes(device, "bf16")
    model, optimizers = group.wrap(task)       # autocast, DDP or FSDP2, as launched
    group.reduce(statistics, "sum")

With one process everything here is the identity.
"""

import atexit
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from gen_core.runtime import _map, float32_outputs
from gen_core.task import Task


class Processes:
    """The processes that a launcher (`torchrun`, `accelerate launch`) started, or this one alone.

    Raises:
        ValueError: when the launcher started more processes than see each other.
    """

    def __init__(self, device: torch.device, precision: str):
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState, GradientState
        from accelerate.utils import DistributedDataParallelKwargs

        if device.type == "cuda":
            torch.cuda.set_device(device)
        # One process may make trainers of several precisions and devices in turn; accelerate keeps singletons.
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
        ddp = DistributedDataParallelKwargs(find_unused_parameters=True)  # an update may use some of them (GAN)
        self.accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision=precision, kwargs_handlers=[ddp])
        self.device, self.precision = device, precision
        self.rank, self.world = self.accelerator.process_index, self.accelerator.num_processes
        launched = int(os.environ.get("WORLD_SIZE", 1))
        if launched != self.world:
            raise ValueError(
                f"the launcher started {launched} processes but each sees a world of {self.world}; "
                "unset ACCELERATE_* variables that say otherwise, or launch with torchrun"
            )
        self._sharded = self.accelerator.distributed_type.value == "FSDP"
        self.empty: Any = False  # whether this process has no valid item: then its gradients are 0 / 0 and count as 0
        self._wrapped: set[int] = set()  # ids of the parameters whose gradients DDP averages
        self._host: Any = dist.new_group(backend="gloo") if self.world > 1 else None  # never waits for a GPU
        if self.world > 1:
            atexit.register(_leave)

    def wrap(self, task: Task, micro_batches: bool = False) -> tuple[nn.Module, dict[str, Optimizer]]:
        """The task behind one forward, moved, replicated or sharded, and its optimisers.

        Raises:
            ValueError: for BatchNorm with local statistics, which several processes would compute differently.
        """
        if self.world > 1 or micro_batches:
            _refuse_local_batchnorm(task, f"{self.world} processes" if self.world > 1 else "micro-batches")
        float32_outputs(task, self.precision == "bf16")
        task.to(self.device)
        _unwrap(task)
        if self._sharded:
            named = task.optimizers()
            model, *wrapped = self.accelerator.prepare(task, *named.values())
            return model, {name: w.optimizer for name, w in zip(named, wrapped, strict=True)}
        if self.world > 1:  # DDP leaves out frozen parameters, and a task without gradients has no DDP
            for tensor in task.state_dict().values():
                if isinstance(tensor, Tensor):
                    dist.broadcast(tensor, src=0)
        return self._replicate(task), task.optimizers()

    def follow(self, model: nn.Module, task: Task) -> nn.Module:
        """`model`, wrapped anew once parameters were unfrozen: DDP averages those that were trainable when it began."""
        if self.world == 1 or self._sharded or {id(p) for p in task.parameters() if p.requires_grad} <= self._wrapped:
            return model
        self.accelerator.free_memory()  # the wrapper of before
        return self._replicate(task)

    def _replicate(self, task: Task) -> nn.Module:
        _unwrap(task)
        self._wrapped = {id(p) for p in task.parameters() if p.requires_grad}
        if not self._wrapped:
            return task
        model: Any = self.accelerator.prepare_model(task)
        if self.world > 1:
            model.broadcast_buffers = False  # buffers hold reduced statistics, not rank 0's
            model.register_comm_hook(self, _average)
        return model

    def no_sync(self, model: nn.Module):
        """Inside, gradients add up on each process and are not averaged yet."""
        return self.accelerator.no_sync(model)

    def reduce(self, x: Any, op: str = "mean") -> Any:
        """Mean, sum, min or max over processes of tensors in nested dicts and tuples; on all of them."""
        if self.world == 1:
            return _map(lambda tensor: tensor, x, _no_tensor)
        operator = {"mean": dist.ReduceOp.SUM, "sum": dist.ReduceOp.SUM}
        operator |= {"min": dist.ReduceOp.MIN, "max": dist.ReduceOp.MAX}

        def one(tensor: Tensor) -> Tensor:
            tensor = tensor.detach().clone()
            dist.all_reduce(tensor, operator[op])
            return tensor / self.world if op == "mean" else tensor

        return _map(one, x, _no_tensor)

    def gather(self, x: Any) -> Any:
        """Rows of every process in the order of ranks, on all of them; every process brings as many."""
        if self.world == 1:
            return _map(lambda tensor: tensor, x, _no_tensor)

        def one(tensor: Tensor) -> Tensor:
            parts = [torch.empty_like(tensor) for _ in range(self.world)]
            dist.all_gather(parts, tensor.detach().contiguous())
            return torch.cat(parts)

        return _map(one, x, _no_tensor)

    def agree(self, flag: int) -> int:
        """The largest flag of any process, on all of them."""
        if self._host is None:
            return flag
        shared = torch.tensor(flag)
        dist.all_reduce(shared, dist.ReduceOp.MAX, group=self._host)
        return int(shared)

    def first(self, function: Callable[[], Any]) -> Any:
        """Call `function` on the first process alone, and return its result on all; so is an error that it raises."""
        if self._host is None:
            return function()
        outcome: list[Any] = [None, None]
        if self.rank == 0:
            try:
                outcome[0] = function()
            except Exception as error:  # of any kind: it is raised on every process below
                outcome[1] = error
        dist.broadcast_object_list(outcome, src=0, group=self._host)
        if outcome[1] is not None:
            raise outcome[1]
        return outcome[0]

    def barrier(self) -> None:
        """Wait for all processes."""
        if self._host is not None:
            dist.barrier(group=self._host)


ENDING = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def signals(note: Callable[[int], None]) -> Iterator[None]:
    """Inside, SIGINT and SIGTERM are noted; a second SIGINT acts at once.

    A second SIGTERM does not: launchers pass on what a scheduler has sent to every process already.
    Only the main thread may handle signals; in another, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in ENDING}

    def noted(number: int, _frame: Any) -> None:
        signal.signal(signal.SIGINT, before[signal.SIGINT])
        note(number)

    try:
        for number in ENDING:
            signal.signal(number, noted)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def signals_later() -> Iterator[None]:
    """Inside, SIGINT and SIGTERM wait until the end, and never reach a process that is started here."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_signals(_worker: int = 0) -> None:
    """Ignore SIGINT and SIGTERM in a worker of a process that ends it when it ends itself."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


def _average(
    processes: Processes,
    bucket: dist.GradBucket,  # pyright: ignore[reportPrivateImportUsage]  # DDP checks this annotation
) -> torch.futures.Future[Tensor]:
    """Mean of gradients over processes; those of a process without valid items are 0, whatever 0 / 0 gave it."""
    if isinstance(processes.empty, Tensor):
        bucket.set_buffer(torch.where(processes.empty, 0, bucket.buffer()))
    work: Any = dist.all_reduce(bucket.buffer().div_(processes.world), async_op=True)
    return work.get_future().then(lambda done: done.value()[0])


def _unwrap(task: Task) -> None:
    """Undo what accelerate did for an earlier trainer, perhaps of another precision."""
    for name in ("forward", "_is_accelerate_prepared"):
        task.__dict__.pop(name, None)


def _leave() -> None:
    """Close the group before the interpreter does: a process that ends first would abort in the group's threads."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _no_tensor(x: Any) -> Any:
    raise TypeError(f"processes exchange tensors, got {type(x).__name__} {x!r}; wrap it in torch.tensor")


def _refuse_local_batchnorm(task: nn.Module, parts: str) -> None:
    for name, module in task.train().named_modules():
        local = isinstance(module, nn.modules.batchnorm._BatchNorm) and not isinstance(module, nn.SyncBatchNorm)
        if local and module.training:
            raise ValueError(
                f"{name} is a BatchNorm, which under {parts} sees only its own rows; use GroupNorm, or for processes "
                "nn.SyncBatchNorm.convert_sync_batchnorm"
            )
