"""On a CUDA device: sharded training through Accelerate, compiled networks, bf16; run with -m gpu."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gen_core import Arrays, Loader, Trainer, seed_all
from gen_core.runtime import generator
from gen_core.testing import difference
from gen_diffusion import DiffusionTask, Preconditioned, UNet

pytestmark = pytest.mark.gpu


def unet_task(num_classes: int = 10) -> DiffusionTask:
    seed_all(0)
    return DiffusionTask(Preconditioned(UNet(1, 32, (1, 2), attention=(1,), num_classes=num_classes)), num_classes=10)


def pictures() -> Loader:
    g = generator("pictures")
    return Loader(Arrays(torch.randn(256, 1, 16, 16, generator=g), torch.randint(10, (256,), generator=g)), 64)


def weights(precision: str, steps: int, **options) -> dict:
    task = unet_task()
    Trainer(task, device="cuda", precision=precision, **options).fit(pictures(), steps)
    return {"state": {k: v.full_tensor() if hasattr(v, "full_tensor") else v for k, v in task.state_dict().items()}}


@pytest.mark.filterwarnings("ignore")
def test_a_compiled_unet_keeps_its_keys_and_has_no_graph_breaks():
    """And trains to the same weights as the eager one, to float32 rounding."""
    task = unet_task()
    keys = list(task.state_dict())
    task.denoiser.net.compile(fullgraph=True)
    assert list(task.state_dict()) == keys
    Trainer(task, device="cuda", precision="fp32").fit(pictures(), 3)
    eager = weights("fp32", 3)["state"]
    for name, value in task.state_dict().items():
        torch.testing.assert_close(value, eager[name], rtol=1e-2, atol=2e-3)


def test_bf16_follows_float32():
    """10 updates; weights stay float32 and near."""
    bf16, fp32 = weights("bf16", 10), weights("fp32", 10)
    assert all(v.dtype == torch.float32 for v in bf16["state"].values())
    assert difference(bf16 | {"curve": {}}, fp32 | {"curve": {}})[0] < 3e-2


FSDP = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from test_gpu import pictures, unet_task
from gen_core import Trainer
from torch.distributed.tensor import DTensor
for steps in (3, 6):
    task = unet_task()
    trainer = Trainer(task, Path(sys.argv[2]) / "run", device="cuda", precision="fp32", clip=1.0)
    assert any(isinstance(p, DTensor) for p in task.parameters()), "nothing is sharded"
    trainer.fit(pictures(), steps)
    print(trainer.evaluate(pictures()))
torch.save({k: v.full_tensor().cpu() for k, v in task.state_dict().items()}, sys.argv[2] + "/fsdp.pt")
torch.distributed.destroy_process_group()
"""


def test_fsdp2_through_accelerate_equals_one_process_and_resumes(tmp_path):
    env = os.environ | {
        "ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511", "FSDP_RESHARD_AFTER_FORWARD": "true",
    }  # fmt: skip
    command = [sys.executable, "-c", FSDP, str(Path(__file__).parent), str(tmp_path)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    whole = weights("fp32", 6, clip=1.0)["state"]
    for name, value in torch.load(tmp_path / "fsdp.pt", weights_only=True).items():
        torch.testing.assert_close(value, whole[name].cpu(), rtol=1e-4, atol=5e-5)  # AdamW enlarges rounding
