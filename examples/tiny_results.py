"""What a run of tiny_fastvlm.py came to: figures, images, and the model in transformers' format."""

import json
import os
import shutil
from typing import Any

import torch
from console import writing
from tiny_captions import captions
from tiny_model import ENCODER
from tiny_run import Run

import fastvit
from fastvit.data import LabelledImages
from fastvit.utils.atomic import replacing
from fastvit.utils.sampling import evenly


def correct_by_classifier(validation: LabelledImages) -> list[bool] | None:
    """Of each image whether the encoder's own classifier names it correctly; None if these are not its classes."""
    model = fastvit.load(ENCODER)
    known = model.pretrained_cfg["label_names"]
    classes = validation.source.classes
    if not set(classes) <= set(known):
        return None
    fused, correct = fastvit.reparameterize(model), []
    with torch.inference_mode():
        for images, labels, _ in validation.batches(100):
            guesses = fused(images).argmax(1)
            correct += [known[guess] == classes[label] for guess, label in zip(guesses, labels, strict=True)]
    return correct


def results(run: Run) -> dict[str, Any]:
    """What results.json says: correct captions in percent, seconds of training, versions."""
    import transformers

    def percent(correct: list[bool] | None) -> float | None:
        return 100 * sum(correct) / len(correct) if correct else None

    validation, correct = run.validation.source, run.correct("all")
    of_class: dict[str, list[bool]] = {name: [] for name in validation.classes}
    for label, value in zip(validation.labels, correct, strict=True):
        of_class[validation.classes[label]].append(value)
    grammar = {text for name in validation.classes for text in captions(name)}
    return {
        "correct": percent(correct),
        "correct_after_projector": percent(run.correct("projector")),
        "correct_by_classifier": percent(correct_by_classifier(run.validation)),
        "sentences": percent([text in grammar for text in run.captions["all"]]),
        "correct_of_class": {name: percent(values) for name, values in of_class.items()},
        "seconds": {stage: round(seconds, 1) for stage, seconds in run.seconds.items()},
        "parameters": {name: sum(p.numel() for p in part.parameters()) for name, part in run.parts.items()},
        "settings": run.settings,
        "threads": torch.get_num_threads(),
        "versions": {library.__name__: str(library.__version__) for library in (torch, transformers, fastvit)},
    }


def draw_samples(run: Run) -> Any:
    """Two dozen validation images with what the model says."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 8), layout="constrained")
    answers = list(zip(range(len(run.validation)), run.captions["all"], run.correct("all"), strict=True))
    panels = figure.subplots(4, 6).flat
    shown = [answers[index] for index in evenly(len(panels), len(answers))]
    for panel, (index, text, correct) in zip(panels, shown, strict=False):
        panel.imshow(run.validation.source.read(index))
        panel.set_title(f"{text}\n{'correct' if correct else 'wrong'}", fontsize=7, color="green" if correct else "red")
    for panel in figure.axes:
        panel.axis("off")
    return figure


def draw_losses(run: Run) -> Any:
    """Every step's loss, and the mean of the last twenty."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import ScalarFormatter

    figure = Figure(figsize=(7, 4), layout="constrained")
    panel, start = figure.subplots(), 0
    for stage, losses in run.losses.items():
        recent = [losses[max(0, end - 20) : end] for end in range(1, len(losses) + 1)]
        steps = range(start, start + len(losses))
        panel.plot(steps, losses, color="lightgray")
        panel.plot(steps, [sum(few) / len(few) for few in recent], label=stage)
        start += len(losses)
    panel.set(xlabel="step", ylabel="loss, nats a token", yscale="log")
    for labels in (panel.yaxis.set_major_formatter, panel.yaxis.set_minor_formatter):
        labels(ScalarFormatter())  # 0.2 and not 2 x 10^-1
    panel.legend()
    return figure


def write(run: Run) -> dict[str, Any]:
    """model/, the images and, last, results.json."""
    import transformers

    transformers.logging.disable_progress_bar()
    staged, folder = run.options.out / f".model.{os.getpid()}", run.options.out / "model"
    try:
        with writing(staged):
            run.model.save_pretrained(staged)
            run.tokenizer.save_pretrained(staged)
        shutil.rmtree(folder, ignore_errors=True)
        staged.rename(folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    for name, figure in (("samples.png", draw_samples(run)), ("losses.png", draw_losses(run))):
        with replacing(run.options.out / name) as path:
            figure.savefig(path, dpi=120)
    found = results(run)
    with replacing(run.options.out / "results.json") as path:
        path.write_text(json.dumps(found, indent=1) + "\n")
    return found
