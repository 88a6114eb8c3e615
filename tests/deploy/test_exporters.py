"""`fastvit.export`, its command, and the files that it writes."""

import copy
import json
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from helpers.command import run
from helpers.files import contents, file, package, pair
from helpers.near import assert_near
from helpers.paths import PHOTOGRAPH
from helpers.small import SMALL, shallow, small
from PIL import Image
from timm.models._features import FeatureGetterNet
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import fastvit
from fastvit import CONFIGS, Config, FastViT, export, reparameterize, save
from fastvit.deploy.exporters import FORMATS, ExportError, ExportReport, deployed
from fastvit.deploy.exporters import mil_interpreter as mil
from fastvit.deploy.graph import as_onnx, as_openvino, traced
from fastvit.deploy.lowering import lower
from fastvit.deploy.openvino_runtime import core
from fastvit.testing import LAYER_SCALE, random_model, randomize
from fastvit.utils import extras

SUFFIXES = (".pt2", ".onnx", ".xml", ".mlpackage")
TINY = replace(CONFIGS["fastvit_t8"], depths=(1, 1, 1, 1), width=8)
WITH_ATTENTION = replace(CONFIGS["fastvit_mci0"], depths=(1, 1, 1, 1), width=8, preprocess=TINY.preprocess)
WITH_EXECUTORCH = pytest.mark.skipif(bool(extras.missing("executorch")), reason="needs executorch")


def tiny(config: Config = TINY, **arguments: Any) -> FastViT:
    """A small model, random, in eval mode; its four classes have names."""
    return named(randomize(FastViT(config, num_classes=4, **arguments)).eval())


def named(made: FastViT) -> FastViT:
    """With a name, and names of four classes."""
    made.pretrained_cfg |= {"architecture": "tiny", "label_names": ["a", "b", "ç", "d"], "license": "some-licence"}
    return made


@cache
def loaded(path: Path) -> nn.Module:
    made: nn.Module = torch.export.load(path).module()
    return made


def run_file(path: Path, images: Tensor) -> list[Tensor]:
    """The file's outputs, by its own runtime, called as anybody would."""
    if path.suffix == ".onnx":
        import onnxruntime

        return [torch.from_numpy(a) for a in onnxruntime.InferenceSession(path).run(None, {"images": images.numpy()})]
    if path.suffix == ".xml":
        compiled = core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return [torch.from_numpy(a) for a in compiled({"images": images.numpy()}).to_tuple()]
    if path.suffix == ".pt2":
        with torch.no_grad():
            outputs = loaded(path)(images)
            return [outputs] if isinstance(outputs, Tensor) else list(outputs)
    return FORMATS[".mlpackage"].open(path).run(images)


