"""CoreML's package, an ML Program for iOS 16 and macOS 13 on."""

from collections import Counter
from contextlib import redirect_stderr
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

from ...images.preprocess import SMALLEST
from ..graph import quietly
from . import mil_interpreter as mil
from .deployed import Deployed, Opened

LARGEST = 2048  # pixels high and wide; CoreML wants to be told


def write(deployed: Deployed, path: Path) -> None:
    """Takes one image (an ImageType of Apple's where the preprocessing is inside) of any size, unless it is fixed.

    In float16, which is what Apple's neural engines compute in, images and outputs still are float32.
    """
    with quietly(), redirect_stderr(StringIO()):  # a bar of progress
        import coremltools
        import numpy

        exported = deployed.traced(dtype="float32", one_image=True)
        passes = coremltools.PassPipeline.DEFAULT
        passes.remove_passes({"common::fuse_elementwise_to_batchnorm"})  # would call the preprocessing one
        precision = {"float16": coremltools.precision.FLOAT16, "float32": coremltools.precision.FLOAT32}
        made = coremltools.convert(
            exported.run_decompositions({}),
            inputs=[_input(deployed)],
            outputs=[coremltools.TensorType(name=name, dtype=numpy.float32) for name in deployed.outputs],
            convert_to="mlprogram",
            pass_pipeline=passes,
            compute_precision=precision[deployed.dtype],
            minimum_deployment_target=coremltools.target.iOS16,
            skip_model_load=True,
        )
        made.user_defined_metadata.update(deployed.metadata)
        made.license = deployed.metadata["license"]
        made.version = deployed.metadata["library"]
        made.short_description = f"{deployed.metadata['variant']}: images to {', '.join(deployed.outputs)}"
        made.save(str(path))
        (path / "executorch_debug_handle_mapping.json").unlink(missing_ok=True)  # of no use and not in its manifest


def _input(deployed: Deployed) -> Any:
    import coremltools
    import numpy

    def edge(usual: int) -> Any:
        return coremltools.RangeDim(SMALLEST, LARGEST, default=min(usual, LARGEST))

    shape = (1, deployed.in_chans, *(deployed.size or map(edge, deployed.usual_size)))
    if deployed.preprocess:
        return coremltools.ImageType(name="images", shape=shape, color_layout=coremltools.colorlayout.RGB)
    return coremltools.TensorType(name="images", shape=shape, dtype=numpy.float32)


def open_again(path: Path) -> Opened:
    """CoreML runs on Apple's machines alone: the file's program, with its weights, is followed by torch instead."""
    with quietly():
        import coremltools
        from coremltools.converters.mil.frontend.milproto.load import load

        model = coremltools.models.MLModel(str(path), skip_model_load=True)
        specification = model.get_spec()
        program = load(specification, specification.specificationVersion, file_weights_dir=model.weights_dir)
    main = program.functions["main"]
    return Opened(partial(mil.run, main), Counter(operation.op_type for operation in mil.operations(main)))
