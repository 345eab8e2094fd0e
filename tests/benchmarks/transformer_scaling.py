"""The Chinchilla law on the runs read off its own figure, beside the published fits.

    git clone https://github.com/epoch-research/analyzing-chinchilla
    OMP_NUM_THREADS=1 python tests/benchmarks/transformer_scaling.py analyzing-chinchilla/data/svg_extracted_data.csv

245 runs with their size, FLOP and loss; the replication (Besiroglu et al. 2024) takes D = C / 6N and drops the five
largest losses. "objective" is the sum of the Huber losses (delta .001) of the log residuals.

|                        | objective    | E      | A      | B       | alpha  | beta   | se alpha | se beta |
|------------------------|--------------|--------|--------|---------|--------|--------|----------|---------|
| here                   | .00101827402 | 1.8172 | 477.83 | 2143.42 | .34731 | .36717 | .0143    | .0188   |
| replication, Huber     | .00101827404 | 1.8172 | 478    | 2143    | .34730 | .36716 |          |         |
| replication, bootstrap |              | 1.8169 | 482.01 | 2085.43 | .34781 | .36585 | .0154    | .0206   |
| Hoffmann et al. 2022   | .00412101    | 1.69   | 406.4  | 410.7   | .34    | .28    |          |         |

The best model for Chinchilla's 5.76e23 FLOP then has 73.2 billion parameters and 17.9 tokens for each. Standard errors
are those of 400 resamples (theirs: 4,000), intervals of 95 % .318 to .369 and .334 to .411.
"""

import csv
import sys
import time
from dataclasses import replace

import torch
from torch.nn.functional import huber_loss

from gen_transformer.scaling import Law, fit

PUBLISHED = {
    "replication, bootstrap": Law(1.8169, 482.01, 2085.43, 0.34781, 0.36585),
    "Hoffmann et al. 2022": Law(1.69, 406.4, 410.7, 0.34, 0.28),
}


def runs(path: str) -> tuple[torch.Tensor, ...]:
    with open(path) as file:
        rows = [(float(r["Model Size"]), float(r["Training FLOP"]), float(r["loss"])) for r in csv.DictReader(file)]
    N, C, loss = torch.tensor(rows, dtype=torch.float64).T
    keep = loss.argsort()[:-5].sort().values
    return N[keep], (C / 6 / N)[keep], loss[keep]


def main(path: str) -> None:
    N, D, loss = runs(path)
    import scipy.optimize  # noqa: F401 (its import is not the fit)

    start = time.process_time()
    law = fit(N, D, loss)
    seconds = time.process_time() - start
    resampled = fit(N, D, loss, bootstrap=400, generator=torch.Generator().manual_seed(0))
    print(f"{len(N)} runs, fitted in {seconds:.2f} s of one core")
    for name, l in {"here": law, **PUBLISHED}.items():
        objective = huber_loss(l.predict(N, D).log(), loss.log(), reduction="sum", delta=1e-3)
        print(f"{name:24}{objective:.11f}  {replace(l, objective=0.0)}")
    for name in ("alpha", "beta"):
        values = torch.tensor([getattr(l, name) for l in resampled.resamples])
        low, high = resampled.interval(lambda l, name=name: getattr(l, name))
        print(f"{name}: standard error {values.std():.4f}, 95 % {low:.3f} to {high:.3f}")
    best, tokens = law.optimal(5.76e23)
    print(f"5.76e23 FLOP: {best / 1e9:.1f} billion parameters, {tokens / best:.1f} tokens for each")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("give the csv: transformer_scaling.py analyzing-chinchilla/data/svg_extracted_data.csv")
    main(sys.argv[1])
