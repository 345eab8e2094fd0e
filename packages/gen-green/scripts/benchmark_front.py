"""Quality against energy on the digits (1797 images): k-NN, logistic regression, MLPs of three widths, fp32 and bf16.

    python scripts/benchmark_front.py [--plot front.png] [--repeats 3]

Needs scikit-learn and torch. Energy is of training and one test on one thread, by whatever this machine can measure
(`gen-green doctor` says what). The front is found again with all energies scaled by 0.5, 2 and 10, as a wrong TDP
would: it must not change.
"""

import argparse
import statistics

import threadpoolctl
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier

from gen_green.counters import detect
from gen_green.meter import Meter
from gen_green.pareto import front, plot


class MLP:
    """One hidden layer, Adam, 30 epochs in batches of 64, weights and activations in `dtype`."""

    def __init__(self, width: int, dtype: torch.dtype):
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(torch.nn.Linear(64, width), torch.nn.ReLU(), torch.nn.Linear(width, 10)).to(
            dtype
        )
        self.dtype = dtype

    def fit(self, x, y):
        inputs, labels = torch.as_tensor(x, dtype=self.dtype), torch.as_tensor(y)
        optimiser = torch.optim.Adam(self.net.parameters(), lr=3e-3)
        for _ in range(30):
            for rows in torch.randperm(len(x)).split(64):
                optimiser.zero_grad()
                torch.nn.functional.cross_entropy(self.net(inputs[rows]).float(), labels[rows]).backward()
                optimiser.step()
        return self

    def score(self, x, y) -> float:
        with torch.no_grad():
            return (self.net(torch.as_tensor(x, dtype=self.dtype)).argmax(1).numpy() == y).mean()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plot")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    x, y = load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(x / 16.0, y, test_size=0.5, random_state=0)
    models = {"k-NN": lambda: KNeighborsClassifier(3), "logistic regression": lambda: LogisticRegression(max_iter=1000)}
    for width in (16, 64, 256):
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
            models[f"MLP {width} {name}"] = lambda width=width, dtype=dtype: MLP(width, dtype)
    KNeighborsClassifier(3).fit(x_train, y_train).score(x_test, y_test)  # the first call loads libraries
    MLP(16, torch.bfloat16).fit(x_train[:64], y_train[:64])
    runs = []
    for name, make in models.items():
        readings = []
        for _ in range(args.repeats):
            with threadpoolctl.threadpool_limits(1), Meter(detect("tree")) as meter:
                accuracy = make().fit(x_train, y_train).score(x_test, y_test)
            readings.append(meter.reading)
        joules = statistics.median(r.total for r in readings)
        runs.append({"name": name, "accuracy": float(accuracy), "joules": joules, "spread": readings[0].spread})
    best = front(runs, maximise=["accuracy"], minimise=["joules"])
    for i, run in enumerate(runs):
        mark = "front" if i in best else ""
        print(f"{run['name']:20} {run['accuracy']:.4f} {run['joules']:10.3f} J  within {run['spread']:.2f}  {mark}")
    for scale in (0.5, 2.0, 10.0):
        scaled = [{**run, "joules": run["joules"] * scale} for run in runs]
        assert front(scaled, maximise=["accuracy"], minimise=["joules"]) == best, scale
    print("the front stays with all powers scaled by 0.5, 2 and 10; source:", readings[0].quantity.source)
    if args.plot:
        plot(runs, "joules", "accuracy", args.plot, spread="spread")


if __name__ == "__main__":
    main()
