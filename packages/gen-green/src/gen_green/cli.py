"""The command `gen green`: run, predict, compare, audit, doctor.

    gen green run --grid FR --pue 1.2 --json out.json -- python train.py
    gen green predict --params 7e9 --tokens 2e12 --device A100 --count 2048
    gen green compare before.json after.json
    gen green audit --gpu-hours 1720320 --watts 400 --tonnes 291.42
    gen green doctor

`run` stands beside the command, never between: standard input, output and error are the command's own, signals sent to
`run` reach it, and its exit code is the command's. The statement goes to standard error when it has ended.
"""

import argparse
import json
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gen_green.counters import POWERCAP, detect
from gen_green.machine import Machine
from gen_green.meter import Meter
from gen_green.quantity import si
from gen_green.reading import Reading

__all__ = ["main"]


def main(argv: Sequence[str] | None = None, prog: str = "gen green") -> None:
    """Run a command; errors are one sentence, with exit code 2."""
    argv = list(sys.argv[1:] if argv is None else argv)
    command: list[str] = []
    if argv[:1] == ["run"] and "--" in argv:  # what follows is not ours to parse
        at = argv.index("--")
        argv, command = argv[:at], argv[at + 1 :]
    args = _parser(prog).parse_args(argv)
    try:
        code = args.function(args, command) if args.function is _run else args.function(args)
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        print(f"{prog}: {error}", file=sys.stderr)
        code = 2
    sys.exit(code)


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=prog, description="Energy, carbon and water of any computation.")
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")

    def verb(name: str, function: Any, text: str) -> argparse.ArgumentParser:
        made = verbs.add_parser(name, help=text, description=text)
        made.set_defaults(function=function)
        return made

    place = argparse.ArgumentParser(add_help=False)
    place.add_argument("--grid", metavar="PLACE", help="country code or name, or g/kWh; the world's mean if left out")
    place.add_argument("--pue", type=float, default=1.0, help="power usage effectiveness of the building, at least 1")
    place.add_argument("--psf", type=float, default=1.0, help="how many times the computation was or will be run")
    place.add_argument("--json", type=Path, metavar="FILE", help="write the figures and the reading")

    run = verbs.add_parser(
        "run",
        parents=[place],
        help="measure a command",
        description="Measure a command.",
        usage=f"{prog} run [--grid PLACE] [--pue PUE] [--psf PSF] [--scope SCOPE] [--tdp W] [--json FILE] -- CMD ...",
    )
    run.set_defaults(function=_run)
    run.add_argument(
        "--scope", choices=("tree", "machine"), default="tree", help="the command's processes, or all that runs here"
    )

    run.add_argument("--tdp", type=float, metavar="WATTS", help="of all CPU packages, or a guest's share")

    predict = verbs.add_parser(
        "predict", parents=[place], help="predict a training from its FLOPs", description="Energy of a training."
    )
    predict.set_defaults(function=_predict)
    predict.add_argument("--params", type=float, help="parameters that a token meets; with --tokens, 6 N D FLOPs")
    predict.add_argument("--tokens", type=float)
    predict.add_argument("--flops", type=float, help="instead of --params and --tokens")
    predict.add_argument("--device", default="H100", help="accelerator, as NVML or its data sheet names it")
    predict.add_argument("--count", type=int, default=1, help="of devices")
    predict.add_argument("--mfu", type=float, default=0.40, help="share of the peak FLOP/s that the model gets")
    predict.add_argument("--watts", type=float, help="mean draw of a device; its TDP if left out")

    compare = verb("compare", _compare, "Two readings side by side.")
    compare.add_argument("first", type=Path, help="a file of `run --json`, or reading.json of a run")
    compare.add_argument("second", type=Path)

    audit = verb("audit", _audit, "Check a published card's tonnes against its own hours.")
    for name in ("gpu-hours", "watts", "tonnes"):
        audit.add_argument(f"--{name}", type=float, required=True)
    audit.add_argument("--pue", type=float, default=1.1)
    audit.add_argument("--intensity", type=float, default=385.0, help="g/kWh")

    doctor = verb("doctor", _doctor, "What would be measured here, from what, how sure, and what would improve it.")
    doctor.add_argument("--powercap", type=Path, default=POWERCAP, help=argparse.SUPPRESS)
    return parser


def _run(args: argparse.Namespace, command: list[str]) -> int:
    from gen_green import report
    from gen_green.footprint import footprint

    if not command:
        raise ValueError("give the command to measure after --, as in: run --grid FR -- python train.py")
    place = {"grid": _grid(args.grid), "pue": args.pue, "psf": args.psf}
    footprint(0.0, **place)  # a wrong place is said before the command runs, not after
    if args.json and not args.json.parent.is_dir():
        raise FileNotFoundError(f"--json {args.json}: {args.json.parent} is no directory; make it, or name another")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        counters = detect(args.scope, tdp=args.tdp)
    with Meter(counters, sync=False) as meter:
        code = _spawn(command)
    result = footprint(meter.reading, **place)
    notes = [f"note: {warning.message}" for warning in said]
    if args.grid is None:
        notes.append("note: no --grid was given, so electricity is taken at the world's mean")
    print("\n".join([report.text(meter.reading, result), *notes]), file=sys.stderr)
    if args.json:
        args.json.write_text(json.dumps(report.to_json(meter.reading, result), indent=2) + "\n", encoding="utf-8")
    return code


