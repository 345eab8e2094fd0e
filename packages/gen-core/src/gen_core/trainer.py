"""The training loop, once: order, updates, micro-batches, processes, signals, exact resume.

    trainer = Trainer(task, run="runs/a", seed=0, callbacks=[Progress(), Jsonl(), Checkpoint(every=500)])
    trainer.fit(Loader(digits(), batch_size=128), steps=2000)

A step is one call of `task.step`. `batch_size` is the global batch: the number of processes and `micro_batch` decide
where and in how many pieces it is computed, never what is computed. Before every step torch's global streams are
keyed by (seed, step, rank), and `randn_like`, `randn` and `rand` draw rows of one global draw keyed by (seed, step);
a step that needs numpy or python makes a generator from `t.key(...)`.
So the same seed gives the same curve on one process or several, in one piece or interrupted anywhere; only what a loss
draws by itself, such as dropout's masks, differs between process counts and micro-batches.
"""

import operator
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from itertools import repeat
from pathlib import Path
from typing import Any, SupportsFloat, SupportsIndex, cast

import torch
from torch import Tensor, nn

from gen_core import checkpoint, start
from gen_core.data import Data
from gen_core.draws import StepKeys, rows
from gen_core.evaluation import evaluate
from gen_core.finite import check_losses, check_weights
from gen_core.hooks import Hooks
from gen_core.micro import shares
from gen_core.processes import Processes, signals
from gen_core.run import Run
from gen_core.runtime import Part, key, seed_torch, select_device, select_precision, to_device, widest
from gen_core.schedule import Schedule, constant
from gen_core.task import Task, frozen
from gen_core.update import backward

_NOTHING = nullcontext()


class Interrupted(SystemExit):
    """A signal ended training after a whole step and a checkpoint; the exit code is 128 + signal."""


