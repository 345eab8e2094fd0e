"""Slurm's accounting text against the arithmetic of Green Algorithms."""

import pytest

from gen_green.hardware import cpu_core, gpu
from gen_green.reading import Reading
from gen_green.slurm import jobs

RECORDED = """\
JobID|State|ElapsedRaw|TotalCPU|AllocCPUS|NNodes|ReqMem|AllocTRES|ConsumedEnergyRaw
4567|COMPLETED|43200|5-23:30:00|12|1|64G|billing=12,cpu=12,mem=64G,node=1|0
4567.batch|COMPLETED|43200|5-23:30:00|12|1||cpu=12,mem=64G,node=1|0
4567.extern|COMPLETED|43200|00:00.001|12|1||billing=12,cpu=12,mem=64G,node=1|0
4568_3|FAILED|3600|01:30:00|4|1|4000Mc|billing=4,cpu=4,gres/gpu:a100=2,gres/gpu=2,mem=16000M,node=1|
4569|TIMEOUT|600|09:58.500|1|1|2Gn||
4570|COMPLETED|1800|00:20:00|2|1|8G|cpu=2,energy=90000,mem=8G,node=1|
4570.0|COMPLETED|1800|00:20:00|2|1||cpu=2,mem=8G,node=1|90000
"""


def test_a_job_is_its_cpu_seconds_its_memory_and_its_gpus():
    found = jobs(RECORDED)
    assert list(found) == ["4567", "4568_3", "4569", "4570"]
    seconds = 5 * 86_400 + 23 * 3600 + 30 * 60
    whole = found["4567"]
    assert whole.seconds == 43_200 and set(whole.joules) == {"cpu", "memory"}
    assert whole.joules["cpu"].joules == 12.0 * seconds
    assert whole.joules["memory"].joules == pytest.approx(0.3725 * 64 * 1.073741824 * 43_200), (
        "G is 2^30, W/GB is per 1e9"
    )
    mixed = found["4568_3"]
    assert mixed.joules["gpu"].joules == 2 * 200.0 * 3600, "gres/gpu and gres/gpu:a100 name the same two"
    assert mixed.joules["memory"].joules == pytest.approx(0.3725 * 16_000 * 2**20 / 1e9 * 3600)
    assert found["4569"].joules["cpu"].joules == 12.0 * 598.5
    assert found["4569"].joules["memory"].joules == pytest.approx(0.3725 * 2 * 2**30 / 1e9 * 600)


def test_measured_energy_counts_alone():
    found = jobs(RECORDED)["4570"]
    assert (found.total, found.kind) == (90_000, "measured") and found.seconds == 1800


HEADER = "JobID|ElapsedRaw|TotalCPU|AllocCPUS|NNodes|ReqMem|AllocTRES|ConsumedEnergyRaw\n"


@pytest.mark.parametrize("nothing", [2**64 - 2, 2**64 - 1, 2**32 - 2, 2**32 - 1, "1.84467440737096e+19", "", "nan"])
def test_a_number_that_says_no_value_is_no_measurement(nothing):
    """NO_VAL64 is 2^64 - 2: read as joules, one job would draw the world's electricity for weeks."""
    (found,) = jobs(HEADER + f"9|3600|01:00:00|1|1|0|cpu=1|{nothing}\n9.0|3600|01:00:00|1|1|||{nothing}\n").values()
    assert found.total == 12 * 3600 and found.kind == "assumed"
    (found,) = jobs(HEADER + f"9|3600|01:00:00|1|1|0|cpu=1|{nothing}\n9.0|3600|01:00:00|1|1|||70\n").values()
    assert (found.total, found.kind) == (70, "measured")
    (found,) = jobs(HEADER + f"9|3600|0|1|1|0|mem={nothing}M,gres/gpu={nothing}|{nothing}\n").values()
    assert found.total == 0


@pytest.mark.parametrize("first", ["9.batch", "9.0"])
def test_steps_add_up_under_a_blank_job(first):
    steps = f"{first}|60|0||||30000\n9.1|60|0||||60000\n9.2|60|0||||10000\n".replace("||||", "|1|1|||")
    assert jobs(HEADER + "9|180|0|1|1|||\n" + steps)["9"].total == 100_000
    assert jobs(HEADER + "9|180|0|1|1|||95000\n" + steps)["9"].total == 95_000, "a job's own figure counts alone"
    whole = "9.extern|180|0|1|1|||98000\n"
    assert jobs(HEADER + "9|180|0|1|1|||\n" + steps + whole)["9"].total == 98_000, "it spans the others"


def test_every_start_of_a_requeued_job_counts():
    """As `sacct --duplicates` prints it: a modelled start, one measured by its steps, one measured as a whole."""
    text = (
        HEADER
        + "9|100|00:01:40|1|1|0|cpu=1|\n"
        + "9|200|00:03:20|1|1|0|cpu=1|\n9.0|150|0|1|1|||500\n9.1|50|0|1|1|||250\n"
        + "9|300|00:05:00|1|1|0|cpu=1|4000\n9.0|300|0|1|1|||4000\n"
    )
    (found,) = jobs(text).values()
    assert found.seconds == 600 and {name: part.joules for name, part in found.joules.items()} == {
        "cpu": 1200,
        "node": 4750,
    }


def test_gpus_of_several_types_add_up_and_memory_per_node_counts_on_each():
    (found,) = jobs(HEADER + "9|10|0|1|2|4Gn|gres/gpu:a100=2,gres/gpu:v100=1,gres/gpuutil=95|\n").values()
    assert found.joules["gpu"].joules == 3 * 200.0 * 10
    assert found.joules["memory"].joules == pytest.approx(0.3725 * 8 * 2**30 / 1e9 * 10)


def test_named_hardware_counts():
    found = jobs(RECORDED, cpu_core("Xeon E5-2683 v4"), gpu("A100"))
    assert found["4569"].joules["cpu"].joules == 7.5 * 598.5
    assert found["4568_3"].joules["gpu"].joules == 2 * 400.0 * 3600


def test_jobs_add_up():
    found = jobs(RECORDED).values()
    assert sum(found, Reading(0.0)).total == pytest.approx(sum(job.total for job in found))


@pytest.mark.parametrize("text", ["", "JobID|ElapsedRaw|TotalCPU\n", "JobID TotalCPU\n1 00:01\n"])
def test_other_texts_are_said(text):
    with pytest.raises(ValueError, match="JobID, ElapsedRaw and TotalCPU"):
        jobs(text)
