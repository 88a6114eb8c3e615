"""What the README says of labels in words runs."""

import re
from pathlib import Path

import pytest
from helpers.clips import small_clip
from helpers.hub_server import Hub
from helpers.paths import ROOT
from PIL import Image

import fastvit
from fastvit.weights.catalog import CLIPS


@pytest.mark.usefixtures("small_variants")
def test_the_readmes_labels_and_search_run(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FASTVIT_CACHE", str(tmp_path / "cache"))
    fastvit.clip.save(small_clip(), tmp_path / "open_clip_model.safetensors", names="open_clip")
    file = tmp_path / "open_clip_model.safetensors"
    hub.publish(CLIPS["mobileclip2_s0"].repository, {file.name: file.read_bytes()})
    monkeypatch.chdir(tmp_path)
    Path("photographs").mkdir()
    for number in range(6):
        Image.effect_noise((70, 60), 20 * number).convert("RGB").save(f"photographs/{number}.png")
    blocks = re.findall(r"```python download\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    labels, search = [block for block in blocks if "mobileclip2_s0" in block]
    exec(labels.replace("weights/cat.jpg", str(ROOT / "weights" / "cat.jpg")), {"fastvit": fastvit})
    shown = capsys.readouterr().out
    assert shown.split("\n")[0] in ("cat", "dog", "fire truck") and "tensor([[" in shown
    assert fastvit.load("pets.safetensors").pretrained_cfg["label_names"] == ["cat", "dog", "fire truck"]
    exec(search, {"fastvit": fastvit})
    assert capsys.readouterr().out.count("photographs") == 5
