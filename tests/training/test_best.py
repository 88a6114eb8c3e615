"""The best weights of a run and the report on them, beside those of the last epoch; and runs that patience ends."""

import csv
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.command import run
from helpers.small_run import AfterStep, arguments, small_trainer

import fastvit
from fastvit.evaluation.metrics import Metrics
from fastvit.testing import write_images
from fastvit.training import Stopped, Trainer
from fastvit.training.best import FILES, is_better

pytestmark = pytest.mark.usefixtures("small_variants")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_images(tmp_path / "data", train=4, val=2)


def with_accuracies(trainer: Trainer, monkeypatch: pytest.MonkeyPatch, *percents: float) -> Trainer:
    """Its validation finds these accuracies, epoch by epoch; the loss is that of the model."""
    validate = Trainer.validate

    def validated(self: Trainer) -> Metrics:
        metrics = validate(self)
        metrics.correct = torch.tensor([round(metrics.images * percents[self.epoch - 1] / 100), 0])
        return metrics

    monkeypatch.setattr(Trainer, "validate", validated)
    return trainer


def weights(path: Path) -> dict[str, torch.Tensor]:
    return fastvit.load(path).state_dict()


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_the_weights_of_the_epoch_with_the_highest_accuracy_are_kept_beside_the_last(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = with_accuracies(small_trainer(data, tmp_path / "run", {"epochs": 3}), monkeypatch, 25, 75, 50)
    after: dict[int, dict[str, torch.Tensor]] = {}

    def remember(trainer: Trainer, loss: float) -> None:
        after[trainer.state.step] = {name: tensor.clone() for name, tensor in trainer.state.ema.tensors.items()}

    trained = trainer.train(AfterStep(remember))
    assert same(weights(trained.best), after[4]) and same(weights(trained.last), after[6])
    assert (trained.best, trained.last) == (tmp_path / "run/best.safetensors", tmp_path / "run/model.safetensors")
    assert trained.best_epoch == trained.history[1] and not trained.stopped_early
    assert same(trained.load(best=True).state_dict(), after[4]) and same(trained.load().state_dict(), after[6])
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert (report["weights"], report["epoch"], report["top1"]) == ("best.safetensors", 2, 75)
    assert (tmp_path / "run/report.txt").read_text().startswith("weights best.safetensors\nepoch   2\n")
    with pytest.warns(fastvit.FastViTWarning, match="read model.safetensors, and not best.safetensors"):
        assert same(fastvit.load(tmp_path / "run").state_dict(), after[6])


@pytest.mark.parametrize(
    ("line", "best", "better"),
    [((90, 0.5), None, True), ((90, 0.4), (90, 0.5), True), ((90, 0.5), (90, 0.5), False), ((89, 0.1), (90, 9), False)],
)
def test_of_equal_accuracies_the_lower_loss_is_better_and_of_equal_losses_the_earlier(
    line: tuple[float, float], best: tuple[float, float] | None, better: bool
) -> None:
    def named(pair: tuple[float, float]) -> dict[str, float]:
        return {"top1": pair[0], "validation_loss": pair[1]}

    assert is_better(named(line), named(best) if best else {}) == better


@pytest.mark.parametrize("moment", ["before the checkpoint", "between the checkpoint and the best weights"])
def test_a_run_killed_at_the_end_of_its_best_epoch_has_the_same_best_weights_as_one_never_killed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    percents, changes = (25.0, 75.0, 50.0), {"epochs": 3}
    with_accuracies(small_trainer(data, tmp_path / "whole", changes), monkeypatch, *percents).train()
    method = "save" if moment.startswith("before") else "_save_best"
    original = getattr(Trainer, method)

    def killed(self: Trainer, *arguments: Any) -> None:
        if self.state.step == 4:
            raise MemoryError  # whatever: nothing is written on the way out
        original(self, *arguments)

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(Trainer, method, killed)
        small_trainer(data, tmp_path / "killed", changes).train()
    resumed = small_trainer(data, tmp_path / "killed", changes)
    assert resumed.state.step == (2 if method == "save" else 4)
    resumed.train()
    for name in ("best.safetensors", "model.safetensors"):
        assert same(weights(tmp_path / "whole" / name), weights(tmp_path / "killed" / name)), name
    reports = [json.loads((tmp_path / run / "report.json").read_text()) for run in ("whole", "killed")]
    for report in reports:
        del report["images_per_second"]
    assert reports[0] == reports[1] and reports[0]["epoch"] == 2


def test_patience_ends_a_run_that_gets_no_better_and_says_so(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = small_trainer(data, tmp_path / "run", {"epochs": 9, "patience": 2})
    trained = with_accuracies(trainer, monkeypatch, 25, 75, 50, 50).train()
    assert [line["epoch"] for line in trained.history] == [1, 2, 3, 4] and trained.stopped_early
    assert "Stopped early, of 9 epochs: no better validation in the last 2." in str(trained)
    assert trained.to_dict()["stopped_early"] is True
    assert small_trainer(data, tmp_path / "run", {"epochs": 9, "patience": 2}).finished  # it does not go on by itself


def test_a_run_that_patience_ended_goes_on_with_more_of_it_and_says_what_changed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    percents = (75.0, 50.0, 50.0, 50.0)
    short = with_accuracies(small_trainer(data, tmp_path / "run", {"epochs": 4, "patience": 1}), monkeypatch, *percents)
    assert len(short.train().history) == 2
    with pytest.warns(fastvit.FastViTWarning, match="patience was 1, is 0"):
        longer = small_trainer(data, tmp_path / "run", {"epochs": 4, "patience": 0})
    longer.train()
    small_trainer(data, tmp_path / "whole", {"epochs": 4}).train()
    assert same(weights(tmp_path / "run/model.safetensors"), weights(tmp_path / "whole/model.safetensors"))


def test_patience_counts_on_after_a_stop(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"epochs": 9, "patience": 2}
    trainer = with_accuracies(small_trainer(data, tmp_path / "run", changes), monkeypatch, 75, 50, 50, 50)

    def stop(trainer: Trainer, loss: float) -> None:
        if trainer.state.step == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped):
        trainer.train(AfterStep(stop))
    assert len(small_trainer(data, tmp_path / "run", changes).train().history) == 3


def test_the_report_has_precision_recall_and_f1_as_scikit_learn_has_them(tmp_path: Path) -> None:
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (200,), generator=generator)
    logits = torch.randn(200, 3, generator=generator) + torch.nn.functional.one_hot(labels, 3)
    metrics = Metrics(["a", "b", "c"], [0, 1, 2], 3)
    metrics.add(logits, labels)
    metrics.seconds = 1.0
    fastvit.evaluation.write_report(metrics, tmp_path, {"weights": "best.safetensors"})
    expected = sklearn_metrics.precision_recall_fscore_support(labels, logits.argmax(1))
    report = json.loads((tmp_path / "report.json").read_text())
    for column, (name, scale) in enumerate((("precision", 100), ("top1", 100), ("f1", 100), ("images", 1))):
        assert [row[name] for row in report["classes"]] == pytest.approx(expected[column] * scale), name
    confusion = sklearn_metrics.confusion_matrix(labels, logits.argmax(1)).tolist()
    assert report["confusion"] == {"labels": ["a", "b", "c"], "predictions": ["a", "b", "c"], "counts": confusion}
    with (tmp_path / "confusion.csv").open(encoding="utf-8-sig") as file:
        head, *rows = csv.reader(file)
    assert head == ["label", "a", "b", "c"] and [[int(cell) for cell in row[1:]] for row in rows] == confusion
    shown = (tmp_path / "report.txt").read_text().splitlines()
    row = next(line for line in shown if line.startswith("a ")).split()
    assert row == ["a", *(str(report["classes"][0][name]) for name in ("images", "correct")), *(
        f"{100 * expected[column][0]:.2f}" for column in (1, 0, 2))]  # fmt: skip


