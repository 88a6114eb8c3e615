"""A copy of a model shares its hooks, and with them whatever they record; nothing recorded stops it."""

import copy
import functools
import weakref
from collections.abc import Callable
from functools import partial
from types import MethodType
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
@pytest.mark.parametrize("hook", ["method", "object", "object with its handle"])
def test_a_recorder_is_not_copied_and_goes_on_recording(make: Callable[[Any], nn.Module], hook: str) -> None:
    model, recorder = small("fastvit_sa12", num_classes=3), Recorder()
    handle = model.get_submodule(BLOCK).register_forward_hook(recorder.record if hook == "method" else recorder)
    if hook == "object with its handle":
        recorder.hook = handle  # type: ignore[attr-defined]  # by the name that torch has for what it wraps
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


class Kept(nn.Module):
    """Gives a feature that a hook has put into what the module, or a thing that it holds, keeps."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.model, self.kept, self.store = small("fastvit_sa12"), dict[str, Tensor](), Store()
        hooks: dict[str, Callable[..., None]] = {
            "partial": partial(self.keep, "a"),
            "partial of a partial": partial(partial(self.keep), "a"),
            "given by a partial": partial(Kept.keep, self, "a"),
            "method of what it holds": self.store.record,
            "partial of that": partial(self.store.keep, "a"),
            "what it holds": self.store,
            "closure": lambda module, inputs, output: self.keep("a", module, inputs, output),
        }
        self.model.stages[1].register_forward_hook(hooks[how])

    def keep(self, name: str, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self.kept[name] = output

    def forward(self, images: Tensor) -> Tensor:
        self.model(images)
        return self.kept["a"] if "a" in self.kept else self.store.kept["a"]


class Store:
    def __init__(self) -> None:
        self.kept: dict[str, Tensor] = {}

    def keep(self, name: str, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self.kept[name] = output

    def record(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self.keep("a", module, inputs, output)

    __call__ = record


WAYS = ["partial", "partial of a partial", "given by a partial", "method of what it holds", "partial of that"]


@torch.no_grad()
@pytest.mark.parametrize("before", [True, False], ids=["run before", "never run"])
@pytest.mark.parametrize("how", [*WAYS, "what it holds"])
def test_hooks_that_write_into_what_the_model_holds_write_into_that_of_the_copy(how: str, before: bool) -> None:
    module = Kept(how).eval()
    if before:
        module(IMAGES)
    fused, others = fastvit.reparameterize(module), IMAGES.flip(0)
    given = fused(others)
    assert not torch.equal(given, fused(IMAGES))
    torch.testing.assert_close(given, module(others), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("beside", [True, "avg", "its own module"])
def test_what_a_hook_records_into_is_shared_whatever_it_is_given_beside_it(beside: object) -> None:
    """True is what a module holds as well; and a hook may be given both a module of the model and a list of its own."""
    model, seen = small("fastvit_t8"), list[object]()
    given = model.stem if beside == "its own module" else beside
    model.head.register_forward_hook(partial(lambda store, what, *_: store.append(what), seen, given))
    copied = duplicate(model)
    copied(IMAGES)
    assert len(seen) == 1 and seen[0] is (copied.stem if given is model.stem else given)


@pytest.mark.parametrize("what", ["a module", "a dictionary of modules", "a tuple", "a method", "a nested list"])
def test_what_a_hook_is_given_of_the_model_is_that_of_the_copy(what: str) -> None:
    model = small("fastvit_t8")
    model.lists = {"all": {"seen": []}}  # type: ignore[assignment]
    finding: dict[str, Callable[[Any], Any]] = {
        "a module": lambda given: given,
        "a dictionary of modules": lambda given: given["head"],
        "a tuple": lambda given: given[0],
        "a method": lambda given: given.__self__,
        "a nested list": lambda given: given,
    }
    given: dict[str, Any] = {
        "a module": model.head,
        "a dictionary of modules": {"head": model.head},
        "a tuple": (model.head, 1),
        "a method": model.head.extra_repr,
        "a nested list": model.lists["all"]["seen"],  # type: ignore[index]
    }
    seen = list[Any]()
    model.stem.register_forward_hook(partial(lambda store, own, *_: store.append(own), seen, given[what]))
    copied = duplicate(model)
    copied(IMAGES)
    assert finding[what](seen[0]) is (copied.lists["all"]["seen"] if what == "a nested list" else copied.head)  # type: ignore[index]


class Odd:
    """What a hook may hold and nobody should ask anything of."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("not connected")

    def __call__(self, *_: Any) -> None:
        return None

    @functools.lru_cache  # noqa: B019
    def cached(self, *_: Any) -> None:
        return None


def test_hooks_of_any_kind_are_shared_and_nothing_is_asked_of_what_they_hold() -> None:
    model, odd, gone = small("fastvit_t8"), Odd(), Recorder()
    proxy, cached = weakref.proxy(gone), odd.cached
    del gone

    def holding(*_: Any) -> Any:
        return odd, proxy, cached

    hooks = (odd, cached, holding, partial(holding, proxy), MethodType(odd, 1), MethodType(partial(holding), 1), print)
    for hook in hooks:
        model.stages.register_forward_hook(hook)
    assert [*duplicate(model).stages._forward_hooks.values()] == [*hooks]


