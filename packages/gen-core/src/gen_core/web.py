"""A page with controls for anything that makes an image; needs `pip install 'gen-core[web]'`.

    def generate(steps: int, guidance: float, digit: str) -> np.ndarray: ...  # (h, w) or (h, w, 3), floats in [0, 1]

    serve(generate, {"steps": (2, 64, 18), "guidance": (0.0, 5.0, 1.0), "digit": ["any", "3", "7"]})

It is served on this machine only, reports to nobody and uses the system's fonts.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["serve"]

Control = tuple[int | float, int | float, int | float] | Sequence[str] | bool | int | float | str


def serve(
    generate: Callable[..., Any],
    controls: Mapping[str, Control],
    *,
    title: str = "Samples",
    port: int = 7860,
    wait: bool = True,
) -> Any:
    """Show a page that calls `generate` with the values of its controls, by name, and shows the image it returns.

    Args:
        generate: returns an array-like of shape (h, w) or (h, w, 3): floats in [0, 1], or integers in [0, 255].
        controls: by name, (lowest, highest, default) for a slider, whole numbers if all three are int; a list for a
            choice, the first by default; True or False for a check box; a number or a string for a field.
        wait: serve until interrupted; otherwise return at once the gradio app, which has `close()`.

    Raises:
        ImportError: without gradio.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported, and by its version check
    try:
        import gradio  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ImportError("a page with controls needs gradio: pip install 'gen-core[web]'") from None

    def call(*values: Any) -> np.ndarray:
        return _pixels(generate(**dict(zip(controls, values, strict=True))))

    theme = gradio.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    inputs = [_component(gradio, name, control) for name, control in controls.items()]
    image = gradio.Image(label="Sample", format="png", interactive=False)
    app = gradio.Interface(call, inputs, image, title=title, flagging_mode="never", analytics_enabled=False)
    app.launch(theme=theme, server_name="127.0.0.1", server_port=port, share=False, prevent_thread_lock=not wait)
    return app


def _component(gradio: Any, name: str, control: Control) -> Any:
    match control:
        case bool():
            return gradio.Checkbox(value=control, label=name)
        case int() | float():
            return gradio.Number(value=control, label=name, precision=0 if isinstance(control, int) else None)
        case str():
            return gradio.Textbox(value=control, label=name)
        case (int() | float() as low, int() | float() as high, int() | float() as default) if low <= default <= high:
            whole = all(isinstance(number, int) for number in control)
            return gradio.Slider(low, high, value=default, step=1 if whole else (high - low) / 100, label=name)
        case [*choices] if choices and all(isinstance(choice, str) for choice in choices):
            return gradio.Dropdown(choices, value=choices[0], label=name)
    raise ValueError(
        f"control {name!r} must be (lowest, highest, default), a list of str or a default, got {control!r}"
    )


def _pixels(image: Any) -> np.ndarray:
    """Pictures as bytes; floats outside of [0, 1] are clipped."""
    array = np.asarray(image)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] not in (3, 4)):
        raise ValueError(f"an image has shape (h, w) or (h, w, 3), got {array.shape}; move the channels last")
    if np.issubdtype(array.dtype, np.floating):
        array = np.rint(255 * array.clip(0, 1))
    return array.astype(np.uint8)
