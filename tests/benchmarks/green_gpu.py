"""Section by section what gen-green's GPU counter is worth on one NVIDIA GPU, in about three minutes.

    uv run python tests/benchmarks/green_gpu.py [--seconds 30]

1. total-energy counter against the trapezoid of 10 Hz power, over bf16 matrix products     (bar: within 5 %)
2. zeus on the same interval, where it is installed                                        (bar: 1 % + 0.1 s x power)
3. windows of 20 ms: flagged "quantised", with an interval that covers the long window's mean
4. laps with and without waiting for the queue: the difference is the queue's energy
5. CUDA_VISIBLE_DEVICES by index and by UUID give one device
6. picojoules per FLOP (data sheet of an H100: 0.71; a reference, not a bound)
7. joules of one product at 64, 512, 4096 on CPU (modelled) and GPU (measured): where the GPU starts to pay

Power limits and clocks stay as they are.
"""

import argparse
import statistics
import threading
import time
from collections.abc import Callable

import torch

from gen_green import Meter, detect, nvml, si
from gen_green.pareto import break_even

SIZE = 8192


def load(device: str, n: int = SIZE) -> Callable[[], None]:
    """One bf16 product of n x n matrices, about 1e12 FLOPs at 8192."""
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in "ab")
    out = torch.empty_like(a)
    return lambda: torch.mm(a, b, out=out)


def burn(work: Callable[[], None], seconds: float) -> int:
    """Products made in so many seconds, the queue kept short."""
    made, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in range(10):
            work()
        torch.cuda.synchronize()
        made += 10
    return made


class Trapezoid(threading.Thread):
    """Power at 10 Hz, integrated."""

    def __init__(self):
        import pynvml

        super().__init__(daemon=True)
        self.lib, self.handle = pynvml, pynvml.nvmlDeviceGetHandleByIndex(0)
        self.points: list[tuple[float, float]] = []
        self.ended = threading.Event()

    def watts(self) -> float:
        """Instant power where the driver tells it: nvmlDeviceGetPowerUsage is a 1 s mean on most recent GPUs."""
        try:
            field = self.lib.nvmlDeviceGetFieldValues(self.handle, [self.lib.NVML_FI_DEV_POWER_INSTANT])[0]
            if field.nvmlReturn == 0:
                return field.value.uiVal / 1e3
        except (AttributeError, self.lib.NVMLError):
            pass
        return self.lib.nvmlDeviceGetPowerUsage(self.handle) / 1e3

    def run(self) -> None:
        while not self.ended.is_set():
            self.points.append((time.monotonic(), self.watts()))
            self.ended.wait(0.1)

    def joules(self) -> float:
        self.ended.set()
        self.join()
        self.points.append((time.monotonic(), self.watts()))
        pairs = zip(self.points, self.points[1:], strict=False)
        return sum((t - s) * (p + q) / 2 for (s, p), (t, q) in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0, help="of the long windows")
    args = parser.parse_args()
    counters = nvml()
    if not counters or not torch.cuda.is_available():
        raise SystemExit("no NVIDIA GPU is at hand")
    print(torch.cuda.get_device_name(0), "|", counters[0].source)
    work = load("cuda")
    burn(work, 3.0)

    zeus = zeus_monitor()
    trapezoid = Trapezoid()
    with Meter(counters) as m:
        trapezoid.start()
        if zeus:
            zeus.begin_window("w")
        made = burn(work, args.seconds)
        theirs = zeus.end_window("w") if zeus else None
    sampled, joules = trapezoid.joules(), m.reading.total
    mean = joules / m.reading.seconds
    print(
        f"1. counter {si(joules, 'J')}, 10 Hz trapezoid {si(sampled, 'J')}: ratio {joules / sampled:.4f}; {mean:.0f} W"
    )
    if theirs:
        off = joules - sum(theirs.gpu_energy.values())
        print(f"2. zeus differs by {off:.1f} J; allowed {0.01 * joules + 0.1 * mean:.1f} J")
    else:
        print("2. zeus is not installed")

    with Meter(counters, sync=False) as m:
        for _ in range(100):
            end = time.monotonic() + 0.02
            while time.monotonic() < end:
                work()
                torch.cuda.synchronize()
            m.lap()
    covered = statistics.fmean(lap.low <= mean * lap.seconds <= lap.high for lap in m.laps)
    empty = statistics.fmean(lap.total == 0 for lap in m.laps)
    flagged = all("quantised" in lap.flags for lap in m.laps)
    print(f"3. 100 windows of 20 ms: flagged {flagged}, {empty:.0%} read 0 J, the interval covers {covered:.0%}")

    energies = []
    for sync in (False, True):
        torch.cuda.synchronize()
        time.sleep(1.0)
        with Meter(counters, sync=sync) as m:
            for _ in range(2000):
                work()
            energies.append(m.lap().total)
        torch.cuda.synchronize()
    print(f"4. a lap over 2000 queued products: {si(energies[0], 'J')} without waiting, {si(energies[1], 'J')} with")

    uuid = counters[0].name.removeprefix("gpu ")
    same = {c.name for named in ("0", uuid, uuid[:12]) for c in nvml(visible=named)}
    print(f"5. index, UUID and its beginning name {len(same)} device")
    print(
        f"6. {joules / (made * 2 * SIZE**3) * 1e12:.3f} pJ/FLOP, {made * 2 * SIZE**3 / args.seconds / 1e12:.0f} TFLOP/s"
    )

    print("7. joules of a product:")
    cpu_side = [c for c in detect("machine", warn=False) if not c.name.startswith("gpu")]
    lines: dict[str, list[tuple[float, float]]] = {"cpu": [], "cuda": []}
    for n in (64, 512, 4096):
        each = {}
        for device, found in (("cpu", cpu_side), ("cuda", counters)):
            product, count = load(device, n), 0
            product()
            with Meter(found) as m:
                end = time.monotonic() + 4.0
                while time.monotonic() < end:
                    product()
                    count += 1
                    if count % 100 == 0 and device == "cuda":
                        torch.cuda.synchronize()
            each[device] = m.reading.total / count
            lines[device].append((float(n) ** 3, each[device]))
        print(f"   {n:>5}: CPU {si(each['cpu'], 'J'):>9} (modelled), GPU {si(each['cuda'], 'J'):>9} (measured)")
    affine = {k: (v[0][1], (v[-1][1] - v[0][1]) / (v[-1][0] - v[0][0])) for k, v in lines.items()}
    even = break_even(affine["cpu"], affine["cuda"])
    print(f"   the GPU takes less from about n = {even ** (1 / 3):.0f}" if even > 0 else "   one is always below")


def zeus_monitor():
    try:
        from zeus.monitor import ZeusMonitor
    except ImportError:
        return None
    return ZeusMonitor(gpu_indices=[0])


if __name__ == "__main__":
    main()
