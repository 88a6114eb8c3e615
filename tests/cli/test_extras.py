"""Every command without a package that an extra brings: one line that says what to install."""

import sys
from pathlib import Path

import pytest
from helpers.command import run

from fastvit.testing import write_images

MODEL = "fastvit_t8.cifar10"


@pytest.mark.parametrize(
    ("package", "extra", "words"),
    [
        ("accelerate", "train", "train DATA --output OUT/run"),
        ("yaml", "train", "train DATA --output OUT/run"),
        ("yaml", "train", "train --config OUT/recipe.yaml"),
        ("webdataset", "train", "train OUT/{split}-{000..003}.tar --output OUT/run"),
        ("datasets", "train", "train hfds/cifar10 --output OUT/run"),
        ("datasets", "train", f"evaluate {MODEL} hfds/cifar10"),
        ("matplotlib", "train", f"evaluate {MODEL} DATA --confusion OUT/plot.png"),
        ("openvino", "openvino", f"evaluate {MODEL} DATA --engine openvino"),
        ("onnxruntime", "onnxruntime", f"classify {MODEL} DATA --engine onnxruntime"),
        ("nncf", "int8", f"evaluate {MODEL} DATA --engine openvino --precision int8 --calibration DATA/train"),
        ("pyarrow", "embed", f"embed {MODEL} DATA OUT/features"),
        ("pyarrow", "embed", "search OUT/made --image OUT/cat.png"),
        ("sklearn", "embed", "neighbors OUT/made --probe"),
        ("sklearn", "embed", "neighbors OUT/made --map OUT/map.png"),
        ("matplotlib", "embed", "neighbors OUT/made --map OUT/map.png"),
        ("onnx", "onnxruntime", f"export {MODEL} OUT/model.onnx"),
        ("openvino", "openvino", f"export {MODEL} OUT/model.xml"),
        ("coremltools", "coreml", f"export {MODEL} OUT/model.mlpackage"),
        ("executorch", "executorch", f"export {MODEL} OUT/model.pte"),
    ],
)
def test_without_a_package_of_an_extra_the_command_is_one_line_that_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, extra: str, words: str
) -> None:
    data = write_images(tmp_path / "data", ("cat", "ship"), train=4, val=2)
    (tmp_path / "recipe.yaml").write_text(f"data: {data}\n")
    for number in range(4):
        for split in ("train", "val"):
            (tmp_path / f"{split}-{number:03}.tar").touch()
    monkeypatch.setitem(sys.modules, package, None)
    status, shown, error = run(*words.replace("DATA", str(data)).replace("OUT", str(tmp_path)).split())
    assert (status, shown, error.count("\n")) == (2, "", 1), error
    assert package in error and f'pip install "fastvit[{extra}]"' in error
