"""The backends that run a model on a CPU: ours, timm's, and plain PyTorch. Each is made in a process of its own.

`Subject` says what is run. A bare variant gets random weights: parameters, statistics and layer scales far from their
initial values, the same in every process, and the same in timm's model, so that all backends must give the same
outputs.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..checkpoint import load
from ..create import list_models
from ..deploy.engines.select import available, precisions
from ..deploy.engines.select import engine as make_engine
from ..deploy.graph import quietly
from ..deploy.openvino_runtime import core
from ..deploy.telemetry import silence
from ..models.fastvit import FastViT
from ..models.reparam import reparameterize
from ..testing import LAYER_SCALE, random_model
from ..weights.naming import renamed
from .racing import Backend

Run = Callable[[], Any]
BY_DEFAULT = ("float32", "bfloat16")  # float16 is no CPU's own; int8 changes what a model predicts
CALIBRATION = 16  # images of noise for int8: for its time, of which they change nothing


@dataclass(frozen=True, slots=True)
class Subject:
    """A model, and the images it is given."""

    source: str  # a variant, a checkpoint's name, a file or a folder; for `peer` a name of timm's
    size: tuple[int, int]  # height and width
    batch: int = 1
    threads: int = 1


def ours(subject: Subject, engine: str, precision: str = "float32") -> Backend:
    """An engine of this package's."""
    name = engine if precision == "float32" else f"{engine} {precision}"
    return Backend(name, _engine, {"subject": subject, "engine": engine, "precision": precision})


def eager(subject: Subject, name: str = "eager", fused: bool = False) -> Backend:
    """Plain PyTorch, as a model runs that was just loaded."""
    return Backend(name, _eager, {"subject": subject, "fused": fused})


def timms(subject: Subject, how: str) -> Backend:
    """Timm's model of the same weights; `how` is one of `TIMM`."""
    return Backend(f"timm {how}", _timm, {"subject": subject, "how": how})


def peer(subject: Subject, how: str) -> Backend:
    """Any model of timm's, with the random weights it starts with; `how` is one of `TIMM`."""
    return Backend(how, _peer, {"subject": subject, "how": how})


def load_or_random(source: str) -> FastViT:
    """What `fastvit.load` reads, or a variant with random weights; in eval mode.

    Raises:
        fastvit.WeightsError: the source is neither, or damaged.
    """
    if source in list_models() and not Path(source).exists():
        return random_model(source, layer_scale=LAYER_SCALE)
    return load(source)


def timm_twin(model: FastViT) -> nn.Module:
    """Timm's model with the weights of `model`."""
    import timm  # slow, and only some backends need it

    variant = model.pretrained_cfg["architecture"]
    name = "fastvit_mci3" if variant == "fastvithd" else variant  # what timm calls it
    theirs = timm.create_model(name, num_classes=model.num_classes, in_chans=model.in_chans).eval()
    theirs.load_state_dict(renamed(model, model.state_dict(), "timm"), strict=True)
    return cast("nn.Module", theirs)


def images(subject: Subject, channels: int) -> Tensor:
    """Noise (batch, channels, height, width), the same in every process."""
    return torch.randn(subject.batch, channels, *subject.size, generator=torch.Generator().manual_seed(0))


def _eager(subject: Subject, fused: bool) -> Run:
    model = load_or_random(subject.source)
    return _plain(reparameterize(model) if fused else model, images(subject, model.in_chans))


def _engine(subject: Subject, engine: str, precision: str) -> Run:
    model = load_or_random(subject.source)
    pixels = images(subject, model.in_chans)
    many = Subject(subject.source, subject.size, batch=CALIBRATION)
    made = make_engine(
        model,
        engine,
        precision=precision,
        threads=subject.threads,
        input_size=subject.size,
        calibration=images(many, model.in_chans) if precision == "int8" else None,
    )
    return lambda: made(pixels)


def _timm(subject: Subject, how: str) -> Run:
    model = load_or_random(subject.source)
    return TIMM[how](timm_twin(model), images(subject, model.in_chans), subject.threads)


def _peer(subject: Subject, how: str) -> Run:
    import timm

    torch.manual_seed(0)
    return TIMM[how](timm.create_model(subject.source).eval(), images(subject, 3), subject.threads)


def _plain(model: nn.Module, pixels: Tensor, threads: int = 0) -> Run:
    def run() -> Any:
        with torch.inference_mode():
            return model(pixels)

    return run


def _reparameterized(model: nn.Module, pixels: Tensor, threads: int) -> Run:
    return _plain(_fused_by_timm(model), pixels)


def _compiled(model: nn.Module, pixels: Tensor, threads: int) -> Run:
    return _plain(cast("nn.Module", torch.compile(_fused_by_timm(model))), pixels)


def _onnxruntime(model: nn.Module, pixels: Tensor, threads: int) -> Run:
    """Torch's exporter for the one size, as timm's documentation advises, and ONNX Runtime with its defaults."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder, quietly():
        file = os.path.join(folder, "model.onnx")
        torch.onnx.export(_fused_by_timm(model), (pixels,), file, dynamo=True, verbose=False)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: pixels.numpy()}
    return lambda: torch.from_numpy(session.run(None, feed)[0])


def _openvino(precision: str) -> Callable[[nn.Module, Tensor, int], Run]:
    """OpenVINO's own conversion for the one size, and its hint for latency."""

    def make(model: nn.Module, pixels: Tensor, threads: int) -> Run:
        silence()
        import openvino

        with torch.no_grad():
            traced = torch.export.export(_fused_by_timm(model), (pixels,))
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": threads,
        }
        compiled = core().compile_model(openvino.convert_model(traced), "CPU", settings)
        request, feed = compiled.create_infer_request(), pixels.numpy()
        return lambda: torch.from_numpy(next(iter(request.infer([feed]).values())))

    return make


def _fused_by_timm(model: nn.Module) -> nn.Module:
    from timm.utils import reparameterize_model

    fused: nn.Module = reparameterize_model(model)
    return fused.eval()


TIMM: dict[str, Callable[[Any, Tensor, int], Run]] = {
    "unfused": _plain,
    "reparameterized": _reparameterized,
    "compiled": _compiled,
    "onnxruntime": _onnxruntime,
    "openvino float32": _openvino("f32"),
    "openvino bfloat16": _openvino("bf16"),
}


def engines(names: tuple[str, ...] = ()) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """(engine, precision) of all that can be used here, or of those named; and of the others, why not.

    Raises:
        ValueError: a name that no engine has.
    """
    reasons = available()
    if unknown := [name for name in names if name not in reasons]:
        raise ValueError(f"engine {unknown[0]!r}, expected one of {', '.join(reasons)}")
    chosen = [name for name in reasons if not names or name in names]
    usable = [
        (name, precision)
        for name in chosen
        if not reasons[name]
        for precision in precisions(name)
        if precision in BY_DEFAULT
    ]
    return usable, {name: reasons[name] for name in chosen if reasons[name]}
