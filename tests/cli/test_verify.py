"""fastvit verify, as a person types it."""

import json
from pathlib import Path

import pytest
from helpers.command import run
from helpers.paths import PHOTOGRAPH

import fastvit
from fastvit.models.affine import Affine
from fastvit.models.blocks import PositionEncoding


def test_verify_proves_the_bundled_weights_on_a_photograph() -> None:
    status, shown, error = run("verify", "--image", str(PHOTOGRAPH), "--json")
    report = json.loads(shown)
    assert status == 0, error
    assert report["exact"] and report["top1_agreement"] == 1 and report["images"] == [1, 3, 64, 64]
    assert len(report["blocks"]) == 40


def test_verify_draws_random_weights_for_a_model_that_has_none_and_says_so() -> None:
    status, shown, _ = run("verify", "fastvit_t12", "--image", str(PHOTOGRAPH))
    assert status == 0
    assert "The reparameterized model computes the same." in shown and "random" in shown.splitlines()[-1]
    assert max(map(len, shown.splitlines())) <= 80


def test_the_random_weights_are_those_of_the_seed() -> None:
    errors = []
    for seed in (1, 1, 2):
        status, shown, _ = run("verify", "fastvit_t8", "--seed", seed, "--image", PHOTOGRAPH, "--json")
        assert status == 0
        errors.append([block["own"]["absolute"] for block in json.loads(shown)["blocks"]])
    assert errors[0] == errors[1] != errors[2]


def test_verify_says_in_one_line_what_it_cannot_use(tmp_path: Path) -> None:
    fused = tmp_path / "fused.safetensors"
    fastvit.save(fastvit.create_model("fastvit_t8", reparameterized=True), fused)
    text = tmp_path / "text.safetensors"
    text.write_text("no weights")
    for arguments, words in (
        (["fastvit_t9"], "did you mean fastvit_t8"),
        ([str(fused)], "fused model"),
        ([str(text)], "not a readable safetensors file"),
        ([str(tmp_path / "none.safetensors")], "no such weights file"),
        (["--image", str(text)], "not an image"),
    ):
        status, shown, error = run("verify", *arguments)
        assert (status, shown, error.count("\n")) == (2, "", 1) and words in error, (arguments, error)


def test_verify_exits_with_1_when_reparameterization_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PositionEncoding, "affine", lambda self: Affine.of(self.conv))  # without its skip
    status, shown, _ = run("verify", "fastvit_sa12", "--image", str(PHOTOGRAPH))
    assert status == 1 and "does NOT compute the same" in shown
