"""Which engine: by name, or the one that is measured to be the fastest here."""

import logging
import shutil
from collections.abc import Collection, Sequence
from dataclasses import replace
from math import inf
from os import environ

import torch
from torch import Tensor, nn

from ...checkpoint import loaded
from ...images.preprocess import SMALLEST
from ...models.fastvit import FastViT
from ...models.given import require_eval_mode
from ...utils.copies import duplicate
from ...utils.devices import describe_machine
from ...utils.extras import missing
from ...utils.text import either, one_line
from ...utils.timing import timer
from ...utils.warning import warn
from ...weights.source import Source
from ..graph import example, first_convolution
from ..lowering import unobserved
from . import cache
from .builders import ENGINES
from .engine import TOLERANCE, Engine, EngineError, Request, raising

LOG = logging.getLogger("fastvit")
SECONDS = 2.0  # that "auto" measures each candidate for, once it is ready
RUNTIMES = {name: kind.packages for name, kind in ENGINES.items() if kind.packages}  # of the CPU alone
CANDIDATES = ("torch", "onnxruntime", "openvino")  # torch.compile takes a minute to be ready: by name only


def engine(
    model: nn.Module | Source,
    name: str = "auto",
    *,
    precision: str = "float32",
    threads: int | None = None,
    input_size: tuple[int, int] | None = None,
    calibration: Tensor | None = None,
    keep: Collection[str] = (),
) -> Engine:
    """`model` as something that runs fast: images (B, in_chans, H, W) -> what the model gives, in float32.

    The model, a FastViT or what has one in it, is fused in a copy. The first call compares with eager torch in float32;
    they may differ by 1e-4 of the largest output, in float16 1e-2, in bfloat16 5e-2, in int8 0.5. Any batch and size
    from 32 up will do; several threads may call at once. Converted models are kept in the folder that FASTVIT_CACHE
    names, or in the user's cache folder (on Linux ~/.cache/fastvit).

    Args:
        model: in eval mode, on the CPU ("torch" and "compile" run elsewhere too), or what `fastvit.load` reads.
        name: "torch", "compile" (torch.compile), "onnxruntime", "openvino", or "auto": the fastest of those installed,
            but "compile", for one image; measured for two seconds each, and remembered. `Engine.chosen` says why.
        precision: "float32", "bfloat16", "float16" or "int8"; not every engine has every one.
        threads: of the CPU; None leaves it to the library.
        input_size: (height, width) that "compile" and "openvino" compile ahead for, and "auto" is measured at.
        calibration: for int8 alone, images (N, in_chans, H, W) as the model will see; some hundreds.
        keep: for int8 alone, layers or blocks such as "stages.3.blocks.0" that are not quantized, since it hurts them:
            those that `deploy.sensitivity.layer_errors(model, images).sensitive()` names, for example.

    Raises:
        ValueError: an argument out of its range, or a model in train mode.
        EngineError: a package that is not installed, an engine without that precision, or one that fails.

    Example:
        >>> import fastvit, torch
        >>> run = fastvit.engine(fastvit.load("fastvit_t8.cifar10"), "torch")
        >>> run(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 10])
    """
    check_options(name, precision, calibration, keep)
    model = loaded(model)
    request = Request(precision=precision, threads=threads, input_size=input_size, calibration=calibration, keep=keep)
    require_eval_mode(model, "run a model")
    with torch.inference_mode(False), torch.no_grad():  # where it is on, copies could not be traced
        model = duplicate(model).float()
        return _fastest(model, request) if name == "auto" else _built(model, name, request)


def available() -> dict[str, str]:
    """Each engine's name, and why it cannot be used here: "" if it can.

    Example:
        >>> from fastvit.deploy.engines import available
        >>> available()["torch"]
        ''
    """
    compiler = any(map(shutil.which, (environ.get("CXX") or "c++", "g++", "clang++", "cl")))
    reasons = {"compile": "" if compiler else "torch.compile needs a C++ compiler; install one, such as g++"}
    for name, packages in RUNTIMES.items():
        absent = ", ".join(missing(*packages))
        reasons[name] = f'needs {absent}; run: pip install "fastvit[{name}]"' if absent else ""
    return {name: reasons.get(name, "") for name in ENGINES}


