"""The page of a run is whole, self-contained, valid, safe, and the same bytes each time."""

import io
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from math import inf, nan

import numpy as np
import pytest
from PIL import Image

from gen_core.report import build
from gen_core.run import Run

EVIL = "<script>document.title='run'</script><img src=x onerror=alert(1)>\"'&"


def png(seed, size=20):
    buffer = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, (size, size), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def run(tmp_path):
    """A run with everything in it, and with hostile names and values."""
    config = {"$": "Config", "net": {"$": "UNet", "width": 64, "depth": None}, "name": EVIL, EVIL: [1, 2], "out": None}
    config |= {"data": "digits", "optim": {"steps": 2000, "batch_size": 4}, "empty": {"a": None}}
    run = Run.create(tmp_path / "a & b", config)
    for step in range(1, 301):
        metrics = {"loss": 2.0**-step + 0.125, "grad_norm": 10.0 ** (-step / 60), EVIL: 1.0, r"a\1$_{x}$": float(step)}
        if step == 200:
            metrics["once"] = 0.75
        if step % 50 == 0:
            metrics |= {
                "energy/joules": float(step),
                "energy/carbon_g": 0.5 * step,
                "val/loss": 0.2 + 1 / step,
                "val/frechet": nan if step == 100 else 3.5,
                "val/never": inf,
            }
        run.log(step, metrics)
    for step in (1000, 20, 300):
        run.write(f"samples/step-{step:06d}.png", png(step))
    run.write("pictures/latents.png", png(7))
    run.write("sample-seed-0.png", png(8))  # by `gen ... sample`, after the training
    run.write("texts/what it wrote.txt", f"first line\n{EVIL}")
    interval = {"value": 0.412345, "interval": [-0.38, 0.45], "n": 899, "unit": "1"}
    share, free = {"value": 0.99, "interval": [-0.1, 1.1]}, {"value": 0.01, "interval": [-0.02, 0.04]}
    rows = [
        {"name": "samples", "n": 899, "frechet": interval, "kid": None, "recall": share},
        {"name": EVIL, "n": 1797, "frechet": interval | {"interval": None}, "kid": free},
    ]
    run.write(
        "quality.json", {"columns": ["frechet", "kid", "recall"], "rows": rows, "notes": [EVIL, "95 % bootstrap"]}
    )
    run.write("energy.json", {"energy_kwh": 0.00123, "nested": {"carbon_kg": [1, 2]}, "x": EVIL})
    run.write("model.json", {"network": {"$": "Preconditioned", "net": {"$": "UNet", "width": 64}}})
    run.write("reading.json", {"seconds": 90.0})
    run.write("summary.txt", f"layer  parameters\n{EVIL}\n1,000 parameters (1,000 trainable)\n234 parameters (0)\n")
    return run


class Strict(HTMLParser):
    """Tags balance, ids are unique, attributes are not repeated; collects what a page could load or run."""

    void = frozenset({"meta", "img", "br", "hr", "link", "input"})

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.open, self.ids, self.tags, self.links, self.texts, self.images = [], [], [], [], [], []
        self.parents, self.sliders, self.around = [], [], None
        self.feed(page)
        self.close()
        assert self.open == []
        assert len(self.ids) == len(set(self.ids)), "ids are not unique"

    def handle_startendtag(self, tag, attrs):
        assert "svg" in self.open or tag in self.void, f"<{tag}/> is not HTML"
        self.note(tag, attrs)

    def handle_starttag(self, tag, attrs):
        self.note(tag, attrs)
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        self.texts.append(data)

    def note(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), attrs
        assert not [name for name in names if name.startswith("on")], "an event handler"
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href", "srcset", "poster")]
        if tag == "img":
            self.images.append(dict(attrs))
        if tag == "input":
            self.sliders.append(dict(attrs))
        if tag == "table":
            self.parents.append(self.around)
        self.around = dict(attrs).get("class")


def parsed(run):
    return Strict(build(run).read_text(encoding="utf-8"))


def words(run):
    return " ".join("".join(parsed(run).texts).split())


