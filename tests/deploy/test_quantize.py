"""int8: what is quantized and how, what it leaves alone, and which layers it hurts."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from helpers.near import assert_near
from helpers.paths import TESTS
from helpers.small import SMALL, small
from torch import Tensor, nn

from fastvit import FastViT, create_model, engine, reparameterize
from fastvit.deploy.graph import as_onnx, as_openvino, program
from fastvit.deploy.lowering import lower
from fastvit.deploy.openvino_runtime import core, silence
from fastvit.deploy.quantize import int8_layers, quantize, quietly_nncf
from fastvit.deploy.sensitivity import LayerError, LayerErrors, decibels, layer_errors, round_input, round_weight
from fastvit.models.layers import SqueezeExcite
from fastvit.testing import randomize

silence()

LAYERS = (nn.Conv2d, nn.Linear)
OPENVINO_LAYERS = ("Convolution", "GroupConvolution", "MatMul")


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def images_of(number: int, height: int, width: int) -> Tensor:
    """Large shapes of different colours, and some noise: what comes out must depend on what goes in."""
    shapes = nn.functional.interpolate(2 * noise(number, 3, 2, 2), (height, width), mode="bilinear")
    return shapes + 0.3 * noise(number, 3, height, width)


IMAGES = images_of(32, 48, 40)


def lively(name: str) -> FastViT:
    """The small model, with weights so large that the signal does not die away before the end.

    fastvit_mci0 has gates and GELU after downsampling, and here attention after layer norm.
    """
    config = replace(SMALL[name], attention_norm="layer")
    model = randomize(FastViT(config)).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.weight *= 1.5
    return model


@cache
def traced(name: str) -> tuple[torch.export.ExportedProgram, list[str]]:
    return program(lively(name))


@cache
def converted(runtime: str, name: str) -> Any:
    """The graph of `lively(name)`, to be left as it is."""
    return RUNTIMES[runtime][0](*traced(name))


@cache
def quantized(runtime: str, name: str) -> Any:
    return quantize(converted(runtime, name), IMAGES, layers(name))


def layers(name: str, keep: Sequence[str] = ()) -> Collection[str]:
    """Those of `lively(name)` that are to be quantized."""
    return int8_layers(lower(lively(name)), keep)


@cache
def report(name: str) -> LayerErrors:
    return layer_errors(lively(name), IMAGES)


def ratio(given: Tensor, expected: Tensor) -> float:
    """Noise to signal, as powers."""
    return float((given - expected).square().sum() / (expected - expected.mean(0)).square().sum())


def fused_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers that int8 is for: all but the first and those of the gates."""
    fused = reparameterize(model)
    gates = {name for name, module in fused.named_modules() if isinstance(module, SqueezeExcite)}
    return {
        name: module
        for name, module in fused.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and name.rpartition(".")[0] not in gates and "stem.0" not in name
    }


