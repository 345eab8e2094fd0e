"""Energy, carbon and water of any computation: measured, predicted, compared.

    with Meter() as m:
        train()
    print(m.reading.quantity)                                # joules, how sure, from what source
    print(footprint(m.reading, "FR", pue=1.2).carbon)        # grams of CO2 equivalent

Every sensor is a counter of joules that only grows, real or modelled; a `Reading` is a difference of counters, a
`Footprint` a reading times a place; every figure carries its kind, source, year and spread.
"""

from gen_green.callback import Energy
from gen_green.counters import Counter, detect, nvml, rapl
from gen_green.footprint import Footprint, embodied, equivalents, footprint
from gen_green.grid import (
    CarbonIntensity,
    best_start,
    constant,
    country,
    electricity_maps,
    mix,
    read_trace,
    trace,
    world,
)
from gen_green.hardware import Device, Hardware, device
from gen_green.meter import Meter
from gen_green.models import cpu_model, idle_model, memory_model
from gen_green.pareto import break_even, front
from gen_green.predict import audit, card, from_laps, inference, training, transformer_flops
from gen_green.quantity import Quantity, si
from gen_green.reading import Part, Reading, reduce

__all__ = [
    "CarbonIntensity",
    "Counter",
    "Device",
    "Energy",
    "Footprint",
    "Hardware",
    "Meter",
    "Part",
    "Quantity",
    "Reading",
    "audit",
    "best_start",
    "break_even",
    "card",
    "constant",
    "country",
    "cpu_model",
    "detect",
    "device",
    "electricity_maps",
    "embodied",
    "equivalents",
    "footprint",
    "from_laps",
    "front",
    "idle_model",
    "inference",
    "memory_model",
    "mix",
    "nvml",
    "rapl",
    "read_trace",
    "reduce",
    "si",
    "trace",
    "training",
    "transformer_flops",
    "world",
]