def _spawn(command: list[str]) -> int:
    """Run to the end, handing on SIGINT and SIGTERM; the exit code as a shell gives it (128 + signal).

    A terminal sends its interrupt to both of us, so SIGINT is handed on only where it did not come from one.
    """
    import signal
    import subprocess

    child: subprocess.Popen[bytes] | None = None
    pending: list[int] = []

    def forward(number: int, frame: object) -> None:
        if child is None:
            pending.append(number)
        elif number != signal.SIGINT or not _foreground():
            child.send_signal(number)

    wanted = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in wanted}
    try:
        for number in wanted:
            if before[number] != signal.SIG_IGN:  # nohup: the child ignores it, and so do we
                signal.signal(number, forward)
        try:
            child = subprocess.Popen(command, close_fds=False)
        except FileNotFoundError:
            raise FileNotFoundError(f"{command[0]} is no command that can be found; check its name") from None
        except PermissionError:
            raise PermissionError(f"{command[0]} is not executable; run it by its interpreter") from None
        for number in pending:
            child.send_signal(number)
        code = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code


def _foreground() -> bool:
    """True where a terminal's interrupt reaches this process group, and with it the child."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def _predict(args: argparse.Namespace) -> int:
    from gen_green import hardware, predict, report
    from gen_green.footprint import footprint

    flops: float | None = args.flops
    if flops is None and args.params is not None and args.tokens is not None:
        flops = predict.transformer_flops(args.params, args.tokens)
    elif flops is None or args.params is not None or args.tokens is not None:
        raise ValueError("give --flops, or --params and --tokens")
    reading = predict.training(flops, hardware.device(args.device), args.mfu, args.count, watts=args.watts)
    result = footprint(reading, _grid(args.grid), args.pue, args.psf)
    print(f"{'computes':<12}{flops:.3g} FLOPs in {reading.seconds * args.count / 3600:.4g} device hours")
    print(report.text(reading, result))
    if args.json:
        args.json.write_text(json.dumps(report.to_json(reading, result), indent=2) + "\n", encoding="utf-8")
    return 0


def _compare(args: argparse.Namespace) -> int:
    from gen_green import report

    print(report.compare(Reading.load(args.first), Reading.load(args.second), (args.first.stem, args.second.stem)))
    return 0


def _audit(args: argparse.Namespace) -> int:
    from gen_green import predict

    found = predict.audit(args.gpu_hours, args.watts, args.tonnes, args.pue, args.intensity)
    print(
        f"stated {args.tonnes:g} t; {args.gpu_hours:g} h x {args.watts:g} W x PUE {args.pue:g} x "
        f"{args.intensity:g} g/kWh = {found.expected:.4g} t; ratio {found.ratio:.3g}, "
        f"{'consistent' if found.consistent else 'INCONSISTENT'} "
        f"(the card implies {found.implied:.3g} g per kWh at the devices)"
    )
    return 0 if found.consistent else 1


def _doctor(args: argparse.Namespace) -> int:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        counters = detect(powercap=args.powercap)
    machine = Machine.here()
    kind = "virtual machine" if machine.virtual else "machine"
    limits = f", of which this process may use {machine.allowed:g}" if machine.allowed < machine.cpus else ""
    print(f"{kind}: {machine.model or 'a processor without a name'}, {machine.cpus} logical CPUs{limits}, ", end="")
    print(si(machine.memory, "B", 3) if machine.memory < 1e9 else f"{machine.memory / 1e9:.3g} GB of memory")
    for counter in counters:
        sure = f"within a factor {counter.spread:.3g}" if counter.spread > 1 else "exact"
        print(f"  {counter.name:<10} {counter.kind:<9} {sure:<22} {counter.source}")
    print(f"to improve: {_advice(counters, [str(warning.message) for warning in said], machine, args.powercap)}")
    return 0


def _advice(counters: Sequence[Any], warned: Sequence[str], machine: Machine, powercap: Path) -> str:
    """The one command that would make the figures here surer."""
    for message in warned:  # a sensor is there and cannot be read
        for start in ("sudo chmod", "pip install"):
            if start in message:
                return start + message.partition(start)[2].partition(" (")[0]
    if any(counter.kind == "measured" and counter.name.startswith("package") for counter in counters):
        return "nothing; the CPU is measured here"
    if not powercap.exists() and not machine.virtual and sys.platform == "linux":
        return "sudo modprobe intel_rapl_msr (the kernel's driver for RAPL, also on AMD)"
    why = "a guest sees no sensor of its host" if machine.virtual else "no sensor is known for this system"
    if all(counter.kind != "assumed" for counter in counters):
        return f"{why}; measure on the machine itself"
    return f"{why}; state what its CPUs may draw: gen green run --tdp WATTS -- COMMAND"


def _grid(text: str | None) -> Any:
    """A country, or a number of g/kWh."""
    from gen_green.grid import constant, country

    try:
        return constant(float(text), source="--grid") if text is not None else country("WORLD")
    except ValueError:
        if text is not None and text.lstrip("+-").replace(".", "", 1).isdigit():
            raise
        return country(text or "")


if __name__ == "__main__":
    main()
