"""Which engine: by name, or the one that is measured to be the fastest here."""

from __future__ import annotations

import copy
import logging
import shutil
import statistics
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from os import environ

import torch
from torch import Tensor, nn

from ...models.fastvit import FastViT
from ..graph import check_size, example, first_convolution
from . import cache
from .engine import TOLERANCE, Engine, EngineError, Run, Wanted, failure

LOG = logging.getLogger("fastvit")
SECONDS = 2.0  # that "auto" measures each candidate for, once it is ready
BUILD = {  # engine: the module that builds it, and its function
    "torch": ("pytorch", "build"),
    "compile": ("pytorch", "build_compiled"),
    "onnxruntime": ("onnxruntime", "build"),
    "openvino": ("openvino", "build"),
}
CANDIDATES = ("torch", "onnxruntime", "openvino")  # torch.compile takes a minute to be ready: by name only


def engine(
    model: nn.Module,
    name: str = "auto",
    *,
    precision: str = "float32",
    threads: int | None = None,
    input_size: tuple[int, int] | None = None,
    calibration: Tensor | None = None,
    keep: Collection[str] = (),
) -> Engine:
    """`model` as something that runs fast: images (B, in_chans, H, W) -> what the model gives, in float32.

    The model, a FastViT or what `features_only` gives, is fused in a copy; it is left untouched. The first call
    compares with eager torch in float32, and raises if they differ by more than `engines.parity.TOLERANCE` of the
    largest output: 1e-4 in float32, 1e-2 in float16, 5e-2 in bfloat16, 0.5 in int8. Any height and width from 32 up and
    any batch will do, and several threads may call at once. Converted networks are kept on disk (`engines.cache`).

    Args:
        model: in eval mode, on the CPU; "torch" and "compile" run on other devices too.
        name: "torch", "compile" (torch.compile), "onnxruntime", "openvino", or "auto": the fastest of those installed
            (but "compile") on one image of `input_size`, each measured for two seconds. What was found is remembered
            for this machine; `Engine.chosen` says what and why.
        precision: "float32", "bfloat16", "float16" or "int8"; not every engine has every one.
        threads: of the processor; None leaves it to the library.
        input_size: (height, width) to be compiled ahead for, and what "auto" measures; by default the weights' own
            for "auto", and none for the others.
        calibration: for int8 alone, images (N, in_chans, H, W) as the model will see; some hundreds.
        keep: for int8 alone, layers or blocks such as "stages.3.blocks.0" that are not quantized, since it hurts them:
            those that `layer_errors.layer_errors(model, images).sensitive()` names, for example.

    Raises:
        ValueError: an argument out of its range, or a model in train mode.
        EngineError: a package that is not installed, an engine without that precision, or one that fails.
    """
    wanted = Wanted(
        precision=precision, threads=threads, input_size=input_size, calibration=calibration, keep=tuple(sorted(keep))
    )
    _check(model, name, wanted)
    with torch.inference_mode(False), torch.no_grad():  # where it is on, copies could not be traced
        model = copy.deepcopy(model).float()
        return _fastest(model, wanted) if name == "auto" else _built(model, name, wanted)


def available() -> dict[str, str]:
    """Each engine's name, and why it cannot be used here: "" if it can."""
    compiler = any(map(shutil.which, (environ.get("CXX") or "c++", "g++", "clang++", "cl")))
    missing = {"compile": "" if compiler else "torch.compile needs a C++ compiler; install one, such as g++"}
    for package, needed in {"onnxruntime": ("onnxruntime", "onnx", "onnxscript"), "openvino": ("openvino",)}.items():
        absent = [module for module in needed if find_spec(module) is None]
        missing[package] = f'needs {", ".join(absent)}; run: pip install "fastvit[{package}]"' if absent else ""
    return {name: missing.get(name, "") for name in BUILD}


def precisions(name: str) -> tuple[str, ...]:
    """Those that the engine of this name computes in."""
    return tuple(import_module(f".{BUILD[name][0]}", __package__).PRECISIONS)


