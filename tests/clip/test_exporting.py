"""Both encoders as files for other runtimes, which need nothing of this package."""

import json
from pathlib import Path
from typing import Any

import numpy
import onnxruntime
import pytest
import torch
from helpers.clips import small_clip
from helpers.command import run
from helpers.near import assert_near
from helpers.small import small
from torch.nn import functional as F

import fastvit
from fastvit.clip import CLIP, export_text, tokenize
from fastvit.clip.exporting import DeployedText
from fastvit.deploy.exporters import ExportError
from fastvit.deploy.exporters.formats import FORMATS

pytestmark = pytest.mark.usefixtures("small_variants")
SUFFIXES = [".onnx", ".pt2", ".xml", ".mlpackage"]
TEXTS = ["a photo of a cat", "", "word " * 70]


@pytest.fixture(scope="module")
def clips() -> dict[str, CLIP]:
    return {"plain": small_clip(), "mixers": small_clip(mixers=True), "causal": small_clip(causal=True)}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", ["plain", "mixers", "causal"])
def test_a_text_encoder_is_written_for_every_runtime_and_compared(
    clips: dict[str, CLIP], kind: str, suffix: str, tmp_path: Path
) -> None:
    report = export_text(clips[kind], tmp_path / f"text{suffix}")
    limit = 1e-2 if suffix == ".mlpackage" else 1e-5
    assert report.outputs == ("embedding",) and all(check.error.relative < limit for check in report.checks)
    batches = {check.shape for check in report.checks}
    assert batches == ({(1, 77)} if suffix == ".mlpackage" else {(1, 77), (3, 77)})
    assert "49406" in report.metadata["input"] and json.loads(report.metadata["text"])["width"] == 64


@pytest.mark.parametrize("normalize", [False, True])
@torch.no_grad()
def test_the_file_gives_for_texts_what_the_encoder_does(
    clips: dict[str, CLIP], normalize: bool, tmp_path: Path
) -> None:
    clip = clips["mixers"]
    export_text(clip, tmp_path / "text.onnx", normalize=normalize)
    session = onnxruntime.InferenceSession(tmp_path / "text.onnx")
    (taken,) = session.get_inputs()
    assert (taken.name, taken.type, taken.shape) == ("tokens", "tensor(int32)", ["batch", 77])
    tokens = tokenize(TEXTS)
    given = torch.from_numpy(session.run(["embedding"], {"tokens": tokens.int().numpy()})[0])
    assert_near(given, F.normalize(clip.text(tokens)) if normalize else clip.text(tokens), 1e-5)


@torch.no_grad()
def test_the_image_encoder_gives_embeddings_of_unit_length_if_asked(clips: dict[str, CLIP], tmp_path: Path) -> None:
    clip = clips["plain"]
    report = fastvit.export(clip.image, tmp_path / "visual.onnx", normalize=True)
    assert report.metadata["outputs"] == "embedding, of unit length"
    session, images = onnxruntime.InferenceSession(tmp_path / "visual.onnx"), torch.randn(2, 3, 64, 64)
    given = torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
    assert_near(given, clip.encode_image(images), 1e-5)
    with pytest.raises(ValueError, match="normalize is for an embedding, and the model gives logits: leave it out"):
        fastvit.export(small("fastvit_t8"), tmp_path / "x.onnx", normalize=True)


@pytest.mark.parametrize("mistake", ["another token pooled", "positions lost", "no mask"])
def test_a_file_that_computes_something_else_is_not_written(
    clips: dict[str, CLIP], mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced = DeployedText.traced

    def wrong(self: DeployedText, dtype: str) -> Any:
        text: Any = self.lowered
        if mistake == "another token pooled":
            text.forward = lambda tokens: text.projection(
                text.norm(text.blocks(text.tokens(tokens) + text.positions)[:, -1])
            )
        elif mistake == "positions lost":
            text.positions.data.zero_()
        else:
            for block in text.blocks:
                block.attention.causal = not block.attention.causal
        return traced(self, dtype)

    monkeypatch.setattr(DeployedText, "traced", wrong)
    with pytest.raises(ExportError, match=r"differs from eager torch by .*: nothing was written"):
        export_text(clips["causal"], tmp_path / "text.pt2")
    assert not list(tmp_path.iterdir())


def test_half_precision_is_written_and_train_mode_and_other_dtypes_are_refused(
    clips: dict[str, CLIP], tmp_path: Path
) -> None:
    whole = export_text(clips["plain"], tmp_path / "whole.onnx")
    half = export_text(clips["plain"], tmp_path / "half.onnx", dtype="float16")
    assert half.bytes < 0.6 * whole.bytes and half.dtype == "float16"
    with pytest.raises(ValueError, match="cannot export a text encoder in train mode"):
        export_text(small_clip().train(), tmp_path / "x.onnx")
    with pytest.raises(ValueError, match="dtype is 'int8', expected float32 or float16"):
        export_text(clips["plain"], tmp_path / "x.onnx", dtype="int8")
    assert set(FORMATS) == {*SUFFIXES, ".pte"}


def test_the_command_writes_either_encoder(clips: dict[str, CLIP], tmp_path: Path) -> None:
    fastvit.clip.save(clips["plain"], tmp_path / "clip.safetensors")
    for tower, taken in (("text", "tokens"), ("image", "images")):
        out = tmp_path / f"{tower}.onnx"
        ran = run("export", tmp_path / "clip.safetensors", out, "--tower", tower, "--normalize", "--json")
        assert ran.status == 0 and json.loads(ran.stdout)["metadata"]["input"].startswith(taken), ran.stderr
        assert onnxruntime.InferenceSession(out).get_inputs()[0].name == taken
    for option in (["--with-preprocessing"], ["--input-size", "64"], ["--features"]):
        ran = run("export", tmp_path / "clip.safetensors", tmp_path / "x.onnx", "--tower", "text", *option)
        assert ran.status == 2 and "is for images, and the text encoder takes tokens: leave it out" in ran.stderr
    ran = run("export", "fastvit_t8.cifar10", tmp_path / "x.onnx", "--tower", "text")
    assert ran.status == 2 and "has no text encoder" in ran.stderr


@torch.no_grad()
def test_what_a_label_costs_is_seen_in_float16(clips: dict[str, CLIP], tmp_path: Path) -> None:
    """The cosines of float16's file differ from float32's by less than float16's rounding would turn round."""
    clip = clips["plain"]
    export_text(clip, tmp_path / "half.onnx", dtype="float16", normalize=True)
    tokens = tokenize(TEXTS)
    half = onnxruntime.InferenceSession(tmp_path / "half.onnx").run(None, {"tokens": tokens.int().numpy()})[0]
    assert numpy.abs((half * clip.encode_text(TEXTS).numpy()).sum(1) - 1).max() < 1e-3
