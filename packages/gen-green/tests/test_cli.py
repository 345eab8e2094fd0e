"""The command, as a user types it."""

import json
import os
import signal
import subprocess
import sys

import pytest

from gen_green.cli import main
from gen_green.meter import Reading

GREEN = [sys.executable, "-m", "gen_green"]


def green(*words, **options):
    return subprocess.run([*GREEN, *words], capture_output=True, text=True, timeout=60, **options)


def said(capsys, *words):
    with pytest.raises(SystemExit) as exit:
        main(list(words))
    out = capsys.readouterr()
    return exit.value.code, out.out, out.err


def test_the_command_passes_through_untouched():
    code = "import sys; print(sys.stdin.read().upper()); print('theirs', file=sys.stderr); sys.exit(3)"
    done = green("run", "--grid", "FR", "--", sys.executable, "-c", code, input="hello -- there")
    assert (done.returncode, done.stdout) == (3, "HELLO -- THERE\n")
    first, *rest = done.stderr.splitlines()
    assert first == "theirs" and rest[0].startswith("energy")


def test_options_of_the_command_are_the_commands():
    done = green("run", "--grid", "FR", "--", "echo", "--grid", "--", "--help")
    assert done.stdout == "--grid -- --help\n"


def test_without_a_sensor_a_figure_its_spread_and_its_source(tmp_path):
    file = tmp_path / "out.json"
    done = green(
        "run", "--grid", "FR", "--pue", "1.2", "--psf", "5", "--json", str(file), "--", sys.executable, "-c", "1"
    )
    assert done.returncode == 0 and done.stdout == ""
    for words in ("energy", "J (", " to ", "cpu ", "memory", "carbon", "PUE 1.2, PSF 5", "56 g/kWh", "lifecycle"):
        assert words in done.stderr
    found = json.loads(file.read_text())
    assert found["carbon_g"] == pytest.approx(found["reading"] and Reading.load(file).total / 3.6e6 * 1.2 * 5 * 56.039)


def test_without_a_place_the_world_is_assumed_and_said_once():
    done = green("run", "--", "true")
    assert done.stderr.count("world") == 1 and "475 g/kWh  assumed" in done.stderr and "Warning" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_reach_the_command_and_its_end_is_ours(number):
    script = f"trap 'echo caught; exit 7' {int(number)}; echo ready; while :; do sleep 0.05; done"
    process = subprocess.Popen(
        [*GREEN, "run", "--grid", "FR", "--", "sh", "-c", script],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    os.kill(process.pid, number)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (7, "caught\n") and err.startswith("energy")


def test_a_command_that_a_signal_ended_has_the_shells_code():
    done = green("run", "--grid", "FR", "--", "sh", "-c", "kill -KILL $$")
    assert done.returncode == 128 + signal.SIGKILL and done.stderr.startswith("energy")


def test_the_child_starts_with_the_handlers_that_it_would_have_had():
    code = "import signal; print(*(signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)))"
    alone = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert green("run", "--grid", "FR", "--", sys.executable, "-c", code).stdout == alone.stdout


def test_ended_children_of_the_command_are_counted():
    burn = "import time\nwhile time.process_time() < .4: pass"
    done = green(
        "run",
        "--grid",
        "FR",
        "--tdp",
        "100",
        "--json",
        "/dev/stdout",
        "--",
        "sh",
        "-c",
        f"{sys.executable} -S -c '{burn}'",
    )
    part = json.loads(done.stdout)["reading"]["joules"]["cpu"]
    assert part["joules"] >= 0.55 * 100 * 0.4 / os.cpu_count() and part["kind"] == "modelled"


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (["run", "--grid", "Frence", "--", "true"], "the nearest name is 'France'"),
        (["run", "--pue", "-1", "--", "true"], "PUE"),
        (["run", "--pue", "0.99", "--", "true"], "PUE"),
        (["run", "--psf", "0", "--", "true"], "PSF"),
        (["run", "--grid", "FR"], "give the command to measure after --"),
        (["run", "--grid", "FR", "--", "no-such-command"], "no-such-command is no command that can be found"),
        (["run", "--tdp", "-3", "--", "true"], "a TDP is positive"),
        (["run", "--json", "/nowhere/a.json", "--", "true"], "/nowhere is no directory"),
        (["run", "--grid", "-5", "--", "true"], "-5"),
        (["compare", "/nowhere/a.json", "/nowhere/b.json"], "does not exist"),
        (["predict", "--params", "7e9"], "give --flops, or --params and --tokens"),
        (["predict", "--flops", "1e20", "--device", "H10"], "nearest name"),
        (["predict", "--flops", "1e20", "--mfu", "0"], "mfu"),
    ],
)
def test_errors_are_one_sentence_and_exit_2(capsys, words, rule):
    code, out, err = said(capsys, *words)
    assert code == 2 and out == "" and rule in err and err.count("\n") == 1 and err.startswith("gen green: ")


