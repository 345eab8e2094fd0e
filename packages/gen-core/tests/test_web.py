"""The page of controls: every control has its widget, every image its bytes, and nothing leaves the machine."""

import json
import sys
import urllib.request
from types import SimpleNamespace

import numpy as np
import pytest

from gen_core.web import _component, _pixels, serve


@pytest.mark.parametrize(
    ("control", "widget", "options"),
    [
        ((2, 64, 18), "Slider", {"value": 18, "step": 1}),
        ((0.0, 5.0, 1.0), "Slider", {"value": 1.0, "step": 0.05}),
        (["any", "3"], "Dropdown", {"value": "any"}),
        (("a", "b", "c"), "Dropdown", {"value": "a"}),
        (True, "Checkbox", {"value": True}),
        (3, "Number", {"value": 3, "precision": 0}),
        (0.5, "Number", {"value": 0.5, "precision": None}),
        ("once upon", "Textbox", {"value": "once upon"}),
    ],
)
def test_a_control_has_its_widget(control, widget, options):
    names = ("Slider", "Dropdown", "Checkbox", "Number", "Textbox")
    widgets = {name: lambda *args, _name=name, **options: (_name, options) for name in names}
    assert _component(SimpleNamespace(**widgets), "x", control) == (widget, options | {"label": "x"})


@pytest.mark.parametrize("control", [(5, 1, 3), []])
def test_another_control_is_refused(control):
    with pytest.raises(ValueError, match=r"control 'x' must be \(lowest, highest, default\), .*, got"):
        _component(SimpleNamespace(), "x", control)


def test_an_image_becomes_bytes():
    assert _pixels([[0.0, 0.5, 1.0, 7.0, -1.0]]).tolist() == [[0, 128, 255, 255, 0]]
    assert _pixels(np.full((2, 2, 3), 200)).dtype == np.uint8
    with pytest.raises(ValueError, match=r"\(h, w\) or \(h, w, 3\), got \(3, 2, 2\); move the channels last"):
        _pixels(np.zeros((3, 2, 2)))


def test_without_gradio_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ImportError, match=r"pip install 'gen-core\[web\]'"):
        serve(lambda: None, {})


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_it_serves_on_this_machine():
    pytest.importorskip("gradio", reason="needs gradio: pip install 'gen-core[web]'")
    app = serve(lambda size: np.zeros((size, size)), {"size": (2, 8, 4)}, port=7893, wait=False)
    try:
        with urllib.request.urlopen("http://127.0.0.1:7893/config") as answer:
            config = json.load(answer)
    finally:
        app.close()
    assert config["analytics_enabled"] is False
    assert "slider" in {component["type"] for component in config["components"]}