def metadata_of(path: Path) -> dict[str, str]:
    if path.suffix == ".onnx":
        import onnx

        return {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    if path.suffix == ".xml":
        return {key: str(value) for key, value in core().read_model(path).get_rt_info("fastvit").value.items()}
    if path.suffix == ".pt2":
        extra = {"fastvit.json": ""}
        torch.export.load(path, extra_files=extra)
        found: dict[str, str] = json.loads(extra["fastvit.json"])
        return found
    return dict(specification(path).description.metadata.userDefined)


def specification(path: Path) -> Any:
    import coremltools

    return coremltools.models.MLModel(str(path), skip_model_load=True).get_spec()


# One export of each format, of one model with attention and gates, serves all the tests of what is in the files.
@pytest.fixture(scope="module")
def model() -> FastViT:
    return tiny(WITH_ATTENTION)


@pytest.fixture(scope="module")
def reports(model: FastViT, tmp_path_factory: pytest.TempPathFactory) -> dict[str, ExportReport]:
    folder = tmp_path_factory.mktemp("plain")
    return {suffix: export(model, folder / f"model{suffix}", dtype="float32") for suffix in SUFFIXES}


@pytest.fixture(scope="module")
def pixel_reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ExportReport]:
    folder, model = tmp_path_factory.mktemp("pixels"), named(shallow(num_classes=4))
    size = {".mlpackage": (48, 64)}  # fixed, for once
    options: dict[str, Any] = {"with_preprocessing": True, "dtype": "float32"}
    return {
        suffix: export(model, folder / f"model{suffix}", input_size=size.get(suffix), **options)
        for suffix in (".onnx", ".mlpackage")
    }


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(("batch", "height", "width"), [(3, 47, 130), (1, 32, 32), (1, 200, 64)])
@torch.no_grad()
def test_a_file_gives_what_the_unfused_model_gives_at_any_size(
    suffix: str, batch: int, height: int, width: int, model: FastViT, reports: dict[str, ExportReport]
) -> None:
    images = torch.randn(1 if suffix == ".mlpackage" else batch, 3, height, width)
    (given,) = run_file(reports[suffix].path, images)
    assert_near(given, model(images), 1e-5)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_report_is_of_the_file(suffix: str, reports: dict[str, ExportReport]) -> None:
    report = reports[suffix]
    files = [path for path in report.path.parent.rglob("*") if path.is_file()]
    own = [path for path in files if report.path in (path, *path.parents)]
    own += [report.path.with_suffix(".bin")] if suffix == ".xml" else []
    assert report.bytes == sum(path.stat().st_size for path in own)
    assert report.outputs == ("logits",)
    shapes = [check.shape for check in report.checks]
    assert shapes[0] == (1, 3, 32, 32) and any(height != width for _, _, height, width in shapes)
    assert any(height % 2 and width % 2 for _, _, height, width in shapes)
    assert {shape[0] for shape in shapes} == ({1} if suffix == ".mlpackage" else {1, 2})
    assert all(0 < check.error.relative < 1e-5 for check in report.checks)
    json.dumps(report.to_dict())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_says_what_it_is(suffix: str, model: FastViT, reports: dict[str, ExportReport]) -> None:
    metadata = metadata_of(reports[suffix].path)
    assert {key: metadata[key] for key in ("library", "variant", "form", "license", "outputs")} == {
        "library": f"fastvit {fastvit.__version__}",
        "variant": "tiny",
        "form": "fused",
        "license": "some-licence",
        "outputs": "logits",
    }
    cfg = json.loads(metadata["pretrained_cfg"])
    assert fastvit.Preprocess.from_cfg(cfg) == model.preprocess and "mean" in metadata["input"]
    assert json.loads(metadata["label_names"]) == ["a", "b", "ç", "d"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_tells_nothing_of_the_machine_it_was_made_on(suffix: str, reports: dict[str, ExportReport]) -> None:
    import zipfile

    here = str(Path(fastvit.__file__).parent).encode()
    for path in [path for path in reports[suffix].path.parent.rglob("*") if path.is_file()]:
        assert here not in path.read_bytes()
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                assert not [name for name in archive.namelist() if here in archive.read(name)]
    assert sorted(path.name for path in reports[".mlpackage"].path.iterdir()) == ["Data", "Manifest.json"]


def test_inputs_outputs_and_axes_have_names(reports: dict[str, ExportReport]) -> None:
    import onnx

    graph = onnx.load(reports[".onnx"].path).graph
    axes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert axes == {"images": ["batch", 3, "height", "width"], "logits": ["batch", 4]}
    read = core().read_model(reports[".xml"].path)
    assert (read.input().any_name, read.output().any_name) == ("images", "logits")
    exported = torch.export.load(reports[".pt2"].path)
    assert sorted((int(bounds.lower), bounds.upper > 1e6) for bounds in exported.range_constraints.values()) == [
        (1, True),
        (32, True),
        (32, True),
    ]


def test_a_coreml_package_takes_float32_arrays_of_many_sizes(reports: dict[str, ExportReport]) -> None:
    description = specification(reports[".mlpackage"].path).description
    (given,), (output,) = description.input, description.output
    array = given.type.multiArrayType
    assert (given.name, output.name) == ("images", "logits")
    assert array.dataType == array.FLOAT32 == output.type.multiArrayType.dataType
    assert list(array.shape) == [1, 3, 256, 256]
    assert [(size.lowerBound, size.upperBound) for size in array.shapeRange.sizeRanges] == [
        (1, 1),
        (3, 3),
        (32, 2048),
        (32, 2048),
    ]


# What is in the graphs, from what the configuration says there should be.


@dataclass(frozen=True)
class Node:
    op: str
    inputs: list[str]
    outputs: list[str]


@dataclass(frozen=True)
class Vocabulary:
    """What a format calls things, and how many transpositions it makes of an attention."""

    conv: tuple[str, ...]
    gelu: str
    gate: str  # multiplies
    sigmoid: str
    transpose: tuple[str, ...]
    tokens: tuple[str, ...]  # what works on them
    transposes: int
    fused_away: tuple[str, ...]


VOCABULARY = {
    ".pt2": Vocabulary(
        ("aten.conv2d.default",),
        "aten.gelu.default",
        "aten.mul.Tensor",
        "aten.sigmoid.default",
        ("aten.transpose.int", "aten.permute.default"),
        ("aten.linear.default", "aten.scaled_dot_product_attention.default", "aten.layer_norm.default"),
        4,
        ("aten.batch_norm.default", "aten._native_batch_norm_legit_no_training.default"),
    ),
    ".onnx": Vocabulary(
        ("Conv",),
        "Gelu",
        "Mul",
        "Sigmoid",
        ("Transpose",),
        ("MatMul", "LayerNormalization"),
        5,
        ("BatchNormalization", "Erf"),
    ),
    ".xml": Vocabulary(
        ("Convolution", "GroupConvolution"),
        "Gelu",
        "Multiply",
        "Sigmoid",
        ("Transpose",),
        ("MatMul", "ScaledDotProductAttention", "MVN"),
        4,
        ("BatchNormInference", "Erf"),
    ),
    ".mlpackage": Vocabulary(
        ("conv",),
        "gelu",
        "mul",
        "sigmoid",
        ("transpose",),
        ("linear", "matmul", "layer_norm"),
        4,
        ("batch_norm", "erf"),
    ),
}


class Graph:
    """The operations of any of them, and the size of each constant."""

    def __init__(self, nodes: list[Node], constants: dict[str, int], whole: set[str]) -> None:
        self.nodes, self.constants = nodes, constants
        self.whole = whole  # values that are whole numbers: sizes
        self.makers = {output: node for node in nodes for output in node.outputs}
        self.users: dict[str, list[Node]] = {}
        for node in nodes:
            for name in node.inputs:
                self.users.setdefault(name, []).append(node)

    def beyond(self, node: Node, back: bool, stops: set[str]) -> set[str]:
        """The operations of `stops` that are met first, going from `node` against the arrows or with them."""
        met: set[str] = set()
        todo, seen = [node], set[int]()
        while todo:
            here = todo.pop()
            if back:
                following = [self.makers[name] for name in here.inputs if name in self.makers]
            else:
                following = [user for name in here.outputs for user in self.users.get(name, [])]
            for one in following:
                if id(one) in seen:
                    continue
                seen.add(id(one))
                if one.op in stops:
                    met.add(one.op)
                else:
                    todo.append(one)
        return met


def of_onnx(proto: Any) -> Graph:
    import onnx

    inferred = onnx.shape_inference.infer_shapes(proto).graph
    constants = {tensor.name: int(numpy.prod(tensor.dims)) for tensor in inferred.initializer}
    for node in inferred.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = int(numpy.prod(node.attribute[0].t.dims))
    whole = {value.name for value in inferred.value_info if value.type.tensor_type.elem_type == onnx.TensorProto.INT64}
    return Graph([Node(node.op_type, list(node.input), list(node.output)) for node in inferred.node], constants, whole)


def of_openvino(made: Any) -> Graph:
    nodes, constants, whole = [], {}, set()
    for operation in made.get_ops():
        name = operation.get_friendly_name()
        if operation.get_type_name() == "Constant":
            constants[name] = int(numpy.prod(operation.get_output_shape(0)))
            continue
        inputs = [value.get_source_output().get_node().get_friendly_name() for value in operation.inputs()]
        nodes.append(Node(operation.get_type_name(), inputs, [name]))
        if operation.get_output_size() and not operation.get_output_element_type(0).is_real():
            whole.add(name)
    return Graph(nodes, constants, whole)


def of_program(exported: torch.export.ExportedProgram) -> Graph:
    nodes, whole = [], set()
    for node in exported.graph.nodes:
        if node.op == "call_function":
            nodes.append(Node(str(node.target), [one.name for one in node.all_input_nodes], [node.name]))
            if not isinstance(node.meta.get("val"), Tensor):
                whole.add(node.name)
    constants = {name: tensor.numel() for name, tensor in exported.state_dict.items()}
    inputs = exported.graph_signature.inputs_to_parameters
    return Graph(nodes, {name: constants[target] for name, target in inputs.items()}, whole)


def of_mil(function: Any) -> Graph:
    nodes, constants = [], {}
    for operation in function.operations:
        names = [output.name for output in operation.outputs]
        if operation.op_type == "const":
            constants |= {output.name: int(numpy.size(output.val)) for output in operation.outputs}
            continue
        assert operation.op_type != "gelu" or operation.inputs["mode"].val == "EXACT"
        given = operation.inputs.values()
        flat = [one for value in given for one in (value if isinstance(value, list | tuple) else [value])]
        nodes.append(Node(operation.op_type, [one.name for one in flat], names))
    return Graph(nodes, constants, set())


def of_file(path: Path) -> Graph:
    if path.suffix == ".onnx":
        import onnx

        return of_onnx(onnx.load(path))
    if path.suffix == ".xml":
        return of_openvino(core().read_model(path))
    return of_program(torch.export.load(path)) if path.suffix == ".pt2" else of_mil(coreml_program(path))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_nothing_is_left_in_a_file_that_folding_takes_away(suffix: str, reports: dict[str, ExportReport]) -> None:
    check_graph(of_file(reports[suffix].path), suffix, WITH_ATTENTION)


@pytest.mark.parametrize("name", ["fastvit_t8", "fastvit_sa12", pytest.param("fastvithd", marks=pytest.mark.slow)])
def test_nothing_is_left_in_a_graph_that_folding_takes_away(name: str) -> None:
    exported = traced(lower(small(name)), torch.randn(1, 3, 64, 96), ())  # of one size, which is quicker
    check_graph(of_program(exported), ".pt2", SMALL[name])
    if name != "fastvit_sa12":  # whose blocks are those of the file above
        check_graph(of_onnx(as_onnx(exported, ["logits"])), ".onnx", SMALL[name])
        check_graph(of_openvino(as_openvino(exported, ["logits"])), ".xml", SMALL[name])


@pytest.mark.slow
def test_nothing_is_left_in_coremls_program_of_fastvithd_either(tmp_path: Path) -> None:
    export(small("fastvithd"), tmp_path / "model.mlpackage", input_size=(64, 96))
    check_graph(of_file(tmp_path / "model.mlpackage"), ".mlpackage", SMALL["fastvithd"])


def check_graph(graph: Graph, suffix: str, config: Config) -> None:
    words, expected = VOCABULARY[suffix], Expected.of(config)
    count = Counter(node.op for node in graph.nodes)
    assert sum(count[word] for word in words.conv) == expected.convolutions
    assert count[words.gelu] == expected.gelus
    assert not [word for word in words.fused_away if count[word]]
    multiplications = [node for node in graph.nodes if node.op == words.gate and not set(node.outputs) & graph.whole]
    gates = [node for node in multiplications if words.sigmoid in makers(graph, node)]
    assert len(gates) == expected.gates
    for node in multiplications:  # the others are attention's scale: by one number, and not one for each channel
        sizes = [graph.constants[given] for given in node.inputs if given in graph.constants]
        assert node in gates or sizes == [1], (node, sizes)
    transposes = [node for node in graph.nodes if node.op in words.transpose]
    absorbed = 1 if suffix == ".xml" and config.attention_norm == "batch" else 0  # by the MatMul after it
    assert len(transposes) == (words.transposes - absorbed) * expected.attentions
    stops = {*words.conv, *words.tokens}
    for node in transposes:
        before, after = graph.beyond(node, True, stops), graph.beyond(node, False, stops)
        assert (before and before <= set(words.tokens)) or (after and after <= set(words.tokens)), (node, before, after)


def makers(graph: Graph, node: Node) -> set[str]:
    return {graph.makers[name].op for name in node.inputs if name in graph.makers}


@dataclass(frozen=True)
class Expected:
    """What the papers' tables say of how many there are."""

    convolutions: int
    gelus: int
    gates: int
    attentions: int

    @classmethod
    def of(cls, config: Config) -> "Expected":
        stages, blocks = len(config.depths), sum(config.depths)
        attentions = sum(config.depths[stages - config.attention_stages :])
        downsamplings = stages - 1
        return cls(
            # A stem of three, a downsampling of one 7x7 (two outputs a channel: two of them) and one 1x1; a mixer but
            # where there is attention; three in each MLP; a position encoding; the last, twice; two in each gate.
            convolutions=3
            + 3 * downsamplings
            + (blocks - attentions)
            + 3 * blocks
            + config.attention_stages
            + 2
            + 2 * (config.squeezed_stages + 1),
            gelus=3 + downsamplings * (1 + config.downsample_gelu) + blocks + 1,
            gates=config.squeezed_stages + 1,
            attentions=attentions,
        )


def coreml_program(path: Path) -> Any:
    from coremltools.converters.mil.frontend.milproto.load import load
    from coremltools.models import MLModel

    package = MLModel(str(path), skip_model_load=True)
    made = package.get_spec()
    return load(made, made.specificationVersion, file_weights_dir=package.weights_dir).functions["main"]


@pytest.mark.parametrize("pool", ["avgmax", "catavgmax"])
def test_the_other_poolings_are_followed_too(pool: str, tmp_path: Path) -> None:
    pooled = shallow()
    pooled.reset_classifier(4, pool)
    report = export(pooled, tmp_path / "model.mlpackage", input_size=(64, 32), dtype="float32")
    assert report.operations["reduce_max"] == 1 and report.checks[0].error.relative < 1e-5


def test_a_coreml_package_has_the_weights_of_every_convolution(
    model: FastViT, reports: dict[str, ExportReport]
) -> None:
    given = [
        torch.from_numpy(numpy.array(operation.inputs["weight"].val))
        for operation in coreml_program(reports[".mlpackage"].path).operations
        if operation.op_type == "conv"
    ]
    expected = [module.weight for module in lower(model).modules() if isinstance(module, nn.Conv2d)]
    assert len(given) == len(expected)
    for one in given:  # in whatever order
        found = [index for index, other in enumerate(expected) if torch.equal(one, other)]
        expected.pop(found[0])


@torch.no_grad()
def test_pixels_go_in_and_probabilities_come_out(pixel_reports: dict[str, ExportReport]) -> None:
    model = named(shallow(num_classes=4))
    photograph = Image.open(PHOTOGRAPH).convert("RGB").resize((64, 48))
    preprocess = replace(model.preprocess, size=(48, 64), crop=1.0)
    expected = model(preprocess(photograph)[None]).softmax(1)
    pixels = torch.from_numpy(numpy.array(photograph)).permute(2, 0, 1)[None].float()
    for report in pixel_reports.values():
        (given,) = run_file(report.path, pixels)
        assert_near(given, expected, 1e-5)
        assert report.outputs == ("probabilities",) and "0 to 255" in report.metadata["input"]


def test_a_coreml_package_with_preprocessing_takes_an_image(pixel_reports: dict[str, ExportReport]) -> None:
    description = specification(pixel_reports[".mlpackage"].path).description
    image = description.input[0].type.imageType
    assert (image.height, image.width, image.colorSpace) == (48, 64, image.RGB)
    assert not FORMATS[".mlpackage"].open(pixel_reports[".mlpackage"].path).operations["batch_norm"]


def test_an_embedding_stays_one_with_preprocessing(tmp_path: Path) -> None:
    config = replace(CONFIGS["fastvit_mci0"], depths=(1, 1, 1, 1), width=8, attention_stages=0, num_classes=6)
    embedder = randomize(FastViT(config)).eval()
    report = export(embedder, tmp_path / "model.pt2", with_preprocessing=True, input_size=(32, 48))
    assert report.outputs == ("embedding",)
    assert [check.shape for check in report.checks] == [(1, 3, 32, 48), (2, 3, 32, 48)]
    with pytest.raises(Exception, match=r"size|shape"):
        loaded(report.path)(torch.rand(1, 3, 48, 32))


@pytest.mark.parametrize(
    "wrap", [torch.compile, nn.DataParallel, AveragedModel, ModelEmaV3], ids=lambda it: it.__name__
)
def test_what_only_runs_a_model_is_exported_as_the_model(wrap: Any, tmp_path: Path) -> None:
    report = export(wrap(tiny()).eval(), tmp_path / "model.pt2", input_size=(32, 32))
    assert report.outputs == ("logits",) and report.metadata["variant"] == "tiny"
    with pytest.raises(ValueError, match=r"cannot export a model in train mode \(.*call model\.eval\(\) first"):
        export(wrap(tiny()).train(), tmp_path / "none.pt2")


def test_outputs_of_a_module_that_is_no_fastvit_are_called_outputs(tmp_path: Path) -> None:
    report = export(nn.Sequential(tiny(), nn.Softmax(1)).eval(), tmp_path / "model.pt2", input_size=(32, 32))
    assert report.outputs == ("output",)


def test_a_file_is_compared_with_the_model_that_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were folding wrong, comparing with the folded model would not tell."""
    from fastvit.models.affine import Affine

    right = Affine.normed
    monkeypatch.setattr(Affine, "normed", lambda self, norm: Affine(right(self, norm).weight, self.bias))
    with pytest.raises(ExportError, match="differs from eager torch"):
        export(tiny(), tmp_path / "model.pt2", input_size=(32, 32))
    assert not list(tmp_path.iterdir())


def test_hooks_that_change_the_output_are_exported_and_those_that_record_see_only_numbers(tmp_path: Path) -> None:
    images, seen, model = torch.randn(1, 3, 32, 32), [], tiny()
    model.stages[0].register_forward_hook(lambda module, inputs, output: seen.append(output))
    export(model, tmp_path / "model.pt2", input_size=(32, 32))
    assert seen and all(type(output) is Tensor for output in seen)
    model.stem.register_forward_hook(lambda module, inputs, output: 2 * output)
    export(model, tmp_path / "hooked.pt2", input_size=(32, 32))
    assert_near(run_file(tmp_path / "hooked.pt2", images)[0], model(images), 1e-5)
    assert_near(run_file(tmp_path / "model.pt2", images)[0], tiny()(images), 1e-5)


@torch.no_grad()
def test_maps_have_numbers(tmp_path: Path) -> None:
    import onnx

    model = tiny()
    report = export(FeatureGetterNet(model, [0, 1]).eval(), tmp_path / "maps.onnx")
    assert report.outputs == ("map0", "map1")
    assert [value.name for value in onnx.load(report.path).graph.output] == ["map0", "map1"]
    images = torch.randn(2, 3, 40, 72)
    expected = model.forward_intermediates(images, [0, 1], intermediates_only=True)
    for given, one in zip(run_file(report.path, images), expected, strict=True):
        assert_near(given, one, 1e-5)


@pytest.mark.parametrize("suffix", [".onnx", ".pt2", pytest.param(".xml", marks=pytest.mark.slow)])
@torch.no_grad()
def test_float16_halves_the_weights_and_leaves_inputs_and_outputs(suffix: str, tmp_path: Path) -> None:
    model = randomize(FastViT(TINY)).eval()  # with a thousand classes, which outweigh what is not weights
    report = export(model, tmp_path / f"model{suffix}", dtype="float16", input_size=(64, 32))
    assert report.bytes < 4 * sum(parameter.numel() for parameter in reparameterize(model).parameters())
    images = torch.randn(2, 3, 64, 32)
    (given,) = run_file(report.path, images)
    assert given.dtype == torch.float32
    assert all(1e-6 < check.error.relative < 1e-2 for check in report.checks)
    assert_near(given, model(images), 1e-2)


def test_a_model_is_left_as_it_was(tmp_path: Path) -> None:
    model = tiny()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    half = tiny().half()
    export(half, tmp_path / "model.pt2", dtype="float16", input_size=(32, 32))
    export(model, tmp_path / "model.pt2", dtype="float16", input_size=(32, 32))
    assert next(half.parameters()).dtype == torch.float16
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def broken(given: nn.Module) -> nn.Module:
    """Lowered, and then wrong."""
    made = lower(given)
    list(made.modules())[-1].bias.data[0] += 0.01  # type: ignore[union-attr, operator]
    return made


@pytest.mark.parametrize("suffix", [".pt2", ".onnx", ".xml", ".mlpackage"])
def test_a_file_that_gives_something_else_is_not_put_in_place(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / f"model{suffix}"
    (package if suffix == ".mlpackage" else pair if suffix == ".xml" else file)(old, "old")
    before = contents(tmp_path)
    monkeypatch.setattr(deployed, "lower", broken)
    with pytest.raises(ExportError, match=r"differs from eager torch by \d\.\de-0\d of the largest output"):
        export(shallow(), old, input_size=(32, 32), dtype="float32")
    assert contents(tmp_path) == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_what_is_not_finite_is_not_put_in_place(tmp_path: Path) -> None:
    model = shallow()
    model.head.fc.bias.data[0] = float("nan")  # type: ignore[union-attr, operator]
    with pytest.raises(ExportError, match="by nan of"):
        export(model, tmp_path / "model.pt2", input_size=(32, 32))
    assert not list(tmp_path.iterdir())


def test_what_a_library_raises_is_one_line(model: FastViT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise KeyError("several\nlines")

    monkeypatch.setattr(torch.export, "save", fails)
    with pytest.raises(ExportError, match=r"model.pt2: torch.export failed: KeyError: 'several\\nlines'"):
        export(shallow(), tmp_path / "model.pt2", input_size=(32, 32))
    assert not list(tmp_path.iterdir())


def test_what_float16_cannot_hold_is_seen_in_coremls_program(tmp_path: Path) -> None:
    model = tiny()
    with torch.no_grad():  # weights that it can hold, and sums that it cannot
        model.head.fc.weight.fill_(6e4)  # type: ignore[union-attr, operator]
    with pytest.raises(ExportError, match=r"model.mlpackage: CoreML differs from eager torch by (nan|inf)"):
        export(model, tmp_path / "model.mlpackage", input_size=(32, 32))


def test_coremls_program_is_followed_only_where_it_is_known(reports: dict[str, ExportReport], monkeypatch: Any) -> None:
    function = coreml_program(reports[".mlpackage"].path)
    monkeypatch.delitem(mil.OPERATIONS, "gelu")
    with pytest.raises(NotImplementedError, match="gelu"):
        mil.run(function, torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize(
    ("arguments", "path", "error"),
    [
        ({}, "model.tflite", "expected a name that ends in .onnx, .pt2, .xml, .mlpackage, .pte"),
        ({}, "", "expected a name that ends in"),
        ({}, "nowhere/model.onnx", "there is no folder"),
        ({}, "folder.pt2", "is a folder"),
        ({}, "folder.mlpackage", "is a folder"),
        ({}, "weights.xml", "weights.bin: is in the way"),
        ({"dtype": "int3"}, "model.pt2", "dtype is 'int3', expected float32 or float16"),
        ({"input_size": (16, 64)}, "model.pt2", r"input_size=\(16, 64\): expected"),
        ({"input_size": 64}, "model.pt2", r"input_size=64: expected \(height, width\)"),
        ({"input_size": (64, 64, 64)}, "model.pt2", r"input_size=\(64, 64, 64\): expected"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is(
    arguments: dict[str, Any], path: str, error: str, model: FastViT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("folder.pt2", "folder.mlpackage"):
        (tmp_path / folder).mkdir()
    (tmp_path / "weights.bin").write_text("somebody's")
    monkeypatch.setattr(deployed, "lower", pytest.fail)
    with pytest.raises(ValueError, match=error) as raised:
        export(model, tmp_path / path, **arguments)
    assert "\n" not in str(raised.value)
    assert len(list(tmp_path.iterdir())) == 3 and (tmp_path / "weights.bin").read_text() == "somebody's"


def test_models_that_cannot_be_exported(tmp_path: Path) -> None:
    for model, arguments, error in (
        (tiny().train(), {}, "train mode"),
        (tiny(in_chans=1), {"with_preprocessing": True}, r"expected \(3, height, width\)"),
    ):
        with pytest.raises(ValueError, match=error):
            export(model, tmp_path / "model.pt2", **arguments)
    with pytest.raises(TypeError, match=r"model is a Conv2d, expected a FastViT, as fastvit\.load"):
        export(nn.Conv2d(3, 4, 1), tmp_path / "model.pt2")


@pytest.mark.parametrize(
    ("suffix", "package", "extra"),
    [
        (".onnx", "onnxscript", "onnxruntime"),
        (".xml", "openvino", "openvino"),
        (".mlpackage", "coremltools", "coreml"),
        (".pte", "executorch", "executorch"),
    ],
)
def test_a_missing_package_is_one_line(
    suffix: str, package: str, extra: str, model: FastViT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == package else True)
    with pytest.raises(ImportError, match=rf'{suffix} needs {package}; run: pip install "fastvit\[{extra}\]"'):
        export(model, tmp_path / f"model{suffix}")


def test_one_output_is_a_tensor_and_no_list(reports: dict[str, ExportReport]) -> None:
    with torch.no_grad():
        assert loaded(reports[".pt2"].path)(torch.randn(1, 3, 32, 32)).shape == (1, 4)


@WITH_EXECUTORCH
@pytest.mark.filterwarnings("ignore")
@torch.no_grad()
def test_executorch_runs_it_and_knows_what_it_is(tmp_path: Path) -> None:
    from executorch.runtime import Runtime

    model = tiny(WITH_ATTENTION)
    report = export(model, tmp_path / "model.pte", input_size=(64, 96))
    runnable = Runtime.get().load_program(report.path)
    images = torch.randn(1, 3, 64, 96)
    (given,) = runnable.load_method("forward").execute([images])
    assert_near(given, model(images), 1e-5)
    (metadata,) = runnable.load_method("fastvit_metadata").execute([])
    assert json.loads(metadata) == report.metadata
    assert report.operations["XnnpackBackend"] and not [name for name in report.operations if "conv" in name]


# As a person types it.


def test_the_command_reads_weights_writes_a_file_and_reports(tmp_path: Path, tiny_variant: None) -> None:
    model = tiny()
    model.pretrained_cfg["architecture"] = "fastvit_t8"
    weights, out = tmp_path / "tiny.safetensors", tmp_path / "model.pt2"
    save(model, weights)
    status, shown, errors = run("export", weights, out, "--with-preprocessing", "--input-size", "64x32", "--json")
    assert status == 0, errors
    report = json.loads(shown)
    assert report["format"] == "torch.export" and report["outputs"] == ["probabilities"] and not report["random"]
    assert report["bytes"] == out.stat().st_size and report["operations"]["aten.conv2d.default"] == 32
    assert [check["shape"] for check in report["checks"]] == [[1, 3, 64, 32], [2, 3, 64, 32]]
    with torch.no_grad():
        pixels = torch.randint(0, 256, (1, 3, 64, 32)).float()
        mean, std = (torch.tensor(value).view(3, 1, 1) for value in (model.preprocess.mean, model.preprocess.std))
        assert_near(run_file(out, pixels)[0], model((pixels / 255 - mean) / std).softmax(1), 1e-5)


@pytest.fixture
def tiny_variant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CONFIGS, "fastvit_t8", TINY)


def test_a_name_alone_has_random_weights_and_features_have_no_classes(tmp_path: Path, tiny_variant: None) -> None:
    status, shown, errors = run("export", "fastvit_t8", tmp_path / "model.pt2", "--features", "--input-size", "32")
    assert status == 0, errors
    *rows, last = shown.splitlines()
    lines = [line.split(maxsplit=1) for line in rows]
    assert last == "fastvit_t8 has no weights here: these were random."
    assert dict(lines)["model"] == "fastvit_t8, fused" and dict(lines)["outputs"] == "features"
    assert sum(line[0] == "difference" for line in lines) == 2
    (given,) = run_file(tmp_path / "model.pt2", torch.randn(1, 3, 32, 32))
    assert given.shape == (1, TINY.num_features)


def test_a_difference_is_status_1_with_the_figure(
    tmp_path: Path, tiny_variant: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deployed, "lower", broken)
    status, shown, errors = run("export", "fastvit_t8", tmp_path / "model.pt2", "--input-size", "32")
    assert (status, shown, errors.count("\n")) == (1, "", 1)
    assert "differs from eager torch by" in errors and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fastvit_t9", "model.onnx"], "did you mean fastvit_t8"),
        (["fastvit_t8", "model.bin"], "expected a name that ends in"),
        (["fastvit_t8", "nowhere/model.onnx"], "there is no folder nowhere"),
        (["fastvit_t8", "model.onnx", "--input-size", "64x"], "--input-size 64x: expected one number"),
        (["fastvit_t8", "model.onnx", "--input-size", "31"], "input_size=(31, 31)"),
        (["fastvit_t8", "model.onnx", "--dtype", "int8"], "float32"),
    ],
)
def test_what_the_command_cannot_do_is_one_line_and_status_2(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_variant: None
) -> None:
    monkeypatch.chdir(tmp_path)
    status, shown, errors = run("export", *arguments)
    assert (status, shown, errors.count("\n")) == (2, "", 1)
    assert words in errors and not list(tmp_path.iterdir())


def test_too_little_memory_is_status_1(tmp_path: Path, tiny_variant: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(deployed, "lower", fails)
    status, shown, errors = run("export", "fastvit_t8", tmp_path / "model.pt2", "--input-size", "32")
    assert (status, shown) == (1, "") and "there is not enough memory to export it" in errors


def test_importing_it_brings_in_nothing_heavy() -> None:
    heavy = ("onnx", "onnxruntime", "openvino", "coremltools", "executorch")
    code = f"import sys, fastvit.deploy.exporters; assert not set({heavy}) & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, stdin=subprocess.DEVNULL, check=False)
    assert (done.returncode, done.stdout) == (0, b""), done.stderr


@pytest.mark.slow  # of the full size, where rounding grows block by block
def test_random_weights_are_such_that_float16_holds() -> None:
    model = reparameterize(random_model("fastvit_mci0", layer_scale=LAYER_SCALE))
    rounded = copy.deepcopy(model)
    rounded.load_state_dict({name: tensor.half().float() for name, tensor in model.state_dict().items()})
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        assert_near(rounded(images), model(images), 5e-3)
