"""Transfer on text: a frozen trunk under a new head, and its blocks set free one after another from the top."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gen_core import Loader, Trainer
from gen_core.task import Task
from gen_transformer.config import Config
from gen_transformer.model import Transformer


class Sentiment(Task):
    """Two classes from the mean hidden state; `free` says how many blocks learn from which step on."""

    def __init__(self, free: dict[int, int]):
        super().__init__()
        torch.manual_seed(0)
        self.trunk = Transformer(Config(12, 16, 3, 2, causal=False, dropout=0.2)).requires_grad_(False)
        self.head = nn.Linear(16, 2)
        self.free = free

    def optimizers(self):
        """All weights: those without a gradient are left alone, decay included."""
        return {"net": torch.optim.AdamW(self.parameters(), lr=1e-2, weight_decay=0.1)}

    def loss(self, ids: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(self.head(self.trunk(ids).mean(1)), label)

    def step(self, batch, t):
        if t.step in self.free:
            for block in self.trunk.blocks[-self.free[t.step] :]:
                block.requires_grad_(True)
            self.train()
        return {"loss": t.minimize("net", self.loss, *batch)}


def trained(free: dict[int, int], steps: int = 8) -> tuple[Sentiment, dict[str, Tensor]]:
    """The task after training, and its weights before."""
    ids = torch.randint(12, (32, 6), generator=torch.Generator().manual_seed(1))
    task = Sentiment(free)
    before = {name: p.clone() for name, p in task.state_dict().items()}
    data = Loader(torch.utils.data.TensorDataset(ids, (ids == 3).any(1).long()), 8)
    Trainer(task, device="cpu", precision="fp32").fit(data, steps)
    return task, before


def changed(task: Sentiment, before: dict[str, Tensor]) -> set[str]:
    """The parts of which some bit differs."""
    names = {name for name, p in task.state_dict().items() if not torch.equal(p, before[name])}
    return {".".join(name.split(".")[: 3 if "blocks" in name else 1]) for name in names}


def test_a_new_head_learns_and_the_frozen_trunk_keeps_every_bit():
    """Neither weight decay nor a moment of the optimiser moves it, and its dropout is off."""
    task, before = trained({})
    assert changed(task, before) == {"head"}
    assert not task.trunk.training and task.head.training


def test_blocks_are_set_free_from_the_top():
    """One block from step 2 on and two from step 5: the lowest block and the table keep every bit."""
    task, before = trained({2: 1, 5: 2})
    assert changed(task, before) == {"head", "trunk.blocks.1", "trunk.blocks.2"}
    assert task.trunk.blocks[1].training and not task.trunk.blocks[0].training
    assert changed(*trained({2: 1, 5: 2}, steps=5)) == {"head", "trunk.blocks.2"}