def test_a_wrong_place_is_said_before_the_command_runs(tmp_path, capsys):
    said(capsys, "run", "--grid", "Frence", "--", "touch", str(tmp_path / "ran"))
    assert not (tmp_path / "ran").exists()


def test_predict_compare_and_audit(tmp_path, capsys):
    file = tmp_path / "a.json"
    words = [
        "--params",
        "7e9",
        "--tokens",
        "2e12",
        "--device",
        "A100",
        "--count",
        "2048",
        "--grid",
        "385",
        "--pue",
        "1.1",
    ]
    code, out, _ = said(capsys, "predict", *words, "--json", str(file))
    assert code == 0 and "8.4e+22 FLOPs" in out and "31." in out  # tonnes; the card has 31.22 over 2.3 % fewer hours
    assert Reading.load(file).total == pytest.approx(8.4e22 / (312e12 * 0.4) * 400, rel=1e-3)
    code, out, _ = said(capsys, "compare", str(file), str(file))
    assert code == 0 and "difference 0 J" in out
    code, out, _ = said(capsys, "audit", "--gpu-hours", "1720320", "--watts", "400", "--tonnes", "291.42")
    assert code == 0 and "consistent" in out and "INCONSISTENT" not in out
    code, out, _ = said(capsys, "audit", "--gpu-hours", "7e6", "--watts", "700", "--tonnes", "12.9")  # Llama 3.3
    assert code == 1 and "INCONSISTENT" in out


def test_the_doctor_names_every_source_and_one_remedy(capsys, tmp_path):
    code, out, _ = said(capsys, "doctor", "--powercap", str(tmp_path))
    assert code == 0 and out.splitlines()[-1].startswith("to improve: ")
    assert {line.split()[0] for line in out.splitlines()[1:-1]} >= {"cpu", "memory"} and "within a factor" in out


def test_the_doctor_prescribes_the_chmod(capsys, tmp_path, monkeypatch):
    from gen_green import powercap

    zone = tmp_path / "intel-rapl:0"
    zone.mkdir()
    (zone / "name").write_text("package-0\n")
    (zone / "energy_uj").write_text("1\n")

    def denied(path):
        raise PermissionError

    monkeypatch.setattr(powercap._Zone, "look", denied)
    _, out, _ = said(capsys, "doctor", "--powercap", str(tmp_path))
    assert out.splitlines()[-1] == f"to improve: sudo chmod a+r {zone}/energy_uj"


def test_the_doctor_is_content_where_the_cpu_is_measured(capsys, tmp_path):
    zone = tmp_path / "intel-rapl:0"
    zone.mkdir()
    (zone / "name").write_text("package-0\n")
    (zone / "energy_uj").write_text("1\n")
    _, out, _ = said(capsys, "doctor", "--powercap", str(tmp_path))
    assert "package-0  measured" in out and out.splitlines()[-1].startswith("to improve: nothing")
