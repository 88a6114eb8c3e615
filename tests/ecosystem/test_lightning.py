"""A FastViT in a LightningModule: it trains, is checkpointed and loaded, averaged, compiled, and deployed.

Oracle: torch's own loop, and the outputs of the module before.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.near import assert_near
from helpers.small import equal, small
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import fastvit
from fastvit.utils.copies import duplicate

lightning = pytest.importorskip("lightning")
pytestmark = pytest.mark.filterwarnings("ignore")  # lightning's own

IMAGES = torch.randn(16, 3, 64, 64, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(16) % 4


class Classifier(lightning.LightningModule):
    """As its documents show one."""

    def __init__(self, compiles: bool = False) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.backbone = small("fastvit_sa12", num_classes=4)
        self.run = torch.compile(self.backbone, backend="eager") if compiles else self.backbone

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.run(images)
        return logits

    def training_step(self, batch: Any, index: int) -> Tensor:
        images, labels = batch
        loss = nn.functional.cross_entropy(self(images), labels)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trained(folder: Path, module: Classifier, *callbacks: Any, epochs: int = 2) -> Any:
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        callbacks=list(callbacks),
        default_root_dir=folder,
    )
    trainer.fit(module, DataLoader(TensorDataset(IMAGES, LABELS), batch_size=8))
    return trainer


@pytest.mark.parametrize("compiles", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["eager", "compiled"])
def test_it_trains_as_in_torchs_own_loop(compiles: bool, tmp_path: Path) -> None:
    module, model = Classifier(compiles), small("fastvit_sa12", num_classes=4)
    trained(tmp_path, module.train())
    optimizer = torch.optim.SGD(model.train().parameters(), lr=0.1)
    for _ in range(2):
        for images, labels in zip(IMAGES.split(8), LABELS.split(8), strict=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
    with torch.no_grad():
        assert_near(module.backbone.eval()(IMAGES), model.eval()(IMAGES), 1e-3)


def test_a_checkpoint_gives_the_module_back_and_the_model_inside_is_saved_and_deployed(
    tmp_path: Path, small_variants: None
) -> None:
    module = Classifier()
    trainer = trained(tmp_path, module, epochs=1)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    again = Classifier.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=False).eval()
    assert equal(again, module)
    again.backbone.pretrained_cfg |= {"architecture": "fastvit_sa12"}
    fastvit.save(again.backbone, tmp_path / "model.safetensors")
    with torch.no_grad():
        expected = module.eval()(IMAGES)
        assert_near(fastvit.load(tmp_path / "model.safetensors")(IMAGES), expected, 1e-5)
        fused = fastvit.reparameterize(again)
        assert type(fused) is Classifier and fastvit.form_of(fused.backbone) == "fused"
        assert_near(fused(IMAGES), expected, 1e-5)
        run = fastvit.engine(module, "torch")
        assert_near(run(IMAGES), expected, 1e-5)


def test_hooks_of_the_module_see_the_fused_model_and_its_trainer_is_not_copied(tmp_path: Path) -> None:
    module, seen = Classifier(), []
    trainer = trained(tmp_path, module, epochs=1)
    module.backbone.stages[0].register_forward_hook(lambda *_: seen.append(1))
    fused = fastvit.reparameterize(module.eval().backbone)
    fused(IMAGES)
    assert seen == [1] and module.trainer is trainer


def test_averaged_weights_are_reparameterized(tmp_path: Path) -> None:
    from lightning.pytorch.callbacks import EMAWeightAveraging

    module = Classifier()
    trained(tmp_path, module, EMAWeightAveraging(decay=0.5))
    with torch.no_grad():
        expected = module.eval()(IMAGES)
        assert_near(fastvit.reparameterize(duplicate(module))(IMAGES), expected, 1e-5)


@pytest.mark.slow
def test_the_module_is_exported(tmp_path: Path) -> None:
    module = Classifier().eval()
    report = fastvit.export(module, tmp_path / "module.pt2", input_size=(64, 64))
    assert report.outputs == ("output",)
    with torch.no_grad():
        assert_near(torch.export.load(report.path).module()(IMAGES), module(IMAGES), 1e-4)
