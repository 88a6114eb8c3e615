"""What int8 costs in accuracy, and which of nncf's settings matter: the CIFAR-10 weights, and a model at random.

    python benchmarks/int8.py cifar10                    all test images; rewrites its tables in benchmarks/README.md
    python benchmarks/int8.py cifar10 --images 2000      an even choice of them, printed only

Each row but the last has one setting more than the one before; the last is what `deploy.quantize` does, which has all.
Of the model at random every branch counts and channels differ widely, as they may after folding; it has no accuracy.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from readme import write_section
from results import heading, markdown, page, parsed, surroundings
from torch import Tensor

import fastvit
from fastvit.data import LabelledImages, open_source
from fastvit.deploy.graph import as_onnx, as_openvino, program
from fastvit.deploy.lowering import lower
from fastvit.deploy.openvino_runtime import core
from fastvit.deploy.quantize import int8_layers, quantize, quietly_nncf
from fastvit.deploy.sensitivity import decibels, layer_errors
from fastvit.utils.sampling import evenly

CALIBRATION = 300  # training images
WORST = 12  # layers to be shown
BATCH = 100
ROWS = ("one scale for a whole weight", "nncf's defaults: one for each channel", "and zero points", "and whole ranges")
OURS = "ours: and sums, gates, norms and the first layer left out"


def settings(row: str) -> dict[str, Any]:
    """What to tell nncf for each of `ROWS`."""
    with quietly_nncf() as nncf:
        steps = ROWS.index(row)
        advanced = nncf.AdvancedQuantizationParameters()
        if steps == 0:
            advanced.weights_quantization_params = nncf.quantization.advanced_parameters.QuantizationParameters(
                per_channel=False
            )
        if steps >= 3:
            ranges = nncf.quantization.range_estimator.RangeEstimatorParametersSet.MINMAX
            advanced.activations_range_estimator_params = ranges
        return {"advanced_parameters": advanced} | ({"preset": nncf.QuantizationPreset.MIXED} if steps >= 2 else {})


def naively(graph: Any, images: Tensor, row: str) -> Any:
    """`graph`, of OpenVINO or ONNX, as nncf quantizes it one image at a time, with the settings of a row."""
    with quietly_nncf() as nncf:
        data = nncf.Dataset([{"images": image.numpy()} for image in images.split(1)])
        return nncf.quantize(graph, data, subset_size=len(images), **settings(row))


def openvino_run(graph: Any, precision: str = "float32") -> Callable[[Tensor], Tensor]:
    """Images -> logits; what is not in int8 in bfloat16 where it is asked for and the processor computes in it."""
    computes_in = core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    hint = "bf16" if precision != "float32" and "BF16" in computes_in else "f32"
    compiled = core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": hint})
    return lambda images: torch.from_numpy(compiled([images.numpy()])[0].copy())


def onnxruntime_run(graph: Any) -> Callable[[Tensor], Tensor]:
    """Images -> logits."""
    import onnxruntime

    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def logits(run: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    return torch.cat([run(part) for part in images.split(BATCH)])


def chosen(images: LabelledImages, number: int) -> tuple[Tensor, Tensor]:
    """(N, 3, H, W) and (N): so many images, or all there are, from all classes alike."""
    tensors, labels = zip(*(images[index] for index in evenly(number, len(images))), strict=True)
    return torch.stack(tensors), torch.tensor(labels)


def variants(model: fastvit.FastViT, calibration: Tensor) -> Iterator[tuple[str, str, Callable[[Tensor], Tensor]]]:
    """(row, runtime, images -> logits): float32 first. All rows begin with the same graph, as nncf changes a copy."""
    exported, outputs = program(model)
    layers = int8_layers(lower(model))
    for runtime, convert, run in (("OpenVINO", as_openvino, openvino_run), ("ONNX Runtime", as_onnx, onnxruntime_run)):
        graph = convert(exported, outputs)
        yield "float32", runtime, run(graph)
        options = {"precision": "int8"} if runtime == "OpenVINO" else {}
        for row in ROWS:
            yield row, runtime, run(naively(graph, calibration, row), **options)
        yield OURS, runtime, run(quantize(graph, calibration, layers), **options)


def signal_to_noise(expected: Tensor, given: Tensor) -> float:
    """In dB; the signal is what differs from image to image."""
    signal = (expected - expected.mean(0)).double().square().sum()
    return decibels(float((given - expected).double().square().sum() / signal))


def accuracy(model: fastvit.FastViT, calibration: Tensor, images: Tensor, labels: Tensor) -> list[list[str]]:
    lines, expected = [], torch.empty(0)
    for row, runtime, run in variants(model, calibration):
        given = logits(run, images)
        if row == "float32":
            expected = given
        top1, best = (100 * float((x.argmax(1) == labels).double().mean()) for x in (given, expected))
        same = 100 * float((given.argmax(1) == expected.argmax(1)).double().mean())
        noise = "" if row == "float32" else f"{signal_to_noise(expected, given):.1f}"
        lines.append([row, runtime, f"{top1:.2f}", f"{best - top1:+.2f}" if noise else "", f"{same:.2f}", noise])
        print(" | ".join(lines[-1]), flush=True)
    return lines


def at_random(calibration: Tensor, images: Tensor) -> list[list[str]]:
    """The signal to noise of a model whose channels differ widely."""
    from fastvit.testing import randomize

    model, generator = fastvit.create_model("fastvit_t8", num_classes=10), torch.Generator().manual_seed(0)
    randomize(model)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            spread = torch.randn(module.weight.shape, generator=generator) / 2
            module.weight.data *= spread.exp()
    lines = []
    runs = variants(model.eval(), calibration)
    for row, runtime, run in runs:
        given = logits(run, images)
        if row == "float32":
            expected = given
            continue
        lines.append([row, runtime, f"{signal_to_noise(expected, given):.1f}"])
        print(" | ".join(lines[-1]), flush=True)
    return lines


def worst_layers(model: fastvit.FastViT, images: Tensor) -> str:
    report = layer_errors(model, images)
    rows = sorted(report.layers, key=lambda layer: layer.alone, reverse=True)[:WORST]
    total = sum(layer.alone for layer in report.layers)
    cells = [
        [layer.name, layer.kind, f"{100 * layer.alone / total:.1f}"]
        + [f"{decibels(noise):.1f}" for noise in (layer.alone, layer.weight, layer.input, layer.so_far)]
        for layer in rows
    ]
    kept = ", ".join(report.sensitive()) or "none"
    table = markdown(("layer", "kind", "share, %", "alone", "weight", "input", "so far"), cells)
    return f"{table}\n\nTo be kept: {kept}."


def main() -> None:
    parser = page(__doc__)
    parser.add_argument("data", type=Path, help="the folder with train/CLASS/*.jpg and test/CLASS/*.jpg")
    parser.add_argument("--images", type=int, default=10**9, help="number of test images, evenly chosen (default: all)")
    options = parsed(parser)
    model = fastvit.load("fastvit_t8.cifar10")
    calibration, _ = chosen(LabelledImages(open_source(options.data, "train"), model.preprocess), CALIBRATION)
    images, labels = chosen(LabelledImages(open_source(options.data, "test"), model.preprocess), options.images)
    row, noise = ("weights and activations", "runtime"), "signal to noise, dB"
    head = (*row, "top-1, %", "loss", "same class, %", noise)
    text = "\n\n".join(
        [
            heading(surroundings()),
            f"fastvit_t8.cifar10, {len(images):,} test images, {len(calibration)} others to calibrate with:",
            markdown(head, accuracy(model, calibration, images, labels)),
            "fastvit_t8 with random weights and widely differing channels, the first 256 of these images:",
            markdown((*row, noise), at_random(calibration, images[:256])),
            f"The {WORST} layers of fastvit_t8.cifar10 that bring the most noise, in dB of signal to noise:",
            worst_layers(model, calibration[:64]),
        ]
    )
    print(text)
    if options.whole:
        write_section(options.readme, Path(__file__).name, text)


if __name__ == "__main__":
    main()
