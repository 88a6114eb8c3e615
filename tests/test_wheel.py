"""The wheel, away from the checkout."""

import json
import os
import subprocess
import sys
from pathlib import Path

from helpers.paths import ROOT


def test_a_wheel_installed_outside_the_checkout_classifies(tmp_path: Path) -> None:
    def run(*command: str | Path, **environment: str) -> str:
        ran = subprocess.run(
            [sys.executable, "-m", *map(str, command)],
            cwd=tmp_path,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    run("build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT)
    [wheel] = tmp_path.glob("fastvit-*.whl")
    assert wheel.stat().st_size < 12e6
    installed = tmp_path / "installed"
    run("pip", "install", "--quiet", "--no-deps", "--no-index", "--target", installed, wheel)
    assert (installed / "fastvit" / "weights" / "fastvit_t8.cifar10.safetensors").exists()
    assert (installed / "fastvit" / "py.typed").exists() and (installed / "fastvit" / "__init__.pyi").exists()
    assert not (installed / "weights").exists() and not (installed / "tests").exists()
    shown = run("fastvit", "classify", ROOT / "weights" / "cat.jpg", "--json", PYTHONPATH=str(installed))
    assert json.loads(shown)["predictions"][0]["label"] == "cat"
