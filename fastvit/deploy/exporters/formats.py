"""The table of formats, and how each but CoreML's is written and opened again."""

import json
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor

from ..engines.onnxruntime import session
from ..engines.openvino import runner
from ..engines.select import RUNTIMES
from ..graph import as_onnx, as_openvino, listed, quietly
from ..openvino_runtime import core, silence
from . import coreml
from .deployed import Deployed, Format, Opened

TORCH_METADATA = "fastvit.json"  # the name under which extra_files has it
EXECUTORCH_METADATA = "fastvit_metadata"  # a method beside "forward", which takes nothing and gives JSON


def _write_onnx(deployed: Deployed, path: Path) -> None:
    import onnx

    made = as_onnx(deployed.traced(dtype=deployed.dtype), deployed.outputs)
    onnx.helper.set_model_props(made, deployed.metadata)
    onnx.save(made, path)


def _open_onnx(path: Path) -> Opened:
    import onnx

    return Opened(session(path), Counter(node.op_type for node in onnx.load(path).graph.node))


def _write_torch(deployed: Deployed, path: Path) -> None:
    """torch.export's own file: for torch.export.load, and for AOTInductor."""
    exported = deployed.traced(dtype=deployed.dtype)
    with quietly():
        torch.export.save(exported, path, extra_files={TORCH_METADATA: json.dumps(deployed.metadata)})


def _open_torch(path: Path) -> Opened:
    with quietly():
        exported = torch.export.load(path)
    module = exported.module()
    targets = [node.target for node in exported.graph.nodes if node.op == "call_function"]
    operations = Counter(  # aten.conv2d.default, or operator.add of two sizes
        str(target) if isinstance(target, torch._ops.OpOverload) else f"operator.{target.__name__}"
        for target in targets
    )
    return Opened(lambda images: listed(module(images)), operations)


def _write_openvino(deployed: Deployed, path: Path) -> None:
    """The graph in .xml, the weights in .bin.

    In float16 the weights alone are: the processor that runs it says what it computes in.
    """
    silence()
    import openvino

    made = as_openvino(deployed.traced(dtype="float32"), deployed.outputs)
    for key, value in deployed.metadata.items():
        made.set_rt_info(value, ["fastvit", key])
    openvino.save_model(made, path, compress_to_fp16=deployed.dtype == "float16")


def _open_openvino(path: Path) -> Opened:
    """On the CPU and in float32, since its own choice, bfloat16 where there is such a processor, proves little."""
    model = core().read_model(path)
    compiled = core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return Opened(runner(compiled), Counter(operation.get_type_name() for operation in model.get_ops()))


def _write_executorch(deployed: Deployed, path: Path) -> None:
    """For one image of one size: the memory that it takes is planned for the largest. What XNNPACK can do is its."""
    with quietly(), path.open("wb") as file:
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        edge = to_edge_transform_and_lower(
            deployed.traced(dtype=deployed.dtype, one_image=True),
            partitioner=[XnnpackPartitioner()],
            constant_methods={EXECUTORCH_METADATA: json.dumps(deployed.metadata)},
        )
        edge.to_executorch().write_to_file(file)


def _open_executorch(path: Path) -> Opened:
    with quietly():
        from executorch.exir._serialize._program import deserialize_pte_binary
        from executorch.runtime import Runtime

        program = Runtime.get().load_program(path)
        method = program.load_method("forward")
        plans = deserialize_pte_binary(path.read_bytes()).program.execution_plan

    def run(images: Tensor) -> list[Tensor]:
        return [torch.clone(output) for output in method.execute([images])]

    plan = next(plan for plan in plans if plan.name == "forward")
    operations = Counter[str]()
    for instruction in (instruction.instr_args for chain in plan.chains for instruction in chain.instructions):
        if hasattr(instruction, "op_index"):
            operations[plan.operators[instruction.op_index].name] += 1
        elif hasattr(instruction, "delegate_index"):
            operations[plan.delegates[instruction.delegate_index].id] += 1
    return Opened(run, operations)


FORMATS = {  # by suffix
    ".onnx": Format("ONNX", "onnxruntime", RUNTIMES["onnxruntime"], _write_onnx, _open_onnx),
    ".pt2": Format("torch.export", "", (), _write_torch, _open_torch),
    ".xml": Format("OpenVINO", "openvino", RUNTIMES["openvino"], _write_openvino, _open_openvino, companion=".bin"),
    ".mlpackage": Format(
        "CoreML", "coreml", ("coremltools",), coreml.write, coreml.open_again, dtype="float16", one_image=True
    ),
    ".pte": Format(
        "ExecuTorch",
        "executorch",
        ("executorch",),
        _write_executorch,
        _open_executorch,
        one_image=True,
        fixed_size=True,
    ),
}
