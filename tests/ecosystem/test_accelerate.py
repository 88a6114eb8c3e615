"""Models of timm's registry offloaded by accelerate, and their training's state by torch's distributed checkpoints.

Both walk a model's modules, which are ours, by their own names. Oracle: the model before.
"""

import copy
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from helpers.near import assert_near
from helpers.registry import overridden
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from fastvit.testing import randomize

accelerate = pytest.importorskip("accelerate")

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def made() -> Any:
    with overridden():
        model = timm.create_model("fastvit_sa12", embed_dims=(8, 16, 32, 64), layers=(1, 1, 1, 2), num_classes=5)
    return randomize(model).eval()


def named(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers by the names of our modules."""
    return {name: tensor.detach() for name, tensor in (*model.named_parameters(), *model.named_buffers())}


@pytest.mark.filterwarnings("ignore")  # accelerate's own
@pytest.mark.parametrize("where", ["cpu", "disk"])
@torch.no_grad()
def test_weights_are_offloaded_by_the_names_of_the_modules(where: str, tmp_path: Path) -> None:
    model, expected = made(), made()(IMAGES)
    if where == "disk":
        accelerate.utils.offload_state_dict(tmp_path, named(model))
        accelerate.disk_offload(model, tmp_path, execution_device="cpu")
    else:
        accelerate.cpu_offload(model, execution_device="cpu", state_dict=named(model), offload_buffers=True)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert torch.equal(model(IMAGES), expected)


def test_distributed_checkpoints_hold_the_model_and_its_optimizer_and_give_them_back() -> None:
    model = made().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    model(IMAGES).square().mean().backward()
    optimizer.step()
    state, moments = get_model_state_dict(model), get_optimizer_state_dict(model, optimizer)
    assert list(state) == list(model.state_dict()) and len(moments["state"]) == len(list(model.parameters()))
    again = randomize(copy.deepcopy(model), seed=3)
    other = torch.optim.AdamW(again.parameters(), lr=0.5)
    set_model_state_dict(again, state)
    set_optimizer_state_dict(again, other, copy.deepcopy(moments))
    for each, steps in ((model, optimizer), (again, other)):
        steps.zero_grad()
        each.eval()(IMAGES).square().mean().backward()
        steps.step()
    assert_near(again(IMAGES), model(IMAGES), 1e-6)
