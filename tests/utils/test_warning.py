"""What is ignored, replaced or left out is a warning of the library's own class, at the caller's line."""

import warnings
from pathlib import Path

import pytest
from helpers.command import run

import fastvit


def test_a_warning_is_of_one_class_and_names_the_line_of_the_caller() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        fastvit.create_model("fastvit_t8.cifar10", pretrained=True, num_classes=3)
        fastvit.load("fastvit_t8.cifar10", num_classes=4)
    assert [warning.category for warning in seen] == [fastvit.FastViTWarning] * 2
    assert {warning.filename for warning in seen} == {__file__}
    assert seen[0].lineno + 1 == seen[1].lineno
    with pytest.raises(fastvit.FastViTWarning, match="started a new one of 3"):
        fastvit.load("fastvit_t8.cifar10", num_classes=3)  # by the tests' own settings


def test_a_command_prints_a_warning_as_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fastvit.cli.models as models

    monkeypatch.setattr(models, "models", lambda: warnings.warn("something was left out", stacklevel=1))
    warnings.simplefilter("always")
    result = run("models")
    assert result.stderr == "warning: something was left out\n" and result.status == 0
