"""Speed of training a language model: tokens and operations a second, and what share of the device that is."""

import time
from typing import Any

import torch

from gen_core import Callback

PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "A10": 125e12}  # bf16, dense, per second


class Speed(Callback):
    """Adds tokens_per_second and tflops every `every` steps, and on a known GPU mfu and its memory.

    Model FLOPs utilisation as in PaLM (arXiv:2204.02311, appendix B): attention counted whole though it is causal, the
    bf16 peak of the card without sparsity as the denominator, the embedding's look-up not counted.

    Args:
        tokens: of one update, over all processes.
        flops: of one token, forward and backward.
    """

    order = 5

    def __init__(self, tokens: int, flops: int, every: int):
        self.tokens, self.flops, self.every = tokens, flops, every

    def on_train_begin(self, t: Any) -> None:
        self.time, self.step = time.perf_counter(), t.step
        name = torch.cuda.get_device_name(t.device) if t.device.type == "cuda" else ""
        self.peak = next((peak for card, peak in PEAKS.items() if card in name), None)

    def on_step_end(self, t: Any, metrics: dict[str, Any]) -> None:
        if t.step % self.every:
            return
        if t.device.type == "cuda":
            torch.cuda.synchronize(t.device)
            metrics["memory_gib"] = torch.tensor(torch.cuda.max_memory_allocated(t.device) / 2**30)
        now = time.perf_counter()
        rate = (t.step - self.step) * self.tokens / (now - self.time)
        self.time, self.step = now, t.step
        metrics["tokens_per_second"] = torch.tensor(rate)
        metrics["tflops"] = torch.tensor(rate * self.flops / 1e12)
        if self.peak:
            metrics["mfu"] = torch.tensor(rate * self.flops / (self.peak * t.world))
