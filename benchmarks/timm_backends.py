"""What timm's users do with the same model on a CPU, and with other models of timm's: backends for races."""

import os
import tempfile
from collections.abc import Callable
from typing import Any, cast

import timm
import torch
from torch import Tensor, nn

from fastvit.bench import Backend, backends
from fastvit.bench.backends import Run
from fastvit.deploy.graph import quietly
from fastvit.deploy.openvino_runtime import core, silence
from fastvit.models.fastvit import FastViT
from fastvit.testing import load_or_random
from fastvit.weights.naming import renamed


def timms(subject: backends.Subject, how: str) -> Backend:
    """The model of timm with the same weights; `how` is one of `BACKENDS`."""
    return Backend(f"timm {how}", _timm, {"subject": subject, "how": how})


def peer(subject: backends.Subject, how: str) -> Backend:
    """Any model of timm, with the random weights it starts with; `how` is one of `BACKENDS`."""
    return Backend(how, _peer, {"subject": subject, "how": how})


def timm_twin(model: FastViT) -> nn.Module:
    """The model of timm with the weights of `model`."""
    variant = model.pretrained_cfg["architecture"]
    name = "fastvit_mci3" if variant == "fastvithd" else variant  # what timm calls it
    theirs = timm.create_model(name, num_classes=model.num_classes, in_chans=model.in_chans).eval()
    theirs.load_state_dict(renamed(model, model.state_dict(), "timm"), strict=True)
    return cast("nn.Module", theirs)


def _timm(subject: backends.Subject, how: str) -> Run:
    model = load_or_random(subject.model)
    return BACKENDS[how](timm_twin(model), backends.images(subject, model.in_chans), subject.threads)


def _peer(subject: backends.Subject, how: str) -> Run:
    torch.manual_seed(0)
    return BACKENDS[how](timm.create_model(subject.model).eval(), backends.images(subject, 3), subject.threads)


def _unfused(model: nn.Module, pixels: Tensor, threads: int) -> Run:
    return backends.plain(model, pixels)


def _reparameterized(model: nn.Module, pixels: Tensor, threads: int) -> Run:
    return backends.plain(_fused_by_timm(model), pixels)


def _compiled(model: nn.Module, pixels: Tensor, threads: int) -> Run:
    return backends.plain(cast("nn.Module", torch.compile(_fused_by_timm(model))), pixels)


def _onnxruntime(model: nn.Module, pixels: Tensor, threads: int) -> Run:
    """The exporter of torch for the one size, as timm's documentation advises, and ONNX Runtime with its defaults."""
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


BACKENDS: dict[str, Callable[[Any, Tensor, int], Run]] = {
    "unfused": _unfused,
    "reparameterized": _reparameterized,
    "compiled": _compiled,
    "onnxruntime": _onnxruntime,
    "openvino float32": _openvino("f32"),
    "openvino bfloat16": _openvino("bf16"),
}
