"""The table of formats, and how each is written and opened again."""

import json
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path

import torch
from torch import Tensor

from ..engines.builders import run_onnx, run_openvino
from ..engines.engine import Run
from ..engines.select import RUNTIMES
from ..graph import AXES, as_onnx, as_openvino, quietly
from ..lowering import listed
from ..openvino_runtime import core, save
from . import mil_interpreter as mil
from .deployed import Subject

TORCH_METADATA = "fastvit.json"  # the name under which extra_files has it
EXECUTORCH_METADATA = "fastvit_metadata"  # a method beside "forward", which takes nothing and gives JSON


@dataclass(frozen=True, slots=True)
class Opened:
    """A file as its own runtime, or the nearest that there is here, reads it."""

    run: Run
    operations: Counter[str]


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of file."""

    name: str
    extra: str  # of fastvit's, which brings the packages
    packages: tuple[str, ...]  # that are needed to write and to check one
    write: Callable[[Subject, Path], None]
    open: Callable[[Path], Opened]
    dtype: str = "float32"  # unless another is asked for
    free: Collection[int] = tuple(AXES)  # axes of the images that may have any size
    companion: str = ""  # suffix of a second file beside it


def _write_onnx(deployed: Subject, path: Path) -> None:
    import onnx

    made = as_onnx(deployed.traced(deployed.dtype), deployed.outputs, deployed.input)
    onnx.helper.set_model_props(made, deployed.metadata)
    onnx.save(made, path)


def _open_onnx(path: Path) -> Opened:
    import onnx

    return Opened(run_onnx(path), Counter(node.op_type for node in onnx.load(path).graph.node))


def _write_torch(deployed: Subject, path: Path) -> None:
    """torch.export's own file: for torch.export.load, and for AOTInductor."""
    exported = deployed.traced(deployed.dtype)
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


def _write_openvino(deployed: Subject, path: Path) -> None:
    """The graph in .xml, the weights in .bin.

    In float16 the weights alone are: the processor that runs it says what it computes in.
    """
    made = as_openvino(deployed.traced("float32"), deployed.outputs, deployed.input)
    for key, value in deployed.metadata.items():
        made.set_rt_info(value, ["fastvit", key])
    save(made, path, float16=deployed.dtype == "float16")


def _open_openvino(path: Path) -> Opened:
    """On the CPU and in float32, since its own choice, bfloat16 where there is such a processor, proves little."""
    model = core().read_model(path)
    compiled = core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return Opened(run_openvino(compiled), Counter(operation.get_type_name() for operation in model.get_ops()))


def _write_coreml(deployed: Subject, path: Path) -> None:
    """For one image, or one text. In float16, which Apple's neural engines compute in, outputs still are float32."""
    with quietly(), redirect_stderr(StringIO()):  # a bar of progress
        import coremltools
        import numpy

        passes = coremltools.PassPipeline.DEFAULT
        passes.remove_passes({"common::fuse_elementwise_to_batchnorm"})  # would call the preprocessing one
        made = coremltools.convert(
            deployed.traced("float32").run_decompositions({}),
            inputs=[deployed.coreml_input()],
            outputs=[coremltools.TensorType(name=name, dtype=numpy.float32) for name in deployed.outputs],
            convert_to="mlprogram",
            pass_pipeline=passes,
            compute_precision=getattr(coremltools.precision, deployed.dtype.upper()),
            minimum_deployment_target=coremltools.target.iOS16,
            skip_model_load=True,
        )
        made.user_defined_metadata.update(deployed.metadata)
        made.license = deployed.metadata["license"]
        made.version = deployed.metadata["library"]
        made.short_description = f"{deployed.metadata['variant']}: {deployed.input} to {', '.join(deployed.outputs)}"
        made.save(str(path))
        (path / "executorch_debug_handle_mapping.json").unlink(missing_ok=True)  # of no use and not in its manifest


def _open_coreml(path: Path) -> Opened:
    """CoreML runs on Apple's machines alone: the file's program, with its weights, is followed by torch instead."""
    with quietly():
        import coremltools
        from coremltools.converters.mil.frontend.milproto.load import load

        model = coremltools.models.MLModel(str(path), skip_model_load=True)
        specification = model.get_spec()
        program = load(specification, specification.specificationVersion, file_weights_dir=model.weights_dir)
    main = program.functions["main"]
    return Opened(partial(mil.run, main), Counter(operation.op_type for operation in mil.operations(main)))


def _write_executorch(deployed: Subject, path: Path) -> None:
    """For one image of one size: the memory that it takes is planned for the largest. What XNNPACK can do is its."""
    with quietly(), path.open("wb") as file:
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        edge = to_edge_transform_and_lower(
            deployed.traced(deployed.dtype),
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
    ".mlpackage": Format("CoreML", "coreml", ("coremltools",), _write_coreml, _open_coreml, "float16", free=(2, 3)),
    ".pte": Format("ExecuTorch", "executorch", ("executorch",), _write_executorch, _open_executorch, free=()),
}
