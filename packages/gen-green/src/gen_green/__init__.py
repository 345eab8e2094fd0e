"""Energy, carbon and water of any computation: measured, predicted, compared.

with Meter() as m:
    train()
print(m.reading.quantity)  # joules, how sure, from what source
"""

from gen_green.counters import Counter, detect, nvml, rapl
from gen_green.meter import Meter, Part, Reading, reduce
from gen_green.models import cpu_model, idle_model, memory_model
from gen_green.quantity import Quantity, si

__all__ = [
    "Counter",
    "Meter",
    "Part",
    "Quantity",
    "Reading",
    "cpu_model",
    "detect",
    "idle_model",
    "memory_model",
    "nvml",
    "rapl",
    "reduce",
    "si",
]