class Trainer:
    """Runs a task on whatever devices there are.

    Args:
        task: what is trained; it is moved to the device, and its optimisers are made there.
        run: the directory that metrics and checkpoints go to; None keeps nothing.
        seed: key of everything random in training. Initial weights are the caller's: `seed_all(seed)` before.
        device: auto, cpu, cuda, cuda:N or mps. Several processes come from `torchrun` or `accelerate launch`.
        precision: auto, bf16 (autocast; weights, network outputs and losses stay float32) or fp32.
        micro_batch: rows per forward pass and process, to fit memory; None is all of them.
        clip: largest norm of the gradient of one update.
        schedule: step -> factor on every optimiser's learning rate.
        callbacks: called in the order of their `order`, then of this list.

    Raises:
        ValueError: for what cannot work: an absent device, fp16, processes that do not see each other, BatchNorm
            with local statistics under several processes, `clip` with L-BFGS.
    """

    def __init__(
        self,
        task: Task,
        run: str | Path | None = None,
        *,
        seed: SupportsIndex = 0,
        device: str = "auto",
        precision: str = "auto",
        micro_batch: int | None = None,
        clip: SupportsFloat | None = None,
        schedule: Schedule | None = None,
        callbacks: Sequence[Hooks] = (),
    ):
        self.device = select_device(device)
        self.precision = select_precision(precision, self.device)
        if micro_batch is not None and micro_batch < 1:
            raise ValueError(f"micro_batch must be at least 1 row, got {micro_batch}")
        clip = None if clip is None else float(clip)
        if clip is not None and not clip > 0:
            raise ValueError(f"clip is the largest norm of a gradient and positive, got {clip}; None does not clip")
        self.task, self.seed, self.micro_batch, self.clip = task, operator.index(seed), micro_batch, clip
        self.schedule = schedule or constant()
        self.callbacks: list[Hooks] = sorted(callbacks, key=lambda callback: callback.order)
        self.step = 0
        self._saved = -1  # the step whose checkpoint in the run directory holds the present state
        self.stopping = 0  # 0, 1 after stop(), or the signal's number: the same on every process after _stop()
        self._signal = 0  # that this process has noted
        self.due = False  # set by a callback whose values this step's logs should hold
        self.cleanup = ExitStack()  # what a callback opened; closed however fit ends
        self._data: dict[str, str | None] = {}
        self.batch_size: int | None = None  # of the data that fit was given
        self._look = 1 if self.device.type == "cpu" else 100  # updates between checks; elsewhere a check waits
        self._draws = 0
        self._generator = torch.Generator(self.device)
        self._losses: list[tuple[int, str, Tensor]] = []  # not yet seen to be finite
        self._norms: dict[str, Tensor] = {}  # of gradients before they were clipped
        self._read: dict[str, float] = {}
        self._owned: dict[str, tuple[list[nn.Parameter], list[nn.Parameter]]] = {}

        self.processes = Processes(self.device, self.precision)
        self.rank: int = self.processes.rank
        self.world: int = self.processes.world
        self._keys = StepKeys(self.seed, self.rank)
        self.reduce, self.gather, self.barrier = (self.processes.reduce, self.processes.gather, self.processes.barrier)
        self.model, self.optimizers = self.processes.wrap(task, micro_batches=micro_batch is not None)
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group.setdefault("initial_lr", group["lr"])
        if clip is not None and any(isinstance(o, torch.optim.LBFGS) for o in self.optimizers.values()):
            raise ValueError(f"clip={clip} would change L-BFGS's line search in mid-flight; use clip=None")
        self.run = Run(run) if run is not None else None
        if self.run and self.rank == 0:
            self.run.path.mkdir(parents=True, exist_ok=True)

    # ------------------------------------------------------------------ the loop

    def fit(self, data: Data | None, steps: int, *, resume: bool | str | Path = True) -> Task:
        """Train until `steps` steps have been made in all, resumed ones included.

        Args:
            data: batches by step, or None for a task that makes its own (`task.step` then gets None).
            resume: True goes on from the run's newest checkpoint if there is one; a path loads that checkpoint.

        Raises:
            NonFiniteLoss: with the step; on every process at the same one.
            Interrupted: after SIGINT or SIGTERM to any process: the step is finished and a checkpoint written first.
                A second SIGINT acts at once.
            ValueError: while another job trains in this run directory, naming its process and host.
        """
        self._data = {f"{what} of the data": getattr(data, f"{what}_hash", None) for what in ("order", "content")}
        self.batch_size = getattr(data, "batch_size", None)
        self.stopping = self._signal = 0
        self._owned = {}
        with signals(self._note), self.cleanup:
            self.processes.first(self._open)
            self._resume(resume)
            self.task.train()
            for callback in self.callbacks:
                callback.on_train_begin(self)
            batches = repeat(None) if data is None else data.batches(self.step, self.rank, self.world)
            self.cleanup.callback(getattr(batches, "close", lambda: None))  # ends workers
            epoch = len(data) if data is not None else 0
            while self.step < steps and not self._stop():
                batch = next(batches)
                if self.device.type != "cpu":
                    batch = to_device(batch, self.device)
                seed_torch(self._keys[self.step])
                self._draws = 0
                metrics = self.task.step(batch, self)
                self.step += 1
                self._read, self.due = {}, False
                for callback in self.callbacks:
                    callback.on_step_end(self, metrics)
                    if epoch and self.step % epoch == 0:
                        callback.on_epoch_end(self, metrics)
            if self.run:
                self._finish()
            self._check_finite()
            if not self.run:  # saving has looked
                self._check_weights(checkpoint.full(checkpoint.state_of(self.task)))
            for callback in self.callbacks:
                callback.on_train_end(self)
        self._stop()  # a signal may have come to one of the processes since
        stopped, self.stopping, self._signal = self.stopping, 0, 0
        if stopped > 1:
            raise Interrupted(128 + stopped)
        return self.task

    def stop(self) -> None:
        """End training after this step, on every process."""
        self.stopping = self.stopping or 1

    def _stop(self) -> bool:
        """True where any process has to stop: a signal may have reached only one of them."""
        self.stopping = self.processes.agree(max(self.stopping, self._signal))
        return self.stopping > 0

    def _note(self, number: int) -> None:
        self._signal = self._signal or number

    # ------------------------------------------------------------------ inside a step

    def minimize(
        self, optimizer: str, loss: Callable[..., Tensor], *batch: Any, weight: Callable[..., Any] | None = None
    ) -> Tensor:
        """One update of one optimiser: `optimizer.step(closure)` on the mean loss over the global batch.

        Args:
            optimizer: a name of `task.optimizers()`; the parameters of all others are frozen meanwhile.
            loss: `(*micro) -> scalar`, the mean over its rows; it runs under autocast and DDP.
            batch: tensors (or nested tuples and dicts of them) with this process's rows first; under `micro_batch` also
                lists and arrays of one item per row, which are cut alike.
            weight: `(*micro) -> number of valid items`, when the loss is a mean over tokens or masked items
                instead of rows: the update is then (sum of losses) / (number of items) over everything.

        Returns:
            the loss before the update, averaged over the global batch; the same on every process.
        """
        if optimizer not in self.optimizers:
            raise ValueError(
                f"no optimiser {optimizer!r}; optimizers() returned {', '.join(self.optimizers) or 'none'}"
            )
        opt = self.optimizers[optimizer]
        self.model = self.processes.follow(self.model, self.task)
        factor = self.schedule(self.step)
        for group in opt.param_groups:
            group["lr"] = group["initial_lr"] * factor
        owned, others = self._parts(optimizer)
        pieces = shares(batch, self.micro_batch, weight, self.reduce, self.device)

        def closure() -> Tensor:
            opt.zero_grad()
            total = backward(self.processes, self.model, loss, pieces)
            if self.clip is not None:
                self._norms[optimizer] = nn.utils.clip_grad_norm_(owned, self.clip)
            return self.reduce(total)  # the same number on all ranks: a line search must branch the same way

        with frozen(others) if others else _NOTHING:
            value: Tensor = opt.step(cast(Any, closure))  # of several calls, L-BFGS returns the first
        self._losses.append((self.step, optimizer, value))
        if len(self._losses) >= self._look:
            self._check_finite()
        return value

    def _parts(self, optimizer: str) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """The parameters an optimiser owns, and all others of the task."""
        if optimizer not in self._owned:
            owned = [p for group in self.optimizers[optimizer].param_groups for p in group["params"]]
            mine = {id(p) for p in owned}
            self._owned[optimizer] = owned, [p for p in self.task.parameters() if id(p) not in mine]
        return self._owned[optimizer]

    def randn_like(self, x: Tensor) -> Tensor:
        """Standard normal noise of `x`'s shape: this process's rows of one draw for the global batch."""
        return self._rows(torch.randn, tuple(x.shape), x.dtype)

    def randn(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Standard normal noise by shape, otherwise as `randn_like`; the first dimension is this process's rows."""
        return self._rows(torch.randn, shape, dtype)

    def rand(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Uniform on [0, 1), otherwise as `randn`."""
        return self._rows(torch.rand, shape, dtype)

    def _rows(self, draw: Callable, shape: tuple[int, ...], dtype: torch.dtype | None) -> Tensor:
        self._generator.manual_seed(key(self.seed, "draw", self.step, self._draws))
        self._draws += 1
        return rows(draw, shape, dtype, self._generator, self.rank, self.world)

    def key(self, *parts: Part) -> int:
        """A key of (seed, step, parts), for streams of your own: `numpy.random.default_rng(t.key("replay"))`."""
        return key(self.seed, "own", self.step, *parts)

    # ------------------------------------------------------------------ looking

    def read(self, metrics: dict[str, Any]) -> dict[str, float]:
        """Metrics as floats, averaged over processes: the one place that waits for the device.

        Every process calls it at the same steps; a second call at the same step costs nothing.
        """
        new = [name for name in metrics if name not in self._read]
        if new:
            wide = widest(self.device)
            values = torch.stack([torch.as_tensor(metrics[n], dtype=wide, device=self.device).detach() for n in new])
            self._read |= dict(zip(new, self.reduce(values).tolist(), strict=True))
        return {name: self._read[name] for name in metrics}

    def grad_norm(self, optimizer: str) -> Tensor | None:
        """Norm of the gradient of that optimiser's last update, before clipping; None before its first one.

        It costs little without `clip` too, for it is computed only when this is called, on every process.
        """
        owned, _ = self._parts(optimizer)
        gradients = [p.grad for p in owned if p.grad is not None]
        if not gradients:
            return None
        norm = self._norms[optimizer] if self.clip is not None else nn.utils.get_total_norm(gradients)
        return checkpoint.full(norm)

    def evaluate(self, data: Data) -> dict[str, float]:
        """Mean of `task.evaluate` over every sample of `data`, each counted once, whatever the process count.

        A metric that comes with weights is the weighted mean over everything.
        Whole batches go to the processes in turn, and each is keyed by its number: the same noise at every
        evaluation and on any number of processes. Training is not disturbed. A signal cuts it short: then {}.
        """
        return evaluate(self, data, lambda: self._stop() and self.stopping > 1)

    # ------------------------------------------------------------------ checkpoints

    def save(self) -> Path:
        """Write a checkpoint of this step, in place of one of its number; between steps only, on all processes."""
        if (run := self.run) is None:
            raise ValueError("there is nowhere to save: give the Trainer a run directory")
        self._check_finite()
        path = checkpoint.place(run.path, self.step)
        tensors, other, plain = checkpoint.capture(self.task, self.optimizers, self.callbacks)
        self._check_weights(tensors["task"])
        meta = {"step": self.step, "same": self._same(), "callbacks": plain, "torch": torch.__version__}

        def write() -> None:
            with run.lock():
                checkpoint.save(path, tensors, other, meta)

        self.processes.first(write)
        self._saved = self.step
        return path

    def load(self, path: str | Path, verified: bool = False) -> None:
        """Go back to a checkpoint: weights, optimisers, callbacks and the step.

        Args:
            verified: whether its files were compared with their fingerprints already.

        Raises:
            ValueError: when it is damaged, or of another seed, clip or data order, naming what differs.
        """
        path = Path(path)
        tensors, other, meta = checkpoint.load(path, verified)
        checkpoint.check_same(path, meta["same"], self._same())
        checkpoint.restore(self.task, self.optimizers, self.callbacks, tensors, other, meta["callbacks"])
        self.step = meta["step"]
        own = self.run and checkpoint.place(self.run.path, self.step).resolve() == path.resolve()
        self._saved = self.step if own else -1

    def start_from(self, path: str | Path, *, optimizers: bool = False) -> None:
        """Begin at step 0 with the weights of another run: its newest whole checkpoint, or the checkpoint `path`.

        Seed, data, clip, schedule and rates are this run's. `fit` still resumes a checkpoint of this run's own.

        Args:
            optimizers: take the weights as they were trained and the state (the moments) of the optimisers; otherwise
                the averaged weights, where the run has any and its model.json names their module, as
                `{"module": "denoiser"}` does.

        Raises:
            FileNotFoundError: when there is no checkpoint.
            ValueError: for weights or optimisers that do not fit, a damaged checkpoint, or after training began.
        """
        if self.step:
            raise ValueError(f"start_from begins at step 0 and {self.step} steps are done; make a new Trainer")
        checkpoint = self.processes.first(lambda: start.newest(Path(path)))
        start.start(self.task, self.optimizers if optimizers else None, checkpoint)

    def _finish(self) -> None:
        """Save, unless nothing was trained since that was done; `latest` then names this step."""
        if self._saved != self.step:
            self.save()
        elif self.run:
            path = checkpoint.place(self.run.path, self.step)
            self.processes.first(lambda: checkpoint.point(path))

    def _same(self) -> dict[str, Any]:
        """Settings that a resumed run shares with its beginning."""
        return {"seed": self.seed, "clip": self.clip} | {name: value for name, value in self._data.items() if value}

    def _open(self) -> None:
        """Lock the run directory until training ends, and make it one; on the first process, for all."""
        if self.run:
            self.cleanup.enter_context(self.run.lock())
            Run.create(self.run.path)

    def _resume(self, resume: bool | str | Path) -> None:
        self._saved = -1
        run = self.run
        if not isinstance(resume, bool):
            self.load(resume)
        elif run and resume and (newest := self.processes.first(lambda: checkpoint.sound(run.path))):
            self.load(newest, verified=True)
        elif run and self.step == 0 and (newest := self.processes.first(lambda: checkpoint.latest(run.path))):
            raise ValueError(f"{newest.parent.parent} holds {newest.name} already; resume it or use another directory")

    def _check_weights(self, state: dict[str, Tensor]) -> None:
        check_weights(self.task, state, self.step - 1, self.run, self.clip)

    def _check_finite(self) -> None:
        losses, self._losses = self._losses, []
        check_losses(losses, self.run, self.clip)
