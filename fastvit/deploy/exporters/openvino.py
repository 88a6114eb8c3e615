"""OpenVINO's pair of files: the graph in .xml, the weights in .bin."""

from collections import Counter
from pathlib import Path

import torch
from torch import Tensor

from ..graph import as_openvino
from ..openvino_runtime import core, silence
from .deployed import Deployed, Format, Opened


def _write(deployed: Deployed, path: Path) -> None:
    """In float16 the weights alone are: the processor that runs it says what it computes in."""
    silence()
    import openvino

    exported = deployed.traced(dtype="float32")
    made = as_openvino(exported, deployed.outputs)
    for key, value in deployed.metadata.items():
        made.set_rt_info(value, ["fastvit", key])
    openvino.save_model(made, path, compress_to_fp16=deployed.dtype == "float16")


def _open(path: Path) -> Opened:
    """On the CPU and in float32, since its own choice, bfloat16 where there is such a processor, proves little."""
    model = core().read_model(path)
    compiled = core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(images: Tensor) -> list[Tensor]:
        outputs = compiled(images.numpy())
        return [torch.from_numpy(outputs[output].copy()) for output in compiled.outputs]

    return Opened(run, Counter(operation.get_type_name() for operation in model.get_ops()))


FORMAT = Format(
    name="OpenVINO",
    packages=("openvino",),
    extra="openvino",
    write=_write,
    open=_open,
    companion=".bin",
)