def test_the_page_is_valid_and_loads_nothing(run):
    path = build(run.path)
    assert path == run.path / "report.html"
    page = path.read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>\n")
    parsed = Strict(page)
    assert not {"link", "iframe", "object", "embed", "base"} & set(parsed.tags)
    assert parsed.tags.count("script") == 1 and "<script>" in page  # the slider's, inline
    assert all(link.startswith(("data:", "#")) for link in parsed.links), parsed.links
    assert {link[1:] for link in parsed.links if link.startswith("#")} <= set(parsed.ids)
    assert all(url.startswith("#") for url in re.findall(r"url\(['\"]?([^)'\"]*)", page))
    assert not re.search(r"https?:|@import|fetch\(|XMLHttp|import\(", page)
    assert "<title>a &amp; b</title>" in page
    grids = [f"Grid of samples at step {s}" for s in ("20", "300", "1,000")]
    assert [image["alt"] for image in parsed.images] == [*grids, "latents", "sample-seed-0"]
    assert all(image["src"].startswith("data:image/png;base64,") for image in parsed.images)
    assert set(parsed.parents) == {"wide"}, "a table that does not scroll on a phone"


def test_one_slider_goes_through_the_steps_and_the_last_shows_without_script(run):
    page = build(run).read_text(encoding="utf-8")
    (slider,) = Strict(page).sliders
    assert (slider["type"], slider["min"], slider["max"], slider["value"]) == ("range", "0", "2", "2")
    assert "hidden" in slider  # the script shows it
    shown = re.findall(r"<figure( hidden)?><figcaption>step ([\d,]+)</figcaption>", page)
    assert shown == [(" hidden", "20"), (" hidden", "300"), ("", "1,000")]


def test_a_sentence_says_what_was_trained_on_what_for_how_long_with_which_result(run):
    run.write("quality.json", {"columns": ["recall"], "rows": [{"name": "a", "recall": {"value": 0.5}}]})
    sentence = (
        "Preconditioned UNet with 1,234 parameters in all, trained on digits for 300 of 2,000 steps "
        "(1,200 samples, 1.5 min): recall 0.5; higher is better."
    )
    assert sentence in words(run)
    (run.path / "quality.json").unlink()
    assert "val/loss 0.2033; lower is better." in words(run)


def test_an_interval_of_a_share_or_a_distance_holds_possible_values_alone(run):
    found = words(run)
    assert "0 to 0.45" in found and "0 to 1" in found and "−0.38" not in found and "−0.1" not in found
    assert "−0.02 to 0.04" in found  # an unbiased estimate may be negative


def test_settings_that_are_null_are_absent(run):
    page = build(run).read_text(encoding="utf-8")
    config = page[page.index('<section id="configuration">') : page.index('<section id="environment">')]
    assert ">width<" in config and not re.search(">(None|null|depth|out|empty)<", config)


def test_a_metric_with_one_value_is_a_figure_and_energy_is_one_panel(run):
    page = build(run).read_text(encoding="utf-8")
    curves, energy = (
        page[page.index(f'<section id="{name}">') :].split("</section>")[0] for name in ("curves", "energy")
    )
    assert "over steps" in curves and "once over steps" not in curves and "energy/" not in curves
    assert re.search(r"<dt>once</dt><dd><data value=\"0.75\">", curves)
    assert energy.count("<svg ") == 1 and "energy/carbon_g" in energy and "energy/carbon_g" not in curves


def test_the_page_has_every_metric_and_its_last_value(run):
    page = build(run).read_text(encoding="utf-8")
    said, last = "".join(Strict(page).texts), {}
    for entry in run.metrics():
        last |= entry
    for name, value in last.items():
        if name != "step":
            assert name in said
            assert f'<data value="{value!r}">' in page
    assert page.count("<svg ") == 6  # loss, frechet, grad_norm, the hostile one, a\1, joules; never is never finite
    assert 'aria-label="loss and val/loss over steps"' in page
    assert 'aria-label="grad_norm over steps, log scale"' in page
    assert "not finite at step 100" in said and "not finite at step 50" in said


def test_every_quality_figure_has_its_interval_and_n(run):
    said = "".join(Strict(build(run).read_text(encoding="utf-8")).texts)
    assert re.search(r"samples\s*n = 899", said) and re.search(
        r"frechet\s*lower is better\s*0\.4123\s*0 to 0\.45", said
    )
    assert re.search(r"kid\s*lower is better\s*–", said) and "n = 1,797" in said and "95 % bootstrap" in said
    for text in ("UNet", "width", "energy_kwh", "0.00123", "carbon_kg", "layer  parameters", "platform", "gen-core"):
        assert text in said


