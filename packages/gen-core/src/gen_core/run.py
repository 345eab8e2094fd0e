"""A run directory: configuration, environment, measurements.

    run = Run.create("runs/a", config)  # the same configuration again: the same run, to be continued
    run.log(step=10, metrics={"loss": 0.5})
    Run.open("runs/a").metrics()  # [{"step": 10, "loss": 0.5}]

Every file but metrics.jsonl appears whole or not at all; metrics.jsonl may lose its last line to a crash, no more.
"""

import difflib
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gen_core.config import differences, to_dict, to_json
from gen_core.files import lock, whole

__all__ = ["Run", "environment"]


class Run:
    """runs/NAME/{config.json, environment.json, summary.txt, metrics.jsonl, quality.json, samples/step-000123.png,
    checkpoints/, report.html}. Making a `Run` touches nothing; `create` and `open` look."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self._locked = False
        self._whole = False  # whether metrics.jsonl is known to end with a whole line

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @classmethod
    def create(cls, path: str | os.PathLike[str], config: Any = None) -> "Run":
        """The run at `path`, made if need be; environment.json tells of the process that made it.

        Args:
            config: a dataclass, or a mapping in JSON's types; None is `{}` for a new run and fits any old one.

        Raises:
            ValueError: if the run has another configuration.
        """
        run = cls(path)
        wanted = to_dict(config) if not isinstance(config, Mapping | None) else to_json(config or {}, "config")
        if not (run.path / "config.json").exists():
            run.write("environment.json", environment())
            run.write("config.json", wanted)  # last: this file makes the directory a run
        elif config is not None and (changed := differences(run.config(), wanted)):
            raise ValueError(
                f"{run.path} holds a run with another configuration ({'; '.join(changed)}); "
                f"choose another directory, or the same configuration to continue that run"
            )
        return run

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "Run":
        """The run at `path`.

        Raises:
            FileNotFoundError: if there is none, with the sibling of the nearest name.
        """
        run = cls(path)
        if not (run.path / "config.json").exists():
            siblings = [found.parent.name for found in sorted(run.path.parent.glob("*/config.json"))]
            nearest = difflib.get_close_matches(run.path.name, siblings, n=1)
            remedy = f"did you mean {run.path.parent / nearest[0]}?" if nearest else "give the directory of a run"
            raise FileNotFoundError(f"{run.path} is no run (no config.json); {remedy}")
        return run

    def config(self) -> dict[str, Any]:
        """The configuration, for `gen_core.config.from_dict`."""
        return json.loads((self.path / "config.json").read_text(encoding="utf-8"))

    def log(self, step: int, metrics: Mapping[str, int | float]) -> None:
        """Append `{"step": step, ...}` to metrics.jsonl; inf and nan, which JSON lacks, are "inf", "-inf" and "nan"."""
        if "step" in metrics:
            raise ValueError(f"a metric cannot be named 'step', got {dict(metrics)}; rename it")
        line = json.dumps(to_json({"step": step} | {name: float(value) for name, value in metrics.items()}))
        if not self._whole:  # a crash may have torn the last line off
            self.path.mkdir(parents=True, exist_ok=True)
            self.rewind(sys.maxsize)
        self._whole = False
        with open(self.path / "metrics.jsonl", "ab") as file:
            file.write(line.encode() + b"\n")
        self._whole = True

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl as they were logged; a last line that a crash tore off is left out."""
        file, found = self.path / "metrics.jsonl", []
        *whole, _torn = file.read_text(encoding="utf-8").split("\n") if file.exists() else [""]
        for number, line in enumerate(whole, 1):
            try:
                found.append({name: v if name == "step" else float(v) for name, v in json.loads(line).items()})
            except (ValueError, AttributeError):
                raise ValueError(f"{file} line {number} is no JSON object: {line!r}; mend it or delete it") from None
        return found

    def rewind(self, step: int) -> None:
        """Drop what was logged after `step`, for an exact resume from there."""
        kept = [json.dumps(to_json(entry)) + "\n" for entry in self.metrics() if entry["step"] <= step]
        if (self.path / "metrics.jsonl").exists():
            self.write("metrics.jsonl", "".join(kept))

    def write(self, name: str, content: Any) -> Path:
        """Write a file (`name` may have folders) whole or not at all: text, bytes, or anything with a JSON form."""
        if not isinstance(content, str | bytes):
            content = json.dumps(to_json(content, name), indent=2, ensure_ascii=False) + "\n"
        with whole(self.path / name) as part:
            part.write_bytes(content.encode() if isinstance(content, str) else content)
        return self.path / name

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Inside, no other process and no other `Run` may lock this directory; one may nest its own.

        Raises:
            ValueError: while another holds it, naming that process and its host.
        """
        if self._locked:
            yield
            return
        with lock(self.path):
            self._locked = True
            try:
                yield
            finally:
                self._locked = False


def environment() -> dict[str, Any]:
    """Facts to repeat a run elsewhere: machine, versions, source, command line, start (UTC)."""
    import torch  # seconds, when nobody has imported it yet

    ours = {name.partition(".")[0].replace("_", "-") for name in sys.modules if name.startswith("gen_")}
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(sys.argv),
        "git": _git_hash(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "versions": _versions({*ours, "accelerate", "numpy"}) | {"torch": str(torch.__version__)},
    }


def _versions(names: Iterable[str]) -> dict[str, str]:
    """The versions of those distributions that are installed: looking through all of them takes 0.1 s."""
    found = {}
    for name in sorted(names):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _git_hash() -> str | None:
    """The commit of the working directory, marked -dirty if files differ from it; None outside of git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    with suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    return None
