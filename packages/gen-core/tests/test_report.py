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
    run = Run.create(tmp_path / "a & b", {"$": "Config", "net": {"$": "UNet", "width": 64}, "name": EVIL, EVIL: [1, 2]})
    for step in range(1, 301):
        metrics = {"loss": 2.0**-step + 0.125, "grad_norm": 10.0 ** (-step / 60), EVIL: 1.0, r"a\1$_{x}$": float(step)}
        if step % 50 == 0:
            metrics |= {"val/loss": 0.2 + 1 / step, "val/frechet": nan if step == 100 else 3.5, "val/never": inf}
        run.log(step, metrics)
    for step in (1000, 20, 300):
        run.write(f"samples/step-{step:06d}.png", png(step))
    run.write("pictures/latents.png", png(7))
    run.write("texts/what it wrote.txt", f"first line\n{EVIL}")
    interval = {"value": 0.412345, "interval": [0.38, 0.45], "n": 899, "unit": "1"}
    rows = [
        {"name": "samples", "n": 899, "frechet": interval, "kid": None},
        {"name": EVIL, "n": 1797, "frechet": interval | {"interval": None}},
    ]
    run.write("quality.json", {"columns": ["frechet", "kid"], "rows": rows, "notes": [EVIL, "95 % bootstrap"]})
    run.write("energy.json", {"energy_kwh": 0.00123, "nested": {"carbon_kg": [1, 2]}, "x": EVIL})
    run.write("summary.txt", f"layer  parameters\n{EVIL}\n")
    return run


class Strict(HTMLParser):
    """Tags balance, ids are unique, attributes are not repeated; collects what a page could load or run."""

    void = frozenset({"meta", "img", "br", "hr", "link", "input"})

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.open, self.ids, self.tags, self.links, self.texts, self.images = [], [], [], [], [], []
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


def test_the_page_is_valid_and_loads_nothing(run):
    path = build(run.path)
    assert path == run.path / "report.html"
    page = path.read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>\n")
    parsed = Strict(page)
    assert not {"script", "link", "iframe", "object", "embed", "base"} & set(parsed.tags)
    assert all(link.startswith(("data:", "#")) for link in parsed.links), parsed.links
    assert {link[1:] for link in parsed.links if link.startswith("#")} <= set(parsed.ids)
    assert all(url.startswith("#") for url in re.findall(r"url\(['\"]?([^)'\"]*)", page))
    assert not re.search(r"https?:|@import", page)
    assert "<title>a &amp; b</title>" in page
    grids = [f"Grid of samples at step {s}" for s in ("1,000", "20", "300")]
    assert [image["alt"] for image in parsed.images] == [*grids, "latents"]
    assert all(image["src"].startswith("data:image/png;base64,") for image in parsed.images)


def test_the_page_has_every_metric_and_its_last_value(run):
    page = build(run).read_text(encoding="utf-8")
    said, last = "".join(Strict(page).texts), {}
    for entry in run.metrics():
        last |= entry
    for name, value in last.items():
        if name != "step":
            assert name in said
            assert f'<data value="{value!r}">' in page
    assert page.count("<svg ") == 5  # loss, frechet, grad_norm, the hostile one, a\1; never has no finite value
    assert 'aria-label="loss and val/loss over steps"' in page
    assert 'aria-label="grad_norm over steps, log scale"' in page
    assert "not finite at step 100" in said and "not finite at step 50" in said


def test_every_quality_figure_has_its_interval_and_n(run):
    said = "".join(Strict(build(run).read_text(encoding="utf-8")).texts)
    assert re.search(r"samples\s*n = 899", said) and re.search(r"frechet\s*0\.4123\s*0\.38 to 0\.45", said)
    assert re.search(r"kid\s*–", said) and "n = 1,797" in said and "95 % bootstrap" in said
    for text in ("UNet", "width", "energy_kwh", "0.00123", "carbon_kg", "layer  parameters", "platform", "gen-core"):
        assert text in said


def test_what_a_run_holds_is_text_and_never_markup(run):
    page = build(run).read_text(encoding="utf-8")
    assert "<script" not in page and "onerror=alert(1)&gt;" in page and "<img src=x" not in page


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
    assert page.count("<img ") == 24 and "24 of 100 grids" in page
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

    def browse(*more):
        command = [chromium, *flags, f"--user-data-dir={tmp_path / 'profile'}", *more, build(run).as_uri()]
        return subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)

    dom = browse("--dump-dom")
    assert "CONSOLE" not in dom.stderr, dom.stderr
    assert "<title>a &amp; b</title>" in dom.stdout  # the script in a value did not run
    assert dom.stdout.count("<img ") == 4 and "<script" not in dom.stdout
    shot = tmp_path / "page.png"
    browse(f"--screenshot={shot}")
    pixels = np.asarray(Image.open(shot).convert("L"), dtype=float)
    assert pixels.shape == (1600, 1000) and pixels.std() > 10
    assert all(band.std() > 2 for band in np.array_split(pixels, 4)), "a part of the page is blank"
    assert json.loads((run.path / "config.json").read_text())["name"] == EVIL