def check_options(name: str, precision: str, calibration: object, keep: Collection[str]) -> None:
    """Refuse what cannot be asked of an engine, whatever the model: for arguments and errors see `engine`."""
    if name not in ("auto", *ENGINES):
        raise ValueError(f"engine {name!r}, expected one of auto, {', '.join(ENGINES)}")
    if precision not in TOLERANCE:
        raise ValueError(f"precision {precision!r}, expected one of {', '.join(TOLERANCE)}")
    if precision == "int8" and calibration is None:
        raise ValueError("precision int8 needs images to calibrate with: give some as calibration")
    if precision != "int8" and (calibration is not None or keep):
        given = "calibration" if calibration is not None else "keep"
        raise ValueError(f"{given} is for precision int8, and it is {precision}: leave it out")
    if name != "auto" and precision not in ENGINES[name].precisions:
        having = either(other for other, kind in ENGINES.items() if precision in kind.precisions)
        raise EngineError(f"{name} has no {precision}: choose {either(ENGINES[name].precisions)}, or engine {having}")


def _built(model: nn.Module, name: str, request: Request) -> Engine:
    if reason := available()[name]:
        raise EngineError(f"{name} {reason}")
    device = first_convolution(model).weight.device
    if name in RUNTIMES and device.type != "cpu":
        raise EngineError(f"{name} runs on the CPU and the model is on {device}: give it model.cpu()")
    seen = unobserved(model, example(model, 1, SMALLEST, SMALLEST)) if name in RUNTIMES else model
    if request.threads is not None and device.type != "cpu":
        warn(f"threads is of the CPU, and the model is on {device}: it changes nothing")
    with raising(EngineError, name, ValueError, OSError):
        run = ENGINES[name].build(seen, request)
    return Engine(name, request, run, model)


def _fastest(model: nn.Module, request: Request) -> Engine:
    """The one remembered, if it still agrees with eager torch; else the fastest of those that agree."""
    size = request.input_size or _own_size(model)
    request = replace(request, input_size=size)
    on_cpu = first_convolution(model).weight.device.type == "cpu"
    reasons, candidates = available(), CANDIDATES if on_cpu else ("torch",)
    names = [name for name in candidates if not reasons[name] and request.precision in ENGINES[name].precisions]
    asked = (names, size, request.precision, request.threads)
    key = cache.key_of("auto", describe_machine(), cache.structure_of(model), *asked)
    images = example(model, 1, *size).float()
    record = cache.remembered(key) or {}
    if record.get("name") in names:
        try:
            best = _built(model, record["name"], request)
            best(images)
            best.chosen = str(record.get("why"))
            return best
        except Exception as error:  # whatever it was, the others may do
            LOG.warning("%s; measuring anew", one_line(error))
    best = _measured(model, request, names, images)
    LOG.info("%s", best.chosen)
    cache.remember(key, {"name": best.name, "why": best.chosen})
    return best


def _measured(model: nn.Module, request: Request, names: Sequence[str], images: Tensor) -> Engine:
    """The fastest of these engines for `images`; an EngineError if none of them runs."""
    best, fastest, results = None, inf, []
    for name in names:
        try:
            seconds = _seconds(candidate := _built(model, name, request), images)
        except Exception as error:  # whatever a runtime dislikes, the others may do
            results.append(f"{name} {one_line(error)[:300]}")
            continue
        results.append(f"{name} {1000 * seconds:.1f} ms")
        if seconds < fastest:
            best, fastest = candidate, seconds
    measured = ", ".join(results)
    if best is None:
        raise EngineError(f"no engine runs this model in {request.precision}: {measured or 'none is installed'}")
    height, width = images.shape[2:]
    best.chosen = f"{best.name}, the fastest for one image of {height} x {width} in {request.precision}: {measured}"
    return best


def _own_size(model: nn.Module) -> tuple[int, int]:
    """(height, width) that the weights are for."""
    for module in model.modules():
        if isinstance(module, FastViT):
            _, height, width = module.pretrained_cfg["input_size"]
            return height, width
    raise ValueError(f"{type(model).__name__}: there is no FastViT in it, so say input_size=(height, width)")


def _seconds(candidate: Engine, images: Tensor) -> float:
    """The median of single calls, measured for `SECONDS`, after one that compares."""
    candidate(images)
    return timer(lambda: candidate(images)).blocked_autorange(min_run_time=SECONDS).median
