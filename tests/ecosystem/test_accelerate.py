"""Models of timm's registry offloaded by accelerate, and their training's state by torch's distributed checkpoints.

Both walk a model's modules, which are ours, by their own names. And what accelerate puts over a model's own methods is
refused with what takes it off. Oracle: the model before.
"""

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from helpers.near import assert_near
from helpers.registry import overridden
from helpers.small import small
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

import fastvit
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


# Forwards that accelerate puts over the model's own


def prepared(model: nn.Module) -> nn.Module:
    wrapped: nn.Module = accelerate.Accelerator(mixed_precision="bf16", cpu=True).prepare(model).eval()
    return wrapped


def dispatched(model: nn.Module) -> nn.Module:
    wrapped: nn.Module = accelerate.dispatch_model(model, {"": "cpu"}, force_hooks=True)
    return wrapped


USES: dict[str, Callable[[Any, Path], Any]] = {
    "save": lambda model, folder: fastvit.save(model, folder / "model.safetensors"),
    "export": lambda model, folder: fastvit.export(model, folder / "model.pt2", input_size=(32, 32)),
    "openvino": lambda model, _: fastvit.engine(model, "openvino"),
    "reparameterize": lambda model, _: fastvit.reparameterize(model),
}
LEFT = [(prepared, use) for use in ("save", "export", "openvino")] + [(dispatched, use) for use in USES]


@pytest.fixture
def no_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    """None was made in this process before, whose precision all others would have to have."""
    for state in (accelerate.state.AcceleratorState, accelerate.state.PartialState):
        monkeypatch.setattr(state, "_shared_state", {})


@pytest.mark.usefixtures("no_accelerator")
@pytest.mark.filterwarnings("ignore:::accelerate", "ignore:::torch")
@pytest.mark.parametrize(("wrap", "use"), LEFT, ids=lambda it: it if isinstance(it, str) else it.__name__)
@torch.no_grad()
def test_what_accelerate_left_on_a_model_is_refused_with_what_takes_it_off(wrap: Any, use: str, tmp_path: Path) -> None:
    if use == "openvino":
        pytest.importorskip("openvino")
    expected = small("fastvit_t8")(IMAGES)
    wrapped = wrap(small("fastvit_t8"))
    remedy = {
        prepared: "model = accelerator.unwrap_model(model, keep_fp32_wrapper=False)",
        dispatched: "accelerate.hooks.remove_hook_from_module(model, recurse=True)",
    }[wrap]
    with pytest.raises(ValueError, match=re.escape(remedy)) as error:
        USES[use](wrapped, tmp_path)
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())
    names = {"accelerate": accelerate, "accelerator": accelerate.Accelerator(cpu=True), "model": wrapped}
    exec(remedy, names)
    model: Any = names["model"]
    assert torch.equal(model(IMAGES), expected)
    if use != "openvino":  # which takes as long again
        USES[use](model, tmp_path)
    assert fastvit.reparameterize(model)(IMAGES).shape == expected.shape