@torch.no_grad()
@pytest.mark.parametrize("how", ["compiled part", "compiled inside another", "compiled", "partial as a method"])
def test_forwards_that_a_copy_makes_anew_are_no_obstacle(how: str) -> None:
    model = small("fastvit_t8")
    expected = fastvit.reparameterize(model)(IMAGES)
    given: nn.Module = model
    if how == "compiled part":
        model.stages[0] = torch.compile(model.stages[0], backend="eager")  # type: ignore[assignment]
    elif how == "partial as a method":
        model.head.forward = MethodType(partial(type(model.head).forward), model.head)  # type: ignore[method-assign]
    else:
        given = torch.compile(model, backend="eager")  # type: ignore[assignment]
        given = nn.Sequential(given) if "inside" in how else given
    copied = fastvit.reparameterize(given)
    torch.testing.assert_close(copied(IMAGES), expected)
    for parameter in copied.parameters():
        parameter.zero_()
    assert not copied(IMAGES).any()


GLOBAL: Any = None


@pytest.mark.parametrize("how", ["closure", "closure of a closure", "closure of a method", "global"])
def test_a_hook_that_reaches_the_model_by_its_function_is_said_to_reach_the_original(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Kept("closure").eval()
    if how != "closure":
        model.model.stages[1]._forward_hooks.clear()
        monkeypatch.setitem(globals(), "GLOBAL", model)

        def keep(*given: Any) -> None:
            model.keep("a", *given)

        hooks: dict[str, Callable[..., None]] = {
            "closure of a closure": lambda *given: keep(*given),
            "closure of a method": MethodType(lambda self, *given: model.keep("a", *given), "any object"),
            "global": lambda *given: GLOBAL.keep("a", *given),
        }
        model.model.stages[1].register_forward_hook(hooks[how])
    with pytest.warns(fastvit.FastViTWarning, match="reaches into it by the closure or a global of its function"):
        fastvit.reparameterize(model)


@pytest.mark.parametrize("name", ["", "stages.0", "stages.1.blocks.0"])
@pytest.mark.parametrize("how", ["compiled", "a closure", "a global"])
def test_a_forward_that_would_run_the_original_for_a_copy_is_refused(
    how: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small("fastvit_t8")
    part = model.get_submodule(name)
    old = part.forward
    monkeypatch.setitem(globals(), "GLOBAL", old)
    replacing: dict[str, Callable[..., Any]] = {
        "compiled": torch.compile(old, backend="eager"),
        "a closure": lambda x: old(x),
        "a global": lambda x: GLOBAL(x),
    }
    part.forward = replacing[how]
    where = f"model.{name}.forward".replace("..", ".")
    with pytest.raises(ValueError, match=rf"^{where} is a function that was put over it and runs the original"):
        fastvit.reparameterize(model)
    with pytest.raises(ValueError, match=rf"take it off first, with del {where}, or put a method there"):
        fastvit.engine(model, "torch")(IMAGES)
    del part.forward
    assert equal(fastvit.reparameterize(model), fastvit.reparameterize(small("fastvit_t8")))


def test_a_forward_that_was_replaced_by_a_function_of_its_own_is_copied() -> None:
    """It reaches nothing of the model, but what it is given; and the class's own may stand there too."""

    def doubled(self: nn.Module, x: Tensor) -> Tensor:
        return 2 * x

    model = nn.Sequential(nn.Identity(), nn.Identity())
    model[0].forward = doubled.__get__(model[0])  # type: ignore[method-assign]
    model[1].forward = model[1].forward  # type: ignore[method-assign]
    assert torch.equal(duplicate(model)(IMAGES), 2 * IMAGES)


@pytest.mark.parametrize("name", ["fastvit_t8", "fastvit_sa12"])
@torch.no_grad()
def test_what_was_traced_is_copied_in_its_mode_and_unfused_it_is_said_that_nothing_folds(name: str) -> None:
    from torchvision.models.feature_extraction import create_feature_extractor

    model = small(name)
    for traced in (create_feature_extractor(model, ["stages.3"]).eval(), torch.fx.symbolic_trace(model)):
        with pytest.warns(fastvit.FastViTWarning, match="nothing is reparameterized: a traced model"):
            copied = fastvit.reparameterize(traced)
        assert copied.training == traced.training
        given, expected = copied(IMAGES), traced(IMAGES)
        assert torch.equal(*(each["stages.3"] if isinstance(each, dict) else each for each in (given, expected)))
    fastvit.reparameterize(torch.fx.symbolic_trace(fastvit.reparameterize(model)))  # without a word


def test_attributes_that_are_called_as_tables_of_hooks_are_none() -> None:
    class Own(nn.Sequential):
        _hooks, _my_hooks, _forward_done_hooks = (), 1, None

    model = Own(small("fastvit_t8"))
    model._hooks, model._my_hooks = [1], {"a": 2}  # type: ignore[assignment]
    copied = fastvit.reparameterize(model.eval())
    assert copied._hooks == [1] and copied._my_hooks == {"a": 2}
    assert duplicate(model, hooks=False)._my_hooks == {"a": 2}


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