def test_what_a_run_holds_is_text_and_never_markup(run):
    page = build(run).read_text(encoding="utf-8")
    assert page.count("<script") == 1 and "onerror=alert(1)&gt;" in page and "<img src=x" not in page


def test_a_hostile_name_of_a_run_or_a_picture_is_text(tmp_path):
    run = Run.create(tmp_path / "<script>alert(1)<")
    run.write('pictures/"><script>alert(2)<.png', png(0))
    page = build(run).read_text(encoding="utf-8")
    Strict(page)
    assert "<script" not in page and "<h1>&lt;script&gt;alert(1)&lt;</h1>" in page
    assert 'alt="&#34;&gt;&lt;script&gt;alert(2)&lt;"' in page


def test_built_twice_it_has_the_same_bytes(run):
    first = build(run).read_bytes()
    code = "import sys; from gen_core.report import build; build(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(run.path)], check=True)
    assert (run.path / "report.html").read_bytes() == first


def test_what_is_missing_is_absent(tmp_path):
    page = build(Run.create(tmp_path / "empty")).read_text(encoding="utf-8")
    assert set(re.findall(r"<h2>(.*?)</h2>", page)) == {"Environment"}
    Strict(page)
    Run(tmp_path / "empty").log(1, {"loss": 0.0})
    assert "<h2>Curves</h2>" in build(tmp_path / "empty").read_text(encoding="utf-8")


def test_many_sample_grids_are_thinned_and_the_ends_stay(tmp_path):
    run = Run.create(tmp_path / "run")
    for step in range(1, 101):
        run.write(f"samples/step-{step:06d}.png", png(step, size=2))
    page = build(run).read_text(encoding="utf-8")
    assert page.count("<img ") == 24 and "24 of 100 grids" in page and 'max="23"' in page
    assert "<figcaption>step 1</figcaption>" in page and "<figcaption>step 100</figcaption>" in page


def test_errors_name_the_file_and_the_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is no run \(no config.json\)"):
        build(tmp_path)
    run = Run.create(tmp_path / "run")
    run.write("quality.json", "{")
    with pytest.raises(ValueError, match=r"quality.json is not JSON \(.*\); write it again or delete it"):
        build(run)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_chromium_shows_it_with_the_network_off(run, tmp_path):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium on this machine; apt-get install chromium")
    flags = [
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
        *("--disable-background-networking", "--disable-component-update", "--host-resolver-rules=MAP * ~NOTFOUND"),
        *("--hide-scrollbars", "--enable-logging=stderr", "--v=0", "--window-size=1000,1600"),
    ]

    page = build(run)

    def browse(*more, page=page):
        command = [chromium, *flags, f"--user-data-dir={tmp_path / 'profile'}", *more, page.as_uri()]
        return subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)

    dom = browse("--dump-dom")
    assert "CONSOLE" not in dom.stderr, dom.stderr
    assert "<title>a &amp; b</title>" in dom.stdout  # the script in a value did not run
    assert dom.stdout.count("<img ") == 5 and dom.stdout.count("<script") == 1
    slider = re.search(r"<input[^>]*>", dom.stdout)
    assert slider and "hidden" not in slider[0] and 'aria-valuetext="step 1,000"' in slider[0]  # the slider's did
    moved = tmp_path / "moved.html"
    move = "const s = document.querySelector('input'); s.value = 1; s.dispatchEvent(new Event('input'));"
    moved.write_text(page.read_text(encoding="utf-8").replace("</body>", f"<script>{move}</script></body>"))
    shown = re.findall(r'<figure( hidden="")?><figcaption>step', browse("--dump-dom", page=moved).stdout)
    assert shown == [' hidden=""', "", ' hidden=""']
    shot = tmp_path / "page.png"
    browse(f"--screenshot={shot}")
    pixels = np.asarray(Image.open(shot).convert("L"), dtype=float)
    assert pixels.shape == (1600, 1000) and pixels.std() > 10
    assert all(band.std() > 2 for band in np.array_split(pixels, 4)), "a part of the page is blank"
    assert json.loads((run.path / "config.json").read_text())["name"] == EVIL
