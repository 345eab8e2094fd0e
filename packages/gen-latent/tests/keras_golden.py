"""Prints the values of Keras 3.15.1 in test_graph.py: a functional model of two inputs and two outputs.

KERAS_BACKEND=torch uv run --group peers python packages/gen-latent/tests/keras_golden.py
"""

from typing import Any

import torch

SHAPES = {"conv": (3, 3, 1, 2), "table": (5, 3), "hidden": (5, 4), "cls": (4, 3), "age": (4, 1)}  # of Keras's kernels


def wave(*shape: int, rate: float) -> torch.Tensor:
    """Numbers in [-1, 1], the same on every machine."""
    n = int(torch.tensor(shape).prod())
    return torch.sin(torch.arange(1, n + 1, dtype=torch.float64) * rate).float().reshape(shape)


WEIGHTS = {name: (wave(*s, rate=0.3 + i), wave(s[-1], rate=1.1 + i)) for i, (name, s) in enumerate(SHAPES.items())}
PICTURES, NUMBERS = wave(4, 6, 6, 1, rate=0.9), wave(4, 5, rate=0.4)  # channels last, as Keras has them


def functional() -> Any:
    """picture -> conv -> mean over pixels, beside numbers -> table; both -> hidden -> a class and an age."""
    import keras  # pyright: ignore[reportMissingImports]

    picture, numbers = keras.Input((6, 6, 1), name="picture"), keras.Input((5,), name="numbers")
    conv = keras.layers.Conv2D(2, 3, activation="relu", name="conv")(picture)
    flat = keras.layers.GlobalAveragePooling2D(name="flat")(conv)
    table = keras.layers.Dense(3, activation="tanh", name="table")(numbers)
    both = keras.layers.Concatenate(name="both")([flat, table])
    hidden = keras.layers.Dense(4, activation="relu", name="hidden")(both)
    outputs = [keras.layers.Dense(3, name="cls")(hidden), keras.layers.Dense(1, name="age")(hidden)]
    model = keras.Model([picture, numbers], outputs)
    for name, (kernel, bias) in WEIGHTS.items():
        model.get_layer(name).set_weights([kernel.numpy(), bias.numpy()])
    return model


def answers() -> tuple[torch.Tensor, torch.Tensor]:
    """The class logits and the age."""
    cls, age = functional()([PICTURES, NUMBERS])
    return cls.detach().cpu(), age.detach().cpu()


if __name__ == "__main__":
    torch.set_printoptions(precision=8)
    print(*answers(), sep="\n")