def graph_shapes(layer: nn.Module) -> list[tuple[int, ...]]:
    """Of the layer's weights in a graph, where two outputs for each channel are two convolutions."""
    multiple = layer.out_channels // layer.groups if isinstance(layer, nn.Conv2d) and layer.groups > 1 else 1
    return [(layer.weight.shape[0] // multiple, *layer.weight.shape[1:])] * multiple


def openvino_scales(graph: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """(weight, scales) of each layer with an int8 weight."""
    found = []
    for op in graph.get_ordered_ops():
        if op.get_type_name() in OPENVINO_LAYERS:
            multiply = op.input_value(1).get_node()
            if multiply.get_type_name() == "Multiply":
                convert, scale = (multiply.input_value(index).get_node() for index in (0, 1))
                constant = convert.input_value(0).get_node()
                assert constant.get_element_type().to_string() == "i8"
                found.append((constant.data, scale.data))
    return found


def onnx_scales(graph: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """(weight, scales) of each layer with an int8 weight, the channels first."""
    from onnx.numpy_helper import to_array

    constants = {tensor.name: to_array(tensor) for tensor in graph.graph.initializer}
    found = []
    for node in graph.graph.node:
        weight = constants.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if weight is not None and weight.ndim > 1:
            axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
            found.append((np.moveaxis(weight, axis, 0), constants[node.input[1]]))
    return found


def openvino_outputs(graph: Any, images: Tensor) -> Tensor:
    compiled = core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return torch.from_numpy(compiled([images.numpy()])[0].copy())


def onnx_outputs(graph: Any, images: Tensor) -> Tensor:
    import onnxruntime

    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


RUNTIMES: dict[str, tuple[Callable[..., Any], ...]] = {
    "openvino": (as_openvino, openvino_scales, openvino_outputs),
    "onnx": (as_onnx, onnx_scales, onnx_outputs),
}
both = pytest.mark.parametrize("runtime", RUNTIMES)


def multiplies_bytes() -> bool:
    """Whether the processor adds products of bytes in 32 bits; older ones do in 16, where the sums overflow."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return True  # not Linux: nothing is known
    return "vnni" in flags or "flags" not in flags


on_newer_processors = pytest.mark.skipif(
    not multiplies_bytes(), reason="without VNNI, sums of products of bytes overflow in the runtimes"
)


@on_newer_processors
@both
@pytest.mark.parametrize("name", ["fastvit_t8", pytest.param("fastvit_mci0", marks=pytest.mark.slow)])
@torch.no_grad()
def test_all_layers_but_the_first_and_those_of_gates_are_in_int8_with_a_scale_for_each_channel(
    name: str, runtime: str
) -> None:
    graph, model = quantized(runtime, name), lively(name)
    _, scales_of, outputs = RUNTIMES[runtime]
    given = scales_of(graph)
    assert sorted((scales.size, weight.size) for weight, scales in given) == sorted(
        (shape[0], math.prod(shape)) for layer in fused_layers(model).values() for shape in graph_shapes(layer)
    )
    largest = [np.abs(weight.astype(int)).reshape(len(weight), -1).max(1) for weight, _ in given]
    assert all(weight.dtype == np.int8 for weight, _ in given)
    assert {127} == {int(steps) for each in largest for steps in each}  # the whole range, in each channel
    assert ratio(outputs(graph, IMAGES), model(IMAGES)) < 0.02
    assert outputs(graph, images_of(3, 75, 64)).shape == model(images_of(3, 75, 64)).shape


def weights_of(graph: Any) -> dict[str, np.ndarray]:
    """Module: the values of its weight, in order, which converters may turn round or fold an axis into."""
    if isinstance(graph, onnx.ModelProto):
        constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
        named = {node.name: constants.get(node.input[1]) for node in graph.graph.node if len(node.input) > 1}
    else:
        layers = [op for op in graph.get_ops() if op.get_type_name() in OPENVINO_LAYERS]
        named = {op.get_friendly_name().partition("/")[0]: op.input_value(1).get_node() for op in layers}
        named = {name: node.data if node.get_type_name() == "Constant" else None for name, node in named.items()}
    return {name: np.sort(weight, axis=None) for name, weight in named.items() if weight is not None}


@both
@pytest.mark.parametrize("name", ["fastvit_t8", pytest.param("fastvit_mci0", marks=pytest.mark.slow)])
def test_a_graphs_layers_bear_the_names_of_their_modules(name: str, runtime: str) -> None:
    found = weights_of(converted(runtime, name))
    modules = {key: module for key, module in lower(lively(name)).named_modules() if isinstance(module, LAYERS)}
    assert modules.keys() <= found.keys()
    for key, module in modules.items():
        assert np.array_equal(found[key], module.weight.detach().flatten().sort().values.numpy()), key


@pytest.mark.usefixtures("small_variants")
def test_a_graphs_input_is_called_images_whatever_the_model_calls_it() -> None:
    graph = as_openvino(*program(create_model("fastvit_t8", features_only=True, out_indices=(0, 1)).eval()))
    names = [[port.any_name for port in ports] for ports in (graph.inputs, graph.outputs)]
    assert names == [["images"], ["map0", "map1"]]


@torch.no_grad()
def test_int8_is_nearer_to_float32_than_with_nncfs_defaults() -> None:
    graph, exact = converted("openvino", "fastvit_t8"), lively("fastvit_t8")(IMAGES)
    with quietly_nncf() as nncf:
        naive = nncf.quantize(graph, nncf.Dataset([{"images": image[None].numpy()} for image in IMAGES]))
    theirs, ours = (openvino_outputs(each, IMAGES) for each in (naive, quantized("openvino", "fastvit_t8")))
    assert 2 * ratio(ours, exact) < ratio(theirs, exact)


@both
def test_nothing_but_layers_reads_int8(runtime: str) -> None:
    graph = quantized(runtime, "fastvit_mci0")
    moved = {"Reshape", "Transpose", "Concat", "Unsqueeze", "Squeeze"}  # on its way to a layer
    if runtime == "openvino":
        reached = [op for op in graph.get_ops() if op.get_type_name() == "FakeQuantize"]
        readers = set()
        while reached:
            for port in reached.pop().output(0).get_target_inputs():
                if port.get_node().get_type_name() in moved:
                    reached.append(port.get_node())
                readers.add(port.get_node().get_type_name())
        assert readers - moved == set(OPENVINO_LAYERS)
    else:
        made = {output for node in graph.graph.node if node.op_type == "DequantizeLinear" for output in node.output}
        layers = [node for node in graph.graph.node if made.intersection(node.input) and node.op_type not in moved]
        readers = {node.op_type for node in layers}
        constants = {tensor.name for tensor in graph.graph.initializer}
        weights = {node.output[0] for node in graph.graph.node if constants.issuperset(node.input)}
        assert all(node.input[1] in weights for node in layers)  # and none a product of attention
        assert readers == {"Conv", "Gemm", "MatMul"}


@both
@pytest.mark.parametrize("keep", [["stem"], ["stages.3.blocks.1", "head.fc", "stages.1.downsample.0.conv"]])
def test_what_is_kept_keeps_its_weights(keep: list[str], runtime: str) -> None:
    _, scales_of, _ = RUNTIMES[runtime]
    model = lively("fastvit_mci0")
    sizes = [weight.size for weight, _ in scales_of(quantized(runtime, "fastvit_mci0"))]
    for weight, _ in scales_of(quantize(converted(runtime, "fastvit_mci0"), IMAGES, layers("fastvit_mci0", keep))):
        sizes.remove(weight.size)
    blocks = tuple(f"{name}." for name in keep)
    kept = [layer for name, layer in fused_layers(model).items() if f"{name}.".startswith(blocks)]
    assert kept and sorted(sizes) == sorted(math.prod(shape) for layer in kept for shape in graph_shapes(layer))


@both
@torch.no_grad()
def test_the_same_images_give_the_same_graph_and_the_argument_is_untouched(runtime: str) -> None:
    _, scales_of, outputs = RUNTIMES[runtime]
    graph = converted(runtime, "fastvit_t8")
    first, second = quantized(runtime, "fastvit_t8"), quantize(graph, IMAGES, layers("fastvit_t8"))
    for a, b in zip(scales_of(first), scales_of(second), strict=True):
        assert all(np.array_equal(*pair) for pair in zip(a, b, strict=True))
    assert torch.equal(outputs(first, IMAGES), outputs(second, IMAGES))
    assert not scales_of(graph)
    assert_near(outputs(graph, IMAGES), lively("fastvit_t8")(IMAGES), 1e-5)


@torch.no_grad()
def test_a_range_holds_the_values_of_all_the_images_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastvit.deploy.quantize.PIXELS", 5 * 48 * 40)
    images = IMAGES.clone()
    images[-1, 0, 5, 5] = 40.0  # of which any average or quantile would know nothing
    graph = quantize(converted("openvino", "fastvit_t8"), images, layers("fastvit_t8"))
    first = next(op for op in graph.get_ordered_ops() if op.get_type_name() == "FakeQuantize")
    low, high = (first.input_value(index).get_node().data.ravel() for index in (1, 2))
    stem = lively("fastvit_t8").stem
    expected = stem[0](images).amax((0, 2, 3)).numpy()
    assert high.shape == low.shape == expected.shape
    # A little more than the range, so that 0 is a step; GELU's least value is -0.17 and its steps are at most 0.07.
    assert (expected * 0.999 <= high).all() and (high <= expected * 1.2).all() and (np.abs(low + 0.18) < 0.02).all()


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (noise(7, 3, 64, 64), "^7 images to calibrate with, expected 8 or more"),
        (noise(0, 3, 64, 64), r"are \(0, 3, 64, 64\), expected \(B, 3, H, W\)"),
        (noise(8, 1, 64, 64), r"are \(8, 1, 64, 64\), expected \(B, 3, H, W\)"),
        (noise(3, 64, 64), r"are \(3, 64, 64\), expected"),
        (noise(8, 3, 64, 31), "H and W from 32 up"),
        (noise(8, 3, 64, 64).log(), "NaN or infinity"),
    ],
)
def test_images_that_cannot_calibrate_are_refused(
    images: Tensor, reason: str, runtime: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTVIT_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match=reason):
        engine(small("fastvit_t8"), runtime, precision="int8", calibration=images)
    with pytest.raises(ValueError, match=reason):
        layer_errors(small("fastvit_t8"), images)


@pytest.mark.parametrize("form", [reparameterize, lower])
def test_a_name_that_is_no_layers_is_refused(form: Callable[[nn.Module], nn.Module]) -> None:
    with pytest.raises(ValueError, match=r"stages.9, ste: no layer or block of the model; stem.0.conv is one"):
        int8_layers(form(lively("fastvit_t8")), ["stem", "stages.9", "ste"])


def test_without_nncf_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = converted("openvino", "fastvit_t8")
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(ImportError, match=r'^int8 needs nncf; run: pip install "fastvit\[int8\]"$'):
        quantize(graph, IMAGES, layers("fastvit_t8"))


PROGRAM = """
import sys, urllib.request
def refuse(*arguments, **named):
    print("a report was sent", file=sys.stderr)
    raise OSError
urllib.request.urlopen = refuse
import torch
from fastvit import engine, export
from helpers.small import shallow
if sys.argv[2] == "export":  # the first to import openvino
    export(shallow(), sys.argv[1], input_size=(32, 32))
else:
    engine(shallow(), "openvino")
engine(shallow(), "openvino", precision="int8", calibration=torch.randn(8, 3, 32, 32))
from nncf.telemetry.wrapper import telemetry
telemetry.send_event("a", "b", "c")
from concurrent.futures import thread
for running in list(thread._threads_queues): running.join(5)
"""


@pytest.mark.slow
@pytest.mark.parametrize("first", ["export", "engine"])
def test_nothing_is_printed_reported_or_written_to_the_home_folder(first: str, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "NNCF_CI", "NNCF_DEV")}
    environment |= {"HOME": str(tmp_path), "PYTHONPATH": str(TESTS)}
    environment |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "t8.xml"), first],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "" and "a report was sent" not in done.stderr and "nncf" not in done.stderr.lower()
    assert not (tmp_path / "intel").exists()


def test_a_weight_is_rounded_to_whole_steps_of_each_channels_largest() -> None:
    weight = noise(5, 3, 7, 7) * torch.tensor([1e-3, 0.1, 1, 10, 0.0]).view(5, 1, 1, 1)
    given = round_weight(weight)
    for channel, exact in zip(given[:4], weight[:4], strict=True):
        step = exact.abs().max() / 127
        steps = channel / step
        assert_near(steps, steps.round(), 1e-6)
        assert (channel - exact).abs().max() <= step * 0.5001
    assert not given[4].any()


def test_an_input_is_rounded_to_256_steps_and_0_stays_0() -> None:
    x = torch.linspace(-1, 3, 4001)
    low, high = torch.tensor(-0.5), torch.tensor(2.05)
    given = round_input(x, low, high)
    assert len(given.unique()) == 256 and 0.0 in given
    inside = (x > low) & (x < high)
    assert (given - x)[inside].abs().max() <= 0.01 / 2 * 1.01
    assert (given.min() - low).abs() <= 0.005 and (given.max() - high).abs() <= 0.005


@on_newer_processors
@pytest.mark.parametrize("name", ["fastvit_t8", pytest.param("fastvit_mci0", marks=pytest.mark.slow)])
@torch.no_grad()
def test_the_report_foretells_the_noise_of_the_runtime(name: str) -> None:
    model = lively(name)
    assert [layer.name for layer in report(name).layers] == list(fused_layers(model))
    measured = decibels(ratio(openvino_outputs(quantized("openvino", name), IMAGES), model(IMAGES)))
    assert decibels(report(name).whole) == pytest.approx(measured, abs=3)
    assert report(name).layers[-1].so_far == pytest.approx(report(name).whole, rel=0.01)  # both at the classifier's end


@torch.no_grad()
def test_the_layer_that_hurts_most_is_found_and_keeping_it_helps() -> None:
    model = reparameterize(lively("fastvit_t8"))
    before, after = (model.stages[1].downsample[index].conv for index in (0, 1))
    before.weight[0] *= 1000  # the same model, but of what lies between, one channel leaves the others no steps
    before.bias[0] *= 1000
    after.weight[:, 0] /= 1000
    found = layer_errors(model, IMAGES)
    worst = max(found.layers, key=lambda layer: layer.alone)
    assert worst.name == "stages.1.downsample.1.conv" and worst.kind == "1x1" and worst.input > worst.weight
    assert found.sensitive(decibels(worst.alone) + 1)[0] == worst.name
    graph, exact = as_openvino(*program(model)), model(IMAGES)
    everything = ratio(openvino_outputs(quantize(graph, IMAGES, int8_layers(lower(model))), IMAGES), exact)
    kept = quantize(graph, IMAGES, int8_layers(lower(model), [worst.name]))
    assert 5 * ratio(openvino_outputs(kept, IMAGES), exact) < everything


@torch.no_grad()
def test_a_layers_noise_is_what_its_rounding_does_to_the_output() -> None:
    name = "stages.3.blocks.0.mixer.qkv"
    row = next(layer for layer in report("fastvit_mci0").layers if layer.name == name)
    fused = reparameterize(lively("fastvit_mci0"))
    exact, layer = fused(IMAGES).double(), fused.get_submodule(name)
    layer.weight = nn.Parameter(round_weight(layer.weight))
    given = fused(IMAGES).double()
    assert row.weight == pytest.approx(ratio(given, exact), rel=0.01)
    assert row.kind == "linear" and row.input > 0 and row.alone == row.weight + row.input


@torch.no_grad()
def test_the_input_of_a_depthwise_layer_is_rounded_in_each_channels_own_range() -> None:
    row = report("fastvit_t8").layers[0]
    fused = reparameterize(lively("fastvit_t8"))
    exact = fused(IMAGES).double()

    def rounded(layer: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        channels = [x[None] for x in inputs[0].unbind(1)]
        return (
            torch.cat([round_input(x, x.min().clamp(max=0), x.max().clamp(min=0)) for x in channels]).swapaxes(0, 1),
        )

    fused.get_submodule(row.name).register_forward_pre_hook(rounded)
    assert row.kind == "3x3 depthwise" and row.input == pytest.approx(ratio(fused(IMAGES).double(), exact), rel=0.01)


def test_many_images_are_looked_at_part_by_part_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = report("fastvit_t8")
    monkeypatch.setattr("fastvit.deploy.quantize.PIXELS", 5 * 48 * 40)
    parts = layer_errors(lively("fastvit_t8"), IMAGES)
    for a, b in zip(whole.layers, parts.layers, strict=True):
        assert (a.alone, a.so_far) == pytest.approx((b.alone, b.so_far), rel=0.1)


@pytest.mark.usefixtures("small_variants")
def test_the_report_leaves_the_model_as_it_was_and_takes_features_too() -> None:
    model = create_model("fastvit_t8", features_only=True).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = layer_errors(model, noise(8, 3, 32, 32))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert found.layers[0].name.endswith("stem.1.conv") and math.isfinite(found.whole)


@pytest.mark.parametrize("fused", [False, True])
def test_a_model_in_train_mode_is_refused(fused: bool) -> None:
    model = small("fastvit_t8")
    model = (reparameterize(model) if fused else model).train()
    with pytest.raises(ValueError, match="train mode"):
        layer_errors(model, IMAGES)


def row(name: str, noise: float) -> LayerError:
    return LayerError(name, "1x1", noise / 4, noise * 3 / 4, noise)


def test_the_fewest_layers_are_kept() -> None:
    layers = tuple(row(name, share) for name, share in (("a", 1e-3), ("b", 0.3), ("c", 4e-3), ("d", 0.02), ("e", 0.0)))
    made = LayerErrors(images=(8, 3, 64, 64), layers=layers, whole=0.3)
    assert made.sensitive() == ("b", "d")  # what is left, 0.005, is less than 20 dB below the signal
    assert made.sensitive(29) == ("b", "c", "d") and made.sensitive(0) == ()
    assert made.sensitive(math.inf) == ("a", "b", "c", "d")


def test_the_report_prints_a_table_and_is_json() -> None:
    made = LayerErrors(images=(8, 3, 64, 64), layers=(row("stem", 0.03), row("head", 0.01)), whole=0.05)
    lines = str(made).splitlines()
    assert lines[2].split() == ["stem", "1x1", "75.0", "15.2", "21.2", "16.5", "15.2"]
    assert lines[-2:] == ["all in int8: 13.0 dB of signal to noise, images (8, 3, 64, 64)", "better left out: stem"]
    report = json.loads(json.dumps(made.to_dict(), allow_nan=False))
    assert report["layers"][0]["name"] == "stem" and report["sensitive"] == ["stem"] and report["whole"] == 0.05
