"""Weights & Biases, offline."""

import json
from pathlib import Path

import pytest
import torch

from gen_core import Arrays, Jsonl, Loader, Trainer, Wandb
from gen_core.testing import load

kinds = load(Path(__file__).with_name("kinds.py"))
wandb = pytest.importorskip("wandb")


def test_an_offline_record_holds_the_values_of_metrics_jsonl_and_goes_on_after_a_resume(tmp_path, monkeypatch):
    """The values stand in its file as JSON; both parts of the run have one id."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    data = Loader(Arrays(torch.randn(48, 8)), 12)
    try:
        for steps in (4, 8):
            callbacks = [Jsonl(2), Wandb("toy", 2)]
            Trainer(kinds.Noise(), tmp_path, device="cpu", callbacks=callbacks).fit(data, steps)
    finally:
        wandb.teardown()
    records = sorted((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert len(records) == 2 and len({record.name for record in records}) == 1
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for part, record in zip((lines[:2], lines[2:]), records, strict=True):
        assert all(json.dumps(line["loss"]).encode() in record.read_bytes() for line in part)


def test_wandb_without_a_run_directory_is_refused():
    with pytest.raises(ValueError, match="give the Trainer one"):
        Trainer(kinds.Noise(), device="cpu", callbacks=[Wandb("toy")]).fit(Loader(Arrays(torch.randn(48, 8)), 12), 1)
