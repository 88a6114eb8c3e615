"""A copy of a model shares its hooks, and with them whatever they record; nothing recorded stops it."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers.small import equal, small
from torch import Tensor, nn

import fastvit
from fastvit.models.flops import multiply_adds
from fastvit.utils.copies import duplicate

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
BLOCK = "stages.1.blocks.0.mixer"


class Recorder:
    """Keeps what a module gave, as a method of its own."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def record(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self.seen.append(output)

    def __call__(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self.seen.append(output)

    def __deepcopy__(self, memo: Any) -> None:
        raise AssertionError("copied")


COPIES: dict[str, Callable[[Any], nn.Module]] = {
    "reparameterize": fastvit.reparameterize,
    "overparameterize": lambda model: fastvit.overparameterize(fastvit.reparameterize(model)),
    "overparameterize what is unfused": fastvit.overparameterize,
    "a plain copy": duplicate,
}


@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("hook", ["method", "object"])
def test_a_recorder_is_not_copied_and_goes_on_recording(make: Callable[[Any], nn.Module], hook: str) -> None:
    model, recorder = small("fastvit_sa12", num_classes=3), Recorder()
    handle = model.get_submodule(BLOCK).register_forward_hook(recorder.record if hook == "method" else recorder)
    model(IMAGES)  # what it holds has a gradient function now
    copied = make(model)
    assert len(recorder.seen) == 1
    copied(IMAGES)
    assert len(recorder.seen) == 2
    torch.testing.assert_close(recorder.seen[1], recorder.seen[0], rtol=1e-3, atol=1e-3)
    handle.remove()
    model(IMAGES)
    assert len(recorder.seen) == 2


@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
def test_a_recorder_of_what_is_saved_and_loaded_is_not_copied_either(make: Callable[[Any], nn.Module]) -> None:
    class Keeper(Recorder):
        def __call__(self, *given: Any, **_: Any) -> None:
            self.seen.append(given[0])

        def keep(self, *given: Any) -> None:
            self(*given)

    model, keeper = small("fastvit_sa12", num_classes=3), Keeper()
    registering = [name for name in dir(nn.Module) if "state_dict" in name and name.endswith("hook")]
    assert len(registering) >= 5
    for name in registering:
        getattr(model.stages[1], name)(keeper)
        if name != "register_state_dict_post_hook":  # which torch marks, and so takes no methods
            getattr(model.stages[1], name)(keeper.keep)
    copied = make(model)
    assert not keeper.seen
    copied.load_state_dict(copied.state_dict())
    assert {id(module) for module in keeper.seen if isinstance(module, nn.Module)} == {id(copied.stages[1])}


@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
def test_results_kept_on_a_module_do_not_stop_a_copy(make: Callable[[Any], nn.Module]) -> None:
    model = small("fastvit_sa12", num_classes=3)

    def keep(module: Any, inputs: Any, output: Tensor) -> None:
        module.result, module.all = output, [{"given": inputs, "made": output}]

    model.stages[1].register_forward_hook(keep)
    model(IMAGES.clone().requires_grad_())
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy.deepcopy(model)
    copied = make(model)
    assert not copied.stages[1].result.requires_grad
    assert torch.equal(copied.stages[1].result, model.stages[1].result)
    assert model.stages[1].result.grad_fn is not None


def test_a_hook_that_is_a_method_of_a_module_inside_becomes_the_copys() -> None:
    class Counting(nn.Sequential):
        def __init__(self, *parts: nn.Module) -> None:
            super().__init__(*parts)
            self.calls = 0
            self[0].register_forward_hook(self.count)

        def count(self, *_: Any) -> None:
            self.calls += 1

    model = Counting(small("fastvit_t8")).eval()
    fused = fastvit.reparameterize(model)
    fused(IMAGES)
    assert (model.calls, fused.calls) == (0, 1)


def test_a_copy_is_equal_and_shares_no_weights_and_no_tables_of_hooks() -> None:
    model = small("fastvithd")
    copied, seen = duplicate(model), []
    assert equal(copied, model)
    assert not {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in copied.parameters()}
    copied.stem.register_forward_hook(lambda *_: seen.append(1))
    model(IMAGES)
    assert not seen


def test_what_only_measures_calls_no_hook() -> None:
    model, seen = small("fastvit_t8"), []
    for module in model.modules():
        module.register_forward_hook(lambda *_: seen.append(1))
    multiply_adds(model, (64, 64))
    fused = fastvit.reparameterize(small("fastvit_t8"))
    fused.stages.register_forward_hook(lambda *_: seen.append(1))
    fastvit.overparameterize(fused)
    assert not seen


def test_predict_on_a_model_in_train_mode_lets_its_hooks_see_the_images() -> None:
    model, recorder = fastvit.load("fastvit_t8.cifar10").train(), Recorder()
    model.stem.register_forward_hook(recorder.record)
    fastvit.predict(model, torch.rand(3, 64, 64))
    assert len(recorder.seen) == 1