def test_a_class_that_is_never_predicted_has_no_precision_and_other_predictions_have_a_column(tmp_path: Path) -> None:
    metrics = Metrics(["a", "b, c"], [0, 1], 3)
    metrics.add(torch.eye(3)[[0, 2, 2, 0]], torch.tensor([0, 0, 1, 1]))
    assert [(row.precision, row.top1, row.f1) for row in metrics.classes] == [(50.0, 50.0, 50.0), (None, 0.0, 0.0)]
    fastvit.evaluation.write_confusion(metrics, tmp_path / "confusion.csv")
    assert (tmp_path / "confusion.csv").read_text("utf-8-sig") == 'label,a,"b, c",other\na,1,0,1\n"b, c",1,0,1\n'
    fastvit.evaluation.write_confusion(metrics, tmp_path / "confusion.json")
    assert json.loads((tmp_path / "confusion.json").read_text())["counts"] == [[1, 0, 1], [1, 0, 1]]


def test_the_command_says_which_file_has_which_accuracy(data: Path, tmp_path: Path) -> None:
    result = run("train", *arguments(data, tmp_path / "run"))
    report = json.loads((tmp_path / "run/report.json").read_text())
    best, last = result.stdout.splitlines()[-2:]
    assert best.startswith(f"{tmp_path}/run/best.safetensors: top-1 {report['top1']:.2f} %, the best, of epoch")
    assert last.startswith(f"{tmp_path}/run/model.safetensors: top-1 ") and last.endswith("the last")
    assert {path.name for path in (tmp_path / "run").iterdir()} >= {*FILES} - {"confusion.png"}


@pytest.mark.usefixtures("curves")
def test_curves_of_a_single_epoch_have_a_line_for_the_learning_rate(data: Path, tmp_path: Path) -> None:
    from matplotlib.axes import Axes

    drawn: dict[int, list[Any]] = {}
    plot = Axes.plot

    def recorded(axes: Axes, *arguments: Any, **style: Any) -> Any:
        lines = plot(axes, *arguments, **style)
        drawn.setdefault(id(axes), []).extend(lines)
        return lines

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Axes, "plot", recorded)
        small_trainer(data, tmp_path / "run", {"epochs": 1, "warmup_epochs": 0.0}).train()
    curves = next(lines for lines in drawn.values() if len(lines) == 1)
    assert len(curves[0].get_xdata()) == 2  # a point for each of the two steps, and so a line
    lonely = [line for lines in drawn.values() for line in lines if len(line.get_xdata()) == 1]
    assert lonely and all(line.get_marker() == "o" for line in lonely)
