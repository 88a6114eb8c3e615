"""What CONTRIBUTING.md promises to those who add something."""

import os
import re
import subprocess
import sys

import pytest
from helpers.paths import ROOT

NAME = "fastvit_xt8"  # of helpers/one_more_variant.py, which adds it to the table of the process that imports it
ROW_TESTS = (
    "tests/models/test_config.py",
    "tests/models/test_sizes.py::test_every_row_is_a_variants_in_the_order_of_the_configs",
    f"tests/models/test_sizes.py::test_a_row_is_what_counting_gives[{NAME}]",
    "tests/weights/test_catalog.py",
    "tests/cli/test_models.py",
    "tests/test_registering.py::test_registering_adds_only_what_timm_lacks_and_says_which",
    "tests/test_package.py::test_the_readmes_table_is_what_fastvit_models_prints",
    "tests/test_create.py::test_models_are_listed_by_shell_patterns",
)  # all that read the table of variants and failed when there was a row that they did not know


@pytest.mark.slow
def test_one_row_more_in_the_table_of_variants_fails_no_test() -> None:
    options = ["-q", "-n0", "-rs", "-p", "no:cacheprovider", "-p", "helpers.one_more_variant", "-m", "not slow"]
    command = [sys.executable, "-m", "pytest", *options, *ROW_TESTS]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-1000:]
    line = re.escape(f'"{NAME}": Size(') + r"[\d_]+, [\d_]+, [\d_]+\),"
    assert re.search(rf"add this line to SIZES in fastvit/models/config\.py: {line}", ran.stdout)


def test_the_files_that_it_names_are_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    assert len(text.splitlines()) < 80  # one page
    for name in re.findall(r"`((?:tests|fastvit)/[\w/.]+)`", text):
        assert (ROOT / name).exists(), name
    for module, names in (
        ("models/config.py", ("CONFIGS: ", "SIZES: ")),
        ("deploy/exporters/formats.py", ("FORMATS = ",)),
        ("deploy/engines/builders.py", ("ENGINES = ",)),
        ("utils/warning.py", ("def warn(",)),
    ):
        assert all(name in (ROOT / "fastvit" / module).read_text() for name in names), module