def _check(model: nn.Module, name: str, wanted: Wanted) -> None:
    if name not in ("auto", *BUILD):
        raise ValueError(f"engine {name!r}, expected one of auto, {', '.join(BUILD)}")
    if wanted.precision not in TOLERANCE:
        raise ValueError(f"precision {wanted.precision!r}, expected one of {', '.join(TOLERANCE)}")
    if wanted.threads is not None and wanted.threads < 1:
        raise ValueError(f"threads is {wanted.threads}, expected 1 or more, or None")
    check_size(wanted.input_size)
    if (wanted.precision == "int8") != (wanted.calibration is not None):
        raise ValueError("int8 needs calibration=images (N, 3, H, W), and no other precision does")
    if wanted.keep and wanted.precision != "int8":
        raise ValueError(f"keep names what is not quantized, and the precision is {wanted.precision}: leave it out")
    if any(module.training for module in model.modules()):
        raise ValueError("cannot run a model in train mode, where batch norm depends on the batch: call model.eval()")


def _built(model: nn.Module, name: str, wanted: Wanted) -> Engine:
    if reason := available()[name]:
        raise EngineError(f"{name} {reason}")
    if wanted.precision not in precisions(name):
        raise EngineError(f"{name} has no {wanted.precision}, expected one of {', '.join(precisions(name))}")
    device = first_convolution(model).weight.device
    if name in ("onnxruntime", "openvino") and device.type != "cpu":
        raise EngineError(f"{name} runs on the processor and the model is on {device}: give it model.cpu()")
    module, function = BUILD[name]
    build: Callable[[nn.Module, Wanted], Run] = getattr(import_module(f".{module}", __package__), function)
    try:
        run = build(model, wanted)
    except (EngineError, ValueError, OSError, MemoryError):
        raise
    except ModuleNotFoundError as error:
        raise EngineError(f"{name}: {error}") from error
    except Exception as error:
        raise EngineError(failure(name, error)) from error
    return Engine(name, wanted, run, model)


def _fastest(model: nn.Module, wanted: Wanted) -> Engine:
    """The one remembered, if it still agrees with eager torch; else the fastest of those that agree."""
    size = wanted.input_size or _own_size(model)
    wanted = replace(wanted, input_size=size)
    here = {name for name, reason in available().items() if not reason}
    names = [name for name in CANDIDATES if name in here and wanted.precision in precisions(name)]
    if first_convolution(model).weight.device.type != "cpu":
        names = [name for name in names if name == "torch"]
    key = cache.key_of(
        "auto", cache.machine(), cache.structure_of(model), names, size, wanted.precision, wanted.threads
    )
    images = example(model, 1, *size).float()
    said = cache.remembered(key)
    if said and said.get("name") in names:
        try:
            chosen = _built(model, said["name"], wanted)
            chosen(images)
            chosen.chosen = str(said.get("why"))
            return chosen
        except Exception as error:  # as below
            LOG.warning("%s; measuring anew", error)
    best, fastest, results = None, float("inf"), dict[str, str]()
    for name in names:
        try:
            candidate = _built(model, name, wanted)
            seconds = _seconds(candidate, images)
        except Exception as error:  # whatever a runtime dislikes, the others may do
            results[name] = " ".join(str(error).split())[:300]
            continue
        results[name] = f"{1000 * seconds:.1f} ms"
        if seconds < fastest:
            best, fastest = candidate, seconds
    measured = ", ".join(f"{name} {result}" for name, result in results.items())
    if best is None:
        raise EngineError(f"no engine runs this model in {wanted.precision}: {measured or 'none is installed'}")
    best.chosen = f"{best.name}, the fastest for one image of {size[0]} x {size[1]} in {wanted.precision}: {measured}"
    LOG.info("%s", best.chosen)
    cache.remember(key, {"name": best.name, "why": best.chosen})
    return best


def _own_size(model: nn.Module) -> tuple[int, int]:
    """(height, width) that the weights are for."""
    for module in model.modules():
        if isinstance(module, FastViT):
            _, height, width = module.pretrained_cfg["input_size"]
            return height, width
    raise ValueError(f"{type(model).__name__}: there is no FastViT in it, so say input_size=(height, width)")


def _seconds(candidate: Engine, images: Tensor) -> float:
    """The median of single calls, measured for `SECONDS`, after two to warm up and check."""
    candidate(images), candidate(images)
    seconds, end = list[float](), time.perf_counter() + SECONDS
    while len(seconds) < 3 or time.perf_counter() < end:
        started = time.perf_counter()
        candidate(images)[-1].cpu()  # a GPU is waited for
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)
