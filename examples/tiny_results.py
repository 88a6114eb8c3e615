"""What a run of tiny_fastvlm.py came to: figures, pictures, and the model in transformers' format."""

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


def right_by_classifier(pictures: LabelledImages) -> list[bool] | None:
    """Of each picture whether the encoder's own classifier names it right; None if these are not its classes."""
    model = fastvit.load(ENCODER)
    known = model.pretrained_cfg["label_names"]
    classes = pictures.source.classes
    if not set(classes) <= set(known):
        return None
    fused, right = fastvit.reparameterize(model), []
    with torch.inference_mode():
        for images, labels, _ in pictures.batches(100):
            guesses = fused(images).argmax(1)
            right += [known[guess] == classes[label] for guess, label in zip(guesses, labels, strict=True)]
    return right


def results(run: Run) -> dict[str, Any]:
    """What results.json says: right captions in percent, seconds of training, versions."""
    import transformers

    def percent(right: list[bool] | None) -> float | None:
        return 100 * sum(right) / len(right) if right else None

    held_out, right = run.held_out.source, run.right("all")
    of_class: dict[str, list[bool]] = {name: [] for name in held_out.classes}
    for label, value in zip(held_out.labels, right, strict=True):
        of_class[held_out.classes[label]].append(value)
    grammar = {text for name in held_out.classes for text in captions(name)}
    return {
        "right": percent(right),
        "right_after_projector": percent(run.right("projector")),
        "right_by_classifier": percent(right_by_classifier(run.held_out)),
        "sentences": percent([text in grammar for text in run.captions["all"]]),
        "right_of_class": {name: percent(values) for name, values in of_class.items()},
        "seconds": {stage: round(seconds, 1) for stage, seconds in run.seconds.items()},
        "parameters": {name: sum(p.numel() for p in part.parameters()) for name, part in run.parts.items()},
        "settings": run.settings,
        "threads": torch.get_num_threads(),
        "versions": {library.__name__: str(library.__version__) for library in (torch, transformers, fastvit)},
    }


def draw_samples(run: Run) -> Any:
    """Two dozen held-out pictures with what the model says."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 8), layout="constrained")
    answers = list(zip(range(len(run.held_out)), run.captions["all"], run.right("all"), strict=True))
    panels = figure.subplots(4, 6).flat
    shown = [answers[index] for index in evenly(len(panels), len(answers))]
    for panel, (index, text, right) in zip(panels, shown, strict=False):
        panel.imshow(run.held_out.source.read(index))
        panel.set_title(f"{text}\n{'right' if right else 'wrong'}", fontsize=7, color="green" if right else "red")
    for panel in figure.axes:
        panel.axis("off")
    return figure


def draw_losses(run: Run) -> Any:
    """Every update's loss, and the mean of the last twenty."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import ScalarFormatter

    figure = Figure(figsize=(7, 4), layout="constrained")
    panel, start = figure.subplots(), 0
    for stage, losses in run.losses.items():
        recent = [losses[max(0, end - 20) : end] for end in range(1, len(losses) + 1)]
        updates = range(start, start + len(losses))
        panel.plot(updates, losses, color="lightgray")
        panel.plot(updates, [sum(few) / len(few) for few in recent], label=stage)
        start += len(losses)
    panel.set(xlabel="update", ylabel="loss, nats a token", yscale="log")
    for labels in (panel.yaxis.set_major_formatter, panel.yaxis.set_minor_formatter):
        labels(ScalarFormatter())  # 0.2 and not 2 x 10^-1
    panel.legend()
    return figure


def write(run: Run) -> dict[str, Any]:
    """model/, the pictures and, last, results.json."""
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
