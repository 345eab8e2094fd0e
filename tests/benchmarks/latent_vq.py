"""A step of a codebook, ours and vector-quantize-pytorch's: forward, backward, update, on the same codes and vectors.

    uv run --group peers python tests/benchmarks/latent_vq.py

On the CPU with one thread, or on a GPU where there is one. Both begin with the same codes, decay .99, straight-through
gradient; the peer with its defaults otherwise. They take turns, so that a machine that drifts drifts for both; printed
are medians over rounds, and whether the same codes were chosen after the first step.
"""

import statistics
import time
from collections.abc import Callable

import torch

from gen_latent import VectorQuantizer

SIZES = [(512, 64, 32, 256), (1024, 256, 8, 256), (64, 64, 128, 16), (8192, 8, 8, 256)]  # codes, dim, samples, vectors
ROUNDS, STEPS = 15, 5


def seconds(step: Callable[[], object], device: str) -> float:
    """For one step, of several."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(STEPS):
        step()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / STEPS


def compare(codes: int, dim: int, samples: int, vectors: int, device: str) -> None:
    from vector_quantize_pytorch import VectorQuantize  # pyright: ignore[reportMissingImports]

    torch.manual_seed(0)
    ours = VectorQuantizer(codes, dim, decay=0.99).to(device)
    peer = VectorQuantize(dim, codes, decay=0.99, commitment_weight=0.25, rotation_trick=False).to(device)
    peer._codebook.embed.data.copy_(ours.table[None])
    peer._codebook.embed_avg.data.copy_(ours.table[None])
    z = torch.randn(samples, vectors, dim, device=device) / dim**0.5
    same = (ours.eval()(z).index == peer.eval()(z)[1]).float().mean().item()
    ours.train()
    peer.train()

    def our_step() -> None:
        x = z.clone().requires_grad_()
        q, _, loss = ours(x)
        (q.sum() + loss.mean()).backward()
        ours.update()

    def peer_step() -> None:
        x = z.clone().requires_grad_()
        q, _, loss = peer(x)
        (q.sum() + loss.sum()).backward()

    our_step()
    peer_step()
    times = [(seconds(our_step, device), seconds(peer_step, device)) for _ in range(ROUNDS)]
    mine, its = (statistics.median(column) * 1e3 for column in zip(*times, strict=True))
    ratio = statistics.median(b / a for a, b in times)
    print(f"{codes:6d} {dim:5d} {samples:5d} x {vectors:4d} {mine:10.2f} {its:10.2f} {ratio:8.2f} {same:8.4f}")


def main() -> None:
    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(f"on the {device}, ms a step")
    print(" codes   dim      vectors       ours       peer  peer/us   same codes")
    for size in SIZES:
        compare(*size, device)


if __name__ == "__main__":
    main()
