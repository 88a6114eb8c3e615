"""Engines: the same outputs as eager torch by each of them, at any size, from any thread; or an error that says so."""

import copy
import logging
import math
import os
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy
import platformdirs
import pytest
import torch
from helpers.near import assert_near
from helpers.paths import TESTS
from helpers.small import shallow, small
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from fastvit import FastViTWarning, create_model, engine, reparameterize
from fastvit.deploy.engines import Engine, EngineError, available, builders, cache, select
from fastvit.deploy.engines.engine import Request, Run
from fastvit.deploy.graph import as_openvino, program
from fastvit.deploy.lowering import InterleavedConv
from fastvit.deploy.openvino_runtime import core
from fastvit.utils import extras
from fastvit.utils.numerics import compared

RUNTIMES = ("torch", "onnxruntime", "openvino")
RELATIVE = {"float32": 1e-5, "bfloat16": 4e-2, "float16": 4e-3}


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(autouse=True)
def _own_cache(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One for all tests: what one has converted need not be converted again."""
    monkeypatch.setenv("FASTVIT_CACHE", str(kept))


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FASTVIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def eager(model: nn.Module, images: Tensor) -> Tensor:
    """In float64, of the model as it was trained."""
    with torch.no_grad():
        result: Tensor = copy.deepcopy(model).double()(images.double())
    return result.float()


def called(run: Engine, images: Tensor) -> Tensor:
    given = run(images)
    assert isinstance(given, Tensor)
    return given


def damage(model: nn.Module) -> None:
    """A mistake as an engine could make it: one weight of a later block."""
    with torch.no_grad():
        next(module for module in reversed(list(model.modules())) if isinstance(module, nn.Conv2d)).weight.mul_(3)


@pytest.mark.parametrize(  # other tests have fastvit_t8
    "name", ["fastvit_mci0", *(pytest.param(name, marks=pytest.mark.slow) for name in ("fastvit_sa12", "fastvithd"))]
)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_it_gives_what_the_unfused_model_gives_at_any_size_and_batch(name: str, runtime: str) -> None:
    model = small(name)
    run = engine(model, runtime, threads=1)
    for shape in ((1, 3, 64, 64), (3, 3, 96, 40), (2, 3, 33, 67), (1, 3, 32, 32)):
        images = torch.randn(shape)
        given = called(run, images)
        assert given.dtype == torch.float32
        assert_near(given, eager(model, images), RELATIVE["float32"], f"{runtime} {shape}")
    assert run.error is not None and 0 < run.error.relative < 1e-4


@pytest.mark.parametrize(
    ("runtime", "precision"), [("torch", "bfloat16"), ("torch", "float16"), ("openvino", "bfloat16")]
)
def test_half_precision_is_near_and_no_more(runtime: str, precision: str) -> None:
    if runtime == "openvino":
        computes_in_bfloat16()
    model, images = small("fastvit_sa12"), torch.randn(2, 3, 64, 96)
    run = engine(model, runtime, precision=precision, threads=1)
    given = called(run, images)
    assert given.dtype == torch.float32
    assert_near(given, eager(model, images), RELATIVE[precision])
    assert run.error is not None
    if runtime == "torch":
        assert run.error.relative > 1e-5  # it was really computed in it


def computes_in_bfloat16() -> None:
    """Skip a test on a processor where OpenVINO does not."""
    if "BF16" not in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor does not compute in bfloat16")


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_precision_that_the_processor_lacks_is_refused_rather_than_computed_in_another(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Old:
        """As OpenVINO describes a processor with AVX2 alone."""

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def get_property(self, device: str, name: str) -> list[str]:
            return ["WINOGRAD", "FP32", "INT8", "BIN", "EXPORT_IMPORT"]

    real = core()
    monkeypatch.setattr(builders, "core", Old)
    words = rf"^openvino: this processor does not compute in {precision}: choose float32$"
    with pytest.raises(EngineError, match=words):
        engine(shallow(), "openvino", precision=precision, threads=1)


def test_openvino_is_asked_for_the_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    import openvino

    asked, compile_model = [], openvino.Core.compile_model

    def spy(core: Any, model: Any, device: str, config: dict[str, Any]) -> Any:
        asked.append(config)
        return compile_model(core, model, device, config)

    monkeypatch.setattr(openvino.Core, "compile_model", spy)
    computes_in_bfloat16()
    for precision, hint in (("float32", "f32"), ("bfloat16", "bf16")):
        engine(shallow(), "openvino", precision=precision, threads=1, input_size=(64, 64))
        assert asked[-1]["INFERENCE_PRECISION_HINT"] == hint and asked[-1]["INFERENCE_NUM_THREADS"] == 1


def test_onnxruntime_is_asked_for_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    asked, session = [], onnxruntime.InferenceSession

    def spy(path: Path, options: Any, **rest: Any) -> Any:
        asked.append(options.intra_op_num_threads)
        return session(path, options, **rest)

    monkeypatch.setattr(onnxruntime, "InferenceSession", spy)
    for threads in (1, 3, None):
        engine(shallow(), "onnxruntime", threads=threads)
    assert asked == [1, 3, 0]  # 0: as many as the library likes


@pytest.mark.parametrize(
    ("name", "stages"), [("fastvit_t8", (0, 1)), pytest.param("fastvithd", (1, 4), marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_maps(runtime: str, name: str, stages: tuple[int, ...], small_variants: None) -> None:
    images = torch.randn(2, 3, 70, 64)
    pyramid = create_model(name, features_only=True, out_indices=stages).eval()
    given, expected = engine(pyramid, runtime, threads=1)(images), pyramid(images)
    assert isinstance(given, list) and len(given) == 2
    for pair in zip(given, expected, strict=True):
        assert_near(*pair, RELATIVE["float32"])
        assert pair[0].is_contiguous()  # whatever the runtime's own layout


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_bare_features(runtime: str) -> None:
    headless, images = shallow("fastvit_mci0"), torch.randn(2, 3, 70, 64)
    headless.reset_classifier(0, "")
    given = called(engine(headless, runtime, threads=1), images)
    assert given.ndim == 4
    assert_near(given, eager(headless, images), RELATIVE["float32"])


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_size_that_is_compiled_ahead_does_not_exclude_others(runtime: str) -> None:
    model = shallow("fastvit_sa12")
    run = engine(model, runtime, threads=1, input_size=(64, 96))
    for shape in ((1, 3, 64, 96), (2, 3, 64, 96), (1, 3, 96, 64)):
        images = torch.randn(shape)
        assert_near(called(run, images), eager(model, images), RELATIVE["float32"])


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_threads_may_call_at_once(runtime: str) -> None:
    model = shallow()
    run = engine(model, runtime, threads=1)
    batches = [torch.randn(1 + index % 2, 3, 32 + 8 * (index % 3), 40) for index in range(24)]
    expected = [eager(model, images) for images in batches]
    with ThreadPoolExecutor(6) as pool:
        for given, exact in zip(pool.map(run, batches), expected, strict=True):
            assert isinstance(given, Tensor)
            assert_near(given, exact, RELATIVE["float32"])


def test_an_output_is_not_overwritten_by_the_next() -> None:
    run = engine(shallow(), "openvino", threads=1)
    first = called(run, torch.randn(1, 3, 32, 32))
    before = first.clone()
    run(torch.randn(1, 3, 32, 32))
    assert torch.equal(first, before)


@pytest.mark.parametrize("form", ["unfused", "fused", "bfloat16", "inference"])
def test_whatever_the_model_is_it_is_taken_and_left_alone(form: str) -> None:
    model = shallow("fastvit_sa12")
    if form == "fused":
        model = reparameterize(model)
    if form == "bfloat16":
        model = model.bfloat16()
    images, names = torch.randn(1, 3, 40, 64), list(model.state_dict())
    with torch.inference_mode(form == "inference"):
        run = engine(model, "openvino", threads=1)
        given = called(run, images)
    assert list(model.state_dict()) == names and all(parameter.requires_grad for parameter in model.parameters())
    assert next(model.parameters()).dtype == (torch.bfloat16 if form == "bfloat16" else torch.float32)
    assert_near(given, eager(model, images), RELATIVE["float32"])
    damage(model)  # it has a copy
    assert torch.equal(called(run, images), given)


def test_its_outputs_can_be_learned_from() -> None:
    features = called(engine(small("fastvit_t8", num_classes=0), "torch", threads=1), torch.randn(2, 3, 32, 32))
    head = nn.Linear(features.shape[1], 2)
    head(features).sum().backward()  # what inference mode's tensors would refuse
    assert head.weight.grad is not None


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_wrong_conversion_is_refused_at_the_first_call_and_ever_after(
    runtime: str, monkeypatch: pytest.MonkeyPatch, empty_cache: Path
) -> None:
    from fastvit.deploy import graph

    def wrong(model: nn.Module) -> nn.Module:
        lowered = lower(model)
        damage(lowered)
        return lowered

    lower = graph.lower
    monkeypatch.setattr(graph, "lower", wrong)
    monkeypatch.setattr(builders, "lower", wrong)
    run = engine(shallow(), runtime, threads=1)
    for _ in range(2):
        with pytest.raises(EngineError, match=rf"{runtime} in float32 differs from eager torch by .* at most 1e-04"):
            run(torch.randn(1, 3, 32, 32))
    assert run.error is None


def test_interleaved_channels_in_the_wrong_order_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(self: InterleavedConv, x: Tensor) -> Tensor:
        return torch.cat([conv(x) for conv in self.convs], 1)

    monkeypatch.setattr(InterleavedConv, "forward", wrong)
    with pytest.raises(EngineError, match="differs"):
        engine(small("fastvit_t8"), "torch")(torch.randn(1, 3, 32, 32))


def replaced(monkeypatch: pytest.MonkeyPatch, build: Callable[[nn.Module, Request], Run], name: str = "torch") -> None:
    """The engine of that name is what `build` makes."""
    monkeypatch.setitem(select.ENGINES, name, replace(select.ENGINES[name], build=build))


@pytest.mark.parametrize(
    "outputs",
    [
        lambda x: [torch.full((len(x), 5), float("nan"))],
        lambda x: [torch.zeros(len(x), 1)],  # which could be broadcast
        lambda x: [],
        lambda x: [torch.zeros(len(x), 5)] * 2,
    ],
)
def test_what_is_no_output_at_all_is_refused(outputs: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    replaced(monkeypatch, lambda model, request: outputs)
    with pytest.raises(EngineError, match=r"torch in float32 differs from eager torch by (nan|inf)"):
        engine(shallow(), "torch")(torch.randn(2, 3, 32, 32))


def test_images_that_eager_torch_cannot_compute_prove_nothing_of_the_engine() -> None:
    model, images = shallow(), torch.randn(1, 3, 32, 32)
    run = engine(model, "torch", threads=1)
    with pytest.raises(EngineError, match="eager torch gives NaN or infinity for these images"):
        run(torch.full((1, 3, 32, 32), float("nan")))
    assert run.error is None
    assert_near(called(run, images), eager(model, images), RELATIVE["float32"])


@pytest.mark.parametrize("wrong", [True, False])  # for the size that was compiled ahead, or for any other
def test_what_is_compiled_apart_is_compared_apart(wrong: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model, ahead, other = shallow(), torch.randn(1, 3, 32, 48), torch.randn(4, 3, 32, 48)
    fused = reparameterize(model)

    def run(images: Tensor) -> list[Tensor]:
        with torch.no_grad():
            return [fused(images) + ((images.shape == ahead.shape) == wrong)]

    replaced(monkeypatch, lambda model, request: run)
    made = engine(model, "torch", input_size=(32, 48))
    bad, good = (ahead, other) if wrong else (other, ahead)
    assert_near(called(made, good), eager(model, good), RELATIVE["float32"])
    for _ in range(2):
        with pytest.raises(EngineError, match="differs from eager torch"):
            made(bad)
    assert_near(called(made, good), eager(model, good), RELATIVE["float32"])


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_images_may_lie_in_memory_as_they_like(runtime: str) -> None:
    model, images = shallow(), torch.randn(2, 3, 48, 32)
    run = engine(model, runtime, threads=1)
    for given in (
        images.to(memory_format=torch.channels_last),
        images.mT.contiguous().mT,
        images.repeat_interleave(2, -1)[..., ::2],
    ):
        assert_near(called(run, given), eager(model, images), RELATIVE["float32"])


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_images_may_be_of_any_floating_point_dtype(runtime: str, dtype: torch.dtype) -> None:
    model, images = shallow(), torch.randn(2, 3, 48, 32).to(dtype)
    given = called(engine(model, runtime, threads=1), images)
    assert given.dtype == torch.float32
    assert_near(given, eager(model, images), RELATIVE["float32"])


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("compared", [False, True], ids=["before its first call", "after it"])
def test_a_copy_and_what_comes_out_of_a_pickle_give_the_same(runtime: str, compared: bool) -> None:
    run, images = engine(shallow(), runtime, input_size=(64, 64), threads=1), torch.randn(1, 3, 64, 64)
    if compared:
        run(images)
    expected = eager(shallow(), images)
    for again in (copy.deepcopy(run), copy.copy(run), pickle.loads(pickle.dumps(run))):
        assert (again.name, again.num_classes, again.preprocess) == (run.name, run.num_classes, run.preprocess)
        assert_near(called(again, images), expected, RELATIVE["float32"])
        assert_near(called(again, images[..., :32]), eager(shallow(), images[..., :32]), RELATIVE["float32"])


@pytest.mark.slow
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_another_process_takes_an_engine(runtime: str) -> None:
    run, images = engine(shallow(), runtime, threads=1), torch.randn(2, 3, 64, 64)
    with ProcessPoolExecutor(1, get_context("spawn")) as executor:
        given = executor.submit(run, images).result()
    assert_near(given, eager(shallow(), images), RELATIVE["float32"])


def test_an_engine_whose_file_is_gone_says_so(empty_cache: Path) -> None:
    pickled = pickle.dumps(engine(shallow(), "onnxruntime", threads=1))
    shutil.rmtree(empty_cache)
    with pytest.raises(EngineError, match=r"model\.onnx: is not there.*: make a new one"):
        pickle.loads(pickled)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_array_is_taken_for_images(runtime: str) -> None:
    run, images = engine(shallow(), runtime, threads=1), numpy.random.default_rng(0).normal(size=(2, 3, 64, 64))
    backwards = images.astype(numpy.float32)[:, :, ::-1]
    backwards.flags.writeable = False
    others = [images.astype(kind) for kind in (">f4", ">f8", numpy.longdouble, numpy.float16)]
    for array in (images, *others, backwards):
        given = called(run, array)
        assert_near(given, eager(shallow(), torch.tensor(array.astype(numpy.float64))), 1e-5)


def test_what_is_no_tensor_and_no_array_is_refused_in_one_line() -> None:
    run = engine(shallow(), "torch")
    with pytest.raises(TypeError, match=r"images are a list, expected a tensor or an array \(B, C, H, W\)"):
        run([1.0])
    with pytest.raises(ValueError, match=r"images are torch\.uint8, expected preprocessed ones"):
        run(numpy.zeros((1, 3, 64, 64), numpy.uint8))
    for kind, named in ((">i2", r"torch\.int16"), ("O", "object"), ("S1", r"\|S1"), ("M8[s]", r"datetime64\[s\]")):
        with pytest.raises(ValueError, match=f"^images are {named}, expected preprocessed ones, of a floating-point"):
            run(numpy.zeros((1, 3, 64, 64)).astype(kind))


def test_an_engine_of_a_model_with_a_local_hook_is_copied_and_its_pickle_refused_in_one_line() -> None:
    model, seen = shallow(), []
    model.stem.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    run, images = engine(model, "torch"), torch.randn(1, 3, 64, 64)
    assert_near(called(copy.deepcopy(run), images), eager(shallow(), images), RELATIVE["float32"])
    assert seen
    with pytest.raises(
        pickle.PicklingError, match=r"this engine cannot be pickled, as .*: make one .* without its hooks"
    ):
        pickle.dumps(run)


# What observes the model, or wraps it


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_hook_that_changes_outputs_counts_and_one_that_records_sees_only_numbers(runtime: str) -> None:
    images, seen = torch.randn(1, 3, 64, 64), []
    for changes in (False, True):
        model = shallow()
        model.stages[0].register_forward_hook(lambda module, inputs, output: seen.append(output))
        if changes:
            model.stages[0].blocks[0].mixer.register_forward_hook(lambda module, inputs, output: 2 * output)
        given = called(engine(model, runtime, threads=1), images)
        assert_near(given, eager(model, images), RELATIVE["float32"])
        if not changes:
            assert seen and all(type(output) is Tensor for output in seen)


def test_hooks_of_convolutions_that_are_run_as_several_see_one_output() -> None:
    model, seen = small("fastvit_t8", num_classes=3), []
    model.stages[1].downsample[0].conv.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    run, images = engine(model, "torch"), torch.randn(1, 3, 64, 64)
    run(images)  # also in eager torch
    seen.clear()
    run(images)
    assert seen == [(1, 16, 8, 8)]


@pytest.mark.parametrize(
    "wrap", [torch.compile, nn.DataParallel, AveragedModel, ModelEmaV3], ids=lambda it: it.__name__
)
def test_what_only_runs_a_model_is_taken_for_it(wrap: Callable[[nn.Module], nn.Module]) -> None:
    images = torch.randn(1, 3, 64, 64)
    run = engine(wrap(shallow()).eval(), "torch")
    assert_near(called(run, images), eager(shallow(), images), RELATIVE["float32"])
    assert run.num_classes == 5 and run.preprocess == shallow().preprocess


def test_one_map_is_a_list_of_one() -> None:
    last = create_model("fastvit_t8", features_only=True, out_indices=(3,)).eval()
    given = engine(last, "torch")(torch.randn(1, 3, 32, 32))
    assert isinstance(given, list) and [each.shape for each in given] == [(1, 384, 1, 1)]


def test_one_output_that_is_not_a_number_is_the_worst() -> None:
    expected, given = [torch.ones(2)] * 3, [torch.ones(2), torch.tensor([1, torch.nan]), torch.zeros(2)]
    assert math.isnan(compared(expected, given).relative)


def test_of_the_compiler_each_shape_is_compared() -> None:
    model, first = shallow(), torch.randn(1, 3, 32, 48)

    def run(images: Tensor) -> list[Tensor]:
        with torch.no_grad():
            return [model(images) * errors[images.shape[-1]]]

    errors = {32: 1, 48: 1 + 1e-5, 64: 1.01}
    made = Engine("compile", Request(), run, model)
    assert_near(called(made, first), model(first), 2e-5)
    made(torch.randn(1, 3, 32, 32))
    assert made.error is not None and 0.5e-5 < made.error.relative < 2e-5, "the largest so far"
    with pytest.raises(EngineError, match="compile in float32 differs from eager torch"):
        made(torch.randn(1, 3, 32, 64))


def test_it_keeps_what_it_compares_with_no_longer_than_it_must() -> None:
    run = engine(shallow(), "torch", input_size=(32, 48), threads=1)
    run(torch.randn(1, 3, 32, 48))
    assert run._reference is not None
    run(torch.randn(2, 3, 32, 48))
    assert run._reference is None
    run(torch.randn(1, 3, 64, 64))


@pytest.mark.parametrize("when", ["build", "call"])
def test_what_a_library_raises_is_one_line(when: str, monkeypatch: pytest.MonkeyPatch) -> None:

    def fails(*_: Any) -> Any:
        raise RuntimeError("several\n  lines")

    replaced(monkeypatch, fails if when == "build" else lambda model, request: fails)
    with pytest.raises(EngineError, match=r"^torch failed: RuntimeError: several lines$"):
        engine(shallow(), "torch")(torch.randn(1, 3, 32, 32))


def test_an_interrupted_conversion_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = pytest.importorskip("openvino.frontend.pytorch.fx_decoder").TorchFXPythonDecoder

    def interrupted(self: Any) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(decoder, "get_op_type", interrupted)  # it is asked by the converter, which is not Python
    root = logging.getLogger()
    before = (root.level, root.filters[:], root.handlers[:])
    with pytest.raises(KeyboardInterrupt):
        as_openvino(*program(shallow()))
    assert (root.level, root.filters, root.handlers) == before  # the converter's own, had it been left


def test_int8_without_nncf_says_what_to_install(monkeypatch: pytest.MonkeyPatch, empty_cache: Path) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(EngineError, match=r'^openvino: int8 needs nncf.*; run: pip install "fastvit\[int8\]"$'):
        engine(shallow(), "openvino", precision="int8", calibration=torch.randn(8, 3, 32, 32))


@pytest.mark.parametrize(
    ("runtime", "converter"),
    [pytest.param("onnxruntime", "as_onnx", marks=pytest.mark.slow), ("openvino", "as_openvino")],
)
def test_what_int8_is_to_keep_is_kept(runtime: str, converter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = small("fastvit_t8"), torch.randn(8, 3, 64, 48)
    graph = getattr(builders, converter)(*program(model))
    monkeypatch.setattr(builders, converter, lambda *_: graph)  # converted once, for it is quantized in copies
    everything = ("stem", "stages", "final_conv", "head")
    errors = []
    for keep in ((), everything):
        run = engine(model, runtime, precision="int8", calibration=images, keep=keep, threads=1)
        run(images)
        assert run.error is not None
        errors.append(run.error.relative)
    assert errors[1] < errors[0] / 2  # the rest is in float32, or in bfloat16 where the processor computes in it


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_what_int8_cannot_keep_is_said_before_the_conversion(
    runtime: str, monkeypatch: pytest.MonkeyPatch, empty_cache: Path
) -> None:
    monkeypatch.setattr(builders, "program", pytest.fail)
    with pytest.raises(ValueError, match=r"stages\.9: no layer or block of the model; stem\.0\.conv is one"):
        engine(shallow(), runtime, precision="int8", calibration=torch.randn(8, 3, 32, 32), keep=["stem", "stages.9"])


@pytest.mark.slow
def test_int8_is_compiled_for_the_shapes_that_openvino_dies_at_with_amx() -> None:
    """In a process of its own, which without that a processor with AMX would end."""
    code = """
from dataclasses import replace
import openvino, torch
from helpers.small import SMALL, shallow, small
from fastvit import FastViT, engine
from fastvit.testing import randomize
compiled, compile_model = [], openvino.Core.compile_model
def spy(core, model, *arguments, **options):
    compiled.append(model.input(0).partial_shape.to_string())
    return compile_model(core, model, *arguments, **options)
openvino.Core.compile_model = spy
torch.manual_seed(0)
wide = randomize(FastViT(replace(SMALL["fastvit_t8"], depths=(1, 1, 1, 1), width=48))).eval()
int8 = {"precision": "int8", "calibration": torch.randn(8, 3, 64, 64)}
for model, options, sizes in (
    (small("fastvit_t8"), int8, [(1, 64, 64), (8, 64, 48), (1, 100, 100), (1, 64, 64)]),
    (wide, int8, [(1, 32, 32), (1, 160, 128), (2, 132, 164)]),
    (shallow(), {}, [(1, 32, 32), (2, 132, 164)]),
):
    run = engine(model, "openvino", threads=1, **options)
    compiled.clear()
    for batch, height, width in sizes:
        run(torch.randn(batch, 3, height, width))
    print(*compiled)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    narrow, wide, float32 = ran.stdout.splitlines()
    assert narrow == "[1,3,64,64] [8,3,64,48] [1,3,100,100]"
    assert wide == "[1,3,32,32] [?,3,?,?]"  # images that end in more than four positions share one
    assert float32 == "[?,3,?,?]"


def test_the_check_is_made_once_and_on_one_image(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = shallow(), []
    run = engine(model, "torch", threads=1)
    reference = run._reference
    assert reference is not None
    reference.register_forward_pre_hook(lambda module, inputs: seen.append(tuple(inputs[0].shape)))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, [torch.randn(5, 3, 32, 40) for _ in range(8)]))
    assert seen == [(1, 3, 32, 40)] and run._reference is None


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.randn(3, 64, 64), r"images are \(3, 64, 64\), expected \(B, 3, H, W\), H and W from 32 up"),
        (torch.randn(1, 4, 64, 64), r"images are \(1, 4, 64, 64\), expected \(B, 3"),
        (torch.randn(1, 3, 31, 64), r"expected .* from 32 up"),
        (torch.randn(0, 3, 64, 64), r"images are \(0, 3, 64, 64\)"),
        (
            torch.zeros(1, 3, 64, 64, dtype=torch.uint8),
            r"images are torch.uint8, expected preprocessed ones, of a floating-point dtype",
        ),
    ],
)
def test_other_images_are_refused(images: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        engine(small("fastvit_t8"), "torch")(images)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"name": "tensorrt"}, ValueError, "engine 'tensorrt', expected one of auto, torch, compile, onnxruntime, "),
        ({"precision": "int4"}, ValueError, "precision 'int4', expected one of float32, float16, bfloat16, int8"),
        ({"threads": 0}, ValueError, "threads is 0, expected a whole number, 1 or more"),
        ({"input_size": (16, 64)}, ValueError, r"input_size=\(16, 64\): expected \(height, width\)"),
        ({"input_size": 64}, ValueError, "input_size=64: expected"),
        ({"precision": "int8"}, ValueError, "precision int8 needs images to calibrate with: give some as calibration"),
        ({"calibration": torch.zeros(1, 3, 32, 32)}, ValueError, "calibration is for precision int8, and it is float"),
        ({"keep": ["stem"]}, ValueError, "keep is for precision int8, and it is float32: leave it out"),
        (
            {"name": "onnxruntime", "precision": "bfloat16"},
            EngineError,
            "onnxruntime has no bfloat16: choose float32 or int8, or engine torch, compile or openvino",
        ),
    ],
)
def test_what_cannot_be_is_said_in_one_line(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        engine(small("fastvit_t8"), **{"name": "torch", **arguments})


def test_a_model_in_train_mode_is_refused() -> None:
    model = small("fastvit_t8")
    model.head.train()  # a part is enough
    for name in ("auto", "torch"):
        with pytest.raises(ValueError, match=r"train mode.*call model\.eval\(\)"):
            engine(model, name)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_model_elsewhere_than_on_the_cpu_is_refused(runtime: str) -> None:
    with pytest.raises(EngineError, match=rf"{runtime} runs on the CPU and the model is on meta: give it model"):
        engine(small("fastvit_t8").to("meta"), runtime)


def test_a_package_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    assert available()["torch"] == "" and 'pip install "fastvit[onnxruntime]"' in available()["onnxruntime"]
    with pytest.raises(EngineError, match=r'openvino needs openvino; run: pip install "fastvit\[openvino\]"'):
        engine(shallow(), "openvino")


def test_auto_measures_what_is_there_and_remembers(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {"torch": 3.0, "onnxruntime": 1.0, "openvino": 2.0}
    asked = []

    def measured(candidate: Engine, images: Tensor) -> float:
        asked.append((candidate.name, tuple(images.shape)))
        candidate(images)
        return seconds[candidate.name]

    monkeypatch.setattr(select, "_seconds", measured)
    model = shallow()
    run = engine(model, input_size=(64, 48), threads=1)
    assert sorted(asked) == [(name, (1, 3, 64, 48)) for name in sorted(seconds)]
    assert run.name == "onnxruntime"
    said = "onnxruntime, the fastest for one image of 64 x 48 in float32"
    assert run.chosen == f"{said}: torch 3000.0 ms, onnxruntime 1000.0 ms, openvino 2000.0 ms"
    asked.clear()
    again = engine(model, input_size=(64, 48), threads=1)
    assert not asked and (again.name, again.chosen) == (run.name, run.chosen)
    engine(model, input_size=(64, 64), threads=1)
    assert asked, "another size must be measured anew"
    asked.clear()
    engine(model, input_size=(64, 48), threads=2)
    assert asked, "another number of threads must be measured anew"
    monkeypatch.setattr(select, "CANDIDATES", ("torch",))  # which has both of these precisions
    for precision in ("bfloat16", "float16"):
        asked.clear()
        engine(model, precision=precision, input_size=(64, 48), threads=1)
        assert asked, "another precision must be measured anew"


def test_auto_asks_only_engines_that_have_the_precision(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(select, "_seconds", lambda run, images: asked.append((run.name, run.precision)) or 1.0)
    engine(shallow(), precision="bfloat16", input_size=(32, 32), threads=1)
    has_it = "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")  # not every processor
    assert asked == [("torch", "bfloat16"), *[("openvino", "bfloat16")] * has_it]


def test_auto_keeps_only_what_agrees(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(model: nn.Module, request: Request) -> Run:
        return lambda images: [torch.zeros(len(images), 5)]

    monkeypatch.setattr(select, "SECONDS", 0.0)
    replaced(monkeypatch, broken, "openvino")
    replaced(monkeypatch, broken, "onnxruntime")
    run = engine(shallow(), input_size=(32, 32), threads=1)
    assert run.name == "torch" and "openvino in float32 differs from eager torch" in run.chosen
    monkeypatch.setattr(select, "CANDIDATES", ("openvino",))
    with pytest.raises(EngineError, match="no engine runs this model in float32: openvino"):
        engine(shallow(), input_size=(32, 32), threads=1)


@pytest.mark.parametrize("broken", [lambda model, request: lambda images: [torch.zeros(len(images), 5)], None])
def test_auto_measures_anew_where_what_it_remembers_no_longer_agrees_or_runs(
    broken: Any, empty_cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(select, "SECONDS", 0.0)
    monkeypatch.setattr(select, "CANDIDATES", ("torch", "openvino"))
    monkeypatch.setattr(select, "_seconds", lambda run, images: {"torch": 2.0, "openvino": 1.0}[run.name])
    model = shallow()
    assert engine(model, input_size=(32, 32)).name == "openvino"

    def out_of_order(model: nn.Module, request: Request) -> Run:
        raise OSError("no space left on device")

    replaced(monkeypatch, broken or out_of_order, "openvino")
    monkeypatch.setattr(select, "_seconds", lambda run, images: run(images) is None or 1.0)
    assert engine(model, input_size=(32, 32)).name == "torch"
    assert "measuring anew" in caplog.text


def test_auto_measures_the_weights_own_size(monkeypatch: pytest.MonkeyPatch, empty_cache: Path) -> None:
    sizes = []
    monkeypatch.setattr(select, "CANDIDATES", ("torch",))
    monkeypatch.setattr(select, "_seconds", lambda run, images: sizes.append(tuple(images.shape[2:])) or 1.0)
    model = shallow()
    model.pretrained_cfg["input_size"] = (3, 40, 72)
    engine(model)
    assert sizes == [(40, 72)]


def converted(runtime: str, cache_folder: Path) -> list[Path]:
    return sorted(cache_folder.glob(f"{runtime}-*"))


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_conversion_is_kept_and_a_damaged_one_made_anew(
    runtime: str, empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made, artefact = [], cache.artefact

    def quickly(key: str, file: str, make: Callable[[Path], None]) -> Path:
        def once(path: Path) -> None:
            if not made:
                make(path)
                shutil.copytree(path.parent, tmp_path / "first")
            else:  # the same again, sooner
                shutil.copytree(tmp_path / "first", path.parent, dirs_exist_ok=True)
            made.append(path)

        return artefact(key, file, once)

    monkeypatch.setattr(cache, "artefact", quickly)
    model, images = shallow(), torch.randn(1, 3, 32, 32)
    expected = called(engine(model, runtime, threads=1), images)
    assert torch.equal(called(engine(model, runtime, threads=1), images), expected) and len(made) == 1
    home, *others = converted(runtime, empty_cache)
    assert not others
    for file in sorted(home.iterdir()):
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.unlink()  # a runtime may still be reading the old one
        file.write_bytes(data)
        before = len(made)
        assert torch.equal(called(engine(model, runtime, threads=1), images), expected), file.name
        assert len(made) == before + 1 and f"{home}: damaged; making it anew" in caplog.text
        assert torch.equal(called(engine(model, runtime, threads=1), images), expected) and len(made) == before + 1
    (home / "sha256.json").unlink()
    assert torch.equal(called(engine(model, runtime, threads=1), images), expected)
    other = shallow()
    damage(other)
    engine(other, runtime, threads=1)
    assert len(converted(runtime, empty_cache)) == 2, "other weights are another model"


def test_what_models_compute_tells_them_apart(small_variants: None) -> None:
    models = [small("fastvit_t8", num_classes=0, global_pool=pool) for pool in ("avg", "max", "")]
    models += [create_model("fastvit_t8", features_only=True, out_indices=which) for which in ((0, 3), (1, 3))]
    assert len({cache.structure_of(model) for model in models}) == len(models)
    assert cache.structure_of(small("fastvit_t8")) == cache.structure_of(small("fastvit_t8"))


def test_a_conversion_is_taken_for_the_very_same_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same structure, weights, calibration, layers to keep and versions."""
    kept: list[str] = []
    monkeypatch.setattr(cache, "artefact", lambda key, file, make: kept.append(key) or Path(file))

    def convert(model: nn.Module, **request: Any) -> None:
        cache.converted("onnxruntime", model, Request(**request), "model.onnx", lambda path: None)

    model = small("fastvit_t8", num_classes=0)
    images = torch.randn(2, 8, 3, 32, 32)
    convert(model)
    convert(model, calibration=images[0])
    convert(model, calibration=images[1])
    convert(model, calibration=images[0], keep=("stem", "head"))
    convert(small("fastvit_t8", num_classes=0, global_pool="max"))  # of the same weights
    damage(model)
    convert(model)
    monkeypatch.setattr(cache, "versions", lambda: {"torch": "another"})
    convert(model)
    assert len(set(kept)) == len(kept) == 7
    convert(model)
    assert kept[-1] == kept[-2]
    for keep in (("stem", "head"), ["head", "stem"]):  # which mean the same
        convert(model, calibration=images[0], keep=keep)
    assert kept[-1] == kept[-2]


SOURCE = """import math

LARGEST = 2


def area(r: float) -> float:
    return math.pi * r**2
"""


@pytest.mark.parametrize(
    ("edited", "same"),
    [
        (SOURCE, True),
        (SOURCE.replace("LARGEST = 2", "LARGEST = 2  # edges"), True),
        ('"""Circles."""\n\n' + SOURCE, True),
        (SOURCE.replace("    return", '    """Of a circle.\n\n    Example: none.\n    """\n    return'), True),
        (SOURCE.replace("r**2", "(r\n        ** 2)"), True),
        (SOURCE.replace("LARGEST = 2", "LARGEST = 3"), False),
        (SOURCE.replace("r**2", "r**3"), False),
        (SOURCE.replace("r: float", "r: float = 1"), False),
    ],
)
def test_a_comment_changes_no_key_and_a_change_of_code_does(edited: str, same: bool, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(SOURCE)
    (tmp_path / "b.py").write_text(edited)
    assert (cache.code_digest([tmp_path / "a.py"]) == cache.code_digest([tmp_path / "b.py"])) == same


def test_all_code_that_has_a_part_in_a_conversion_is_in_the_key() -> None:
    grimp = pytest.importorskip("grimp")
    graph = grimp.build_graph("fastvit")
    used = {
        name.split(".")[1] for name in graph.find_upstream_modules("fastvit.deploy", as_package=True) if "." in name
    }
    loading = {"checkpoint", "weights"}  # whose part, the model, is in the key itself
    assert used <= {*cache.CODE, "_version", *loading}
    assert all((Path(cache.__file__).parents[2] / package).is_dir() for package in cache.CODE)


def test_without_a_variable_all_is_kept_in_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FASTVIT_CACHE")
    assert cache.folder() == platformdirs.user_cache_path("fastvit", appauthor=False) and cache.folder().is_absolute()
    monkeypatch.setenv("FASTVIT_CACHE", "elsewhere")
    assert cache.folder() == Path("elsewhere")

    monkeypatch.setenv("FASTVIT_CACHE", "~/elsewhere")
    assert cache.folder() == Path.home() / "elsewhere"


def no_home(patch: pytest.MonkeyPatch) -> None:
    """As a container's user has it who is but a number."""
    import pwd

    def getpwuid(number: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    for name in ("FASTVIT_CACHE", "HOME", "XDG_CACHE_HOME"):
        patch.delenv(name, raising=False)
    patch.setattr(pwd, "getpwuid", getpwuid)


def named_in_no_home(patch: pytest.MonkeyPatch) -> None:
    no_home(patch)
    patch.setenv("FASTVIT_CACHE", "~/kept")


def relative_home(patch: pytest.MonkeyPatch) -> None:
    """As platformdirs before 4.4 has it without a home."""
    patch.delenv("FASTVIT_CACHE")
    patch.setattr(cache, "user_cache_path", lambda *_, **__: Path("~/.cache/fastvit"))


def in_the_way(patch: pytest.MonkeyPatch) -> None:
    Path("file").write_text("in the way")
    patch.setenv("FASTVIT_CACHE", "file/cache")


def read_only(patch: pytest.MonkeyPatch) -> None:
    """The root that runs tests may write everywhere."""
    make = Path.mkdir

    def mkdir(path: Path, *arguments: Any, **more: Any) -> None:
        if "not ours" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        make(path, *arguments, **more)

    patch.setenv("FASTVIT_CACHE", "not ours")
    patch.setattr(Path, "mkdir", mkdir)


def full(patch: pytest.MonkeyPatch) -> None:
    """What is written there fails as a runtime does it, which has errors of its own."""
    write = Path.write_text

    def fails(path: Path, *arguments: Any, **more: Any) -> int:
        if "cache" in path.parts:
            raise OSError(28, "No space left on device", str(path))
        return write(path, *arguments, **more)

    patch.setenv("FASTVIT_CACHE", "cache")
    patch.setattr(Path, "write_text", fails)


@pytest.mark.parametrize("place", [no_home, named_in_no_home, relative_home, in_the_way, read_only, full])
def test_where_nothing_can_be_kept_it_runs_all_the_same_with_one_warning(
    place: Callable[[pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, images = shallow(), torch.randn(1, 3, 32, 32)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cache, "_warned", set())
    place(monkeypatch)
    words = r"^what is converted for engines, and encoded texts, are not kept.*FASTVIT_CACHE"
    with pytest.warns(FastViTWarning, match=words) as said:
        found = called(engine(model, "onnxruntime", threads=1), images)
        cache.remember("key", {"name": "torch"})
        assert cache.artefact("another", "file", lambda path: path.write_text("whole") and None).read_text() == "whole"
    assert_near(found, eager(model, images), RELATIVE["float32"])
    assert len(said) == 1 and cache.remembered("key") is None
    assert not list(tmp_path.glob("~*")) and not list(tmp_path.glob("*/*"))  # nor a folder that is called ~


def test_a_runtime_that_fails_on_a_full_disk_writes_elsewhere(
    empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(path: Path) -> None:
        if empty_cache in path.parents:
            raise RuntimeError("Can't write bin file")
        path.write_text("whole")

    with pytest.raises(RuntimeError, match="write bin file"):  # there is room: something else is wrong
        cache.artefact("a", "file", make)
    monkeypatch.setattr(cache, "_room", lambda path: 1000)
    monkeypatch.setattr(cache, "_warned", set())
    with pytest.warns(FastViTWarning, match="No space left on device"):
        assert cache.artefact("a", "file", make).read_text() == "whole"
    assert not list(empty_cache.glob("*"))


def test_what_is_kept_in_a_folder_that_is_not_ours_is_taken(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise PermissionError

    made = cache.artefact("a", "file", lambda path: path.write_bytes(b"whole") and None)
    monkeypatch.setattr(os, "utime", refused)
    assert cache.artefact("a", "file", lambda path: pytest.fail("it is there")) == made


def test_others_may_read_what_is_kept_as_far_as_the_umask_allows(empty_cache: Path) -> None:
    for umask, mode in ((0o022, 0o755), (0o077, 0o700)):
        before = os.umask(umask)
        try:
            path = cache.artefact(f"{umask}", "file", lambda path: path.write_bytes(b"whole") and None)
        finally:
            os.umask(before)
        assert path.parent.parent == empty_cache and path.parent.stat().st_mode & 0o777 == mode


def test_the_cache_is_bounded_and_loses_the_least_used(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MOST_BYTES", 3500)
    for age, key in enumerate(("a", "b", "c")):
        path = cache.artefact(key, "file", lambda path: path.write_bytes(bytes(1000)) and None)
        assert path.read_bytes() == bytes(1000)
        os.utime(path.parent, (age, age))
    cache.artefact("a", "file", lambda path: pytest.fail("it is there"))
    left = empty_cache / ".making.dead"
    left.mkdir()
    os.utime(left, (0, 0))
    (empty_cache / ".making.now").mkdir()  # by another process
    cache.artefact("d", "file", lambda path: path.write_bytes(bytes(1000)) and None)
    assert {path.name for path in empty_cache.iterdir()} == {"a", "c", "d", ".making.now"}
    (empty_cache / ".making.now").rmdir()
    cache.artefact("e", "file", lambda path: path.write_bytes(bytes(4000)) and None)
    assert {path.name for path in empty_cache.iterdir()} == {"e"}, "the newest stays, whatever its size"


def test_a_conversion_that_fails_leaves_nothing_that_would_be_taken(empty_cache: Path) -> None:
    def fails(path: Path) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.artefact("a", "file", fails)
    assert cache.artefact("a", "file", lambda path: path.write_bytes(b"whole") and None).read_bytes() == b"whole"


def test_what_is_remembered_but_cannot_be_read_is_forgotten(empty_cache: Path) -> None:
    cache.remember("key", {"name": "torch"})
    assert cache.remembered("key") == {"name": "torch"}
    for damaged in ("", "[1]", '{"name', "\udc80"):
        (empty_cache / "key.json").write_bytes(damaged.encode("utf-8", "surrogateescape"))
        assert cache.remembered("key") is None


def test_threads_of_torch_are_as_they_were() -> None:
    before, seen = torch.get_num_threads(), []
    model = shallow()
    run = engine(model, "torch", threads=before + 1)
    assert run._reference is not None
    hook = nn.modules.module.register_module_forward_pre_hook(lambda *_: seen.append(torch.get_num_threads()))
    try:
        run(torch.randn(1, 3, 32, 32))
    finally:
        hook.remove()
    assert before + 1 in seen and torch.get_num_threads() == before


@pytest.mark.slow
def test_torch_compile_agrees_at_two_sizes(kept: Path) -> None:
    """In a process of its own: the compiler warns about itself, and leaves threads behind."""
    if reason := available()["compile"]:
        pytest.skip(reason)
    code = """
import sys, torch
from helpers.small import shallow
import fastvit
model = shallow()  # each further stage would take the compiler as long again
run = fastvit.engine(model, "compile", threads=1)
for shape in ((1, 3, 64, 64), (2, 3, 40, 72)):
    images = torch.randn(shape)
    print(float((run(images) - model(images)).abs().max() / model(images).abs().max()))
"""
    arguments = [sys.executable, "-c", code, str(TESTS)]
    ran = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert len(ran.stdout.split()) == 2 and all(float(error) < 1e-5 for error in ran.stdout.split())


def test_threads_that_come_first_share_one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    import openvino

    from fastvit.deploy import openvino_runtime

    monkeypatch.setattr(openvino_runtime, "_made", [])
    monkeypatch.setattr(openvino, "Core", lambda: time.sleep(0.2) or made.append(object()) or made[-1])
    made: list[object] = []
    with ThreadPoolExecutor(4) as pool:
        given = [waited.result() for waited in [pool.submit(openvino_runtime.core) for _ in range(4)]]
    assert len(made) == 1 and given == made * 4


@pytest.mark.slow
def test_a_signal_after_engines_are_gone_is_heard(kept: Path) -> None:
    """Each core of OpenVINO lends its thread a stack for signals, and two that go in turn leave one that is gone."""
    code = """
import os, signal, torch
from fastvit import engine
from helpers.small import shallow
first, second = (engine(shallow(), "openvino") for _ in range(2))
first(torch.randn(1, 3, 32, 32)), second(torch.randn(1, 3, 32, 32))
del first
del second
heard = []
signal.signal(signal.SIGUSR1, lambda *_: heard.append("heard"))
os.kill(os.getpid(), signal.SIGUSR1)
print(*heard)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=TESTS, check=True)
    assert ran.stdout == "heard\n"
