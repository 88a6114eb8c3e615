"""An exported file names the cat where fastvit and torch cannot be imported."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.paths import PHOTOGRAPH, ROOT

import fastvit

WITHOUT = "fastvit", "torch", "timm", "torchvision"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "t8.onnx"
    fastvit.export("fastvit_t8.cifar10", path, with_preprocessing=True)
    return path


def run(code: str, *arguments: object, cwd: Path) -> list[str]:
    blocked = f"import sys; sys.modules.update(dict.fromkeys({WITHOUT}))\n"  # Python's way to say: cannot be imported
    command = [sys.executable, "-c", blocked + code, *map(str, arguments)]
    ran = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.split()


@pytest.mark.slow
def test_an_exported_model_names_what_is_in_an_image_without_this_package(exported: Path, tmp_path: Path) -> None:
    code = (ROOT / "examples" / "run_onnx.py").read_text()
    label, probability = run(code, exported, PHOTOGRAPH, cwd=tmp_path)
    expected = fastvit.predict("fastvit_t8.cifar10", PHOTOGRAPH)
    assert label == expected.label == "cat"
    assert float(probability) == pytest.approx(expected.probability, abs=0.05)  # it is cropped before it is resized


@pytest.mark.slow
def test_the_readmes_lines_for_that_run_too(exported: Path) -> None:
    (exported.parent / "weights").mkdir()
    (exported.parent / "weights" / "cat.jpg").write_bytes(PHOTOGRAPH.read_bytes())
    for code in re.findall(r"```python standalone\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL):
        assert not re.search(rf"import ({'|'.join(WITHOUT)})", code)
        assert run(code, cwd=exported.parent)[0] == "cat"
