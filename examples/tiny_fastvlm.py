"""A vision language model that learns to see: FastVLM (arXiv:2412.13303) in miniature, on two processor cores.

    python examples/tiny_fastvlm.py --data cifar10 --out runs/tiny_fastvlm
    python examples/tiny_fastvlm.py --out runs/tiny_fastvlm --caption weights/cat.jpg

DATA holds train/CLASS/* and test/CLASS/* (or val/), as for `fastvit train`. The eye is fastvit_t8.cifar10, folded: at
64 x 64 pixels it gives 4 tokens of 768 channels. A projector of two layers with a GELU in between brings them into a
Qwen2 of 0.6 million parameters, random at first, with one token for each word of a small grammar. It learns in three
stages; a published FastVLM can do without the first, since its language model has read before.

words      The language model alone, without pictures. Where a picture's tokens will be stands, at one random place, the
           class's word, and the caption is to be written: so it learns the grammar, and to look there.
projector  The projector alone, with encoder and language model frozen: it learns to say a picture in words.
all        Everything, the folded encoder too, at a fiftieth of the projector's learning rate, as in the paper.

Right is a caption that is, letter for letter and with its end, one of the four sentences that the grammar has for the
picture's class, such as "a photo of a small frog.": another size or class, or any other word, is wrong. Captions are
written greedily, of held-out pictures, spread evenly over the classes, which no training has seen. Beside that stands
what the encoder's own classifier gets right of the same pictures, before any of this.

Needs pip install "fastvit[train,vlm]". OUT receives last.pt every --every updates, from which the same command goes on,
to the very weights of a run that was never stopped; at the end results.json, samples.png, losses.png; and model/, for
`fastvit.fastvlm.load`, or transformers' from_pretrained:

    fastvit.fastvlm.register()
    model = transformers.FastVlmForConditionalGeneration.from_pretrained("runs/tiny_fastvlm/model")
"""

import argparse
import json
import math
import pickle
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy
import torch
from console import Progress, check_installed, check_least, make_folder, status_of, writing
from tiny_captions import END, IMAGE, WAYS, Sentences, ask, captions, make_tokenizer
from tiny_results import write
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import fastvit
from fastvit.atomic import replacing
from fastvit.data import Pictures, check_same_classes, held_out_folder
from fastvit.images import read_image
from fastvit.recipe import Recipe

ENCODER = "fastvit_t8.cifar10"
STAGES = {  # the highest learning rate of each part that is trained
    "words": {"language_model": 2e-3},
    "projector": {"projector": 2e-3},
    "all": {"language_model": 4e-5, "projector": 4e-5, "encoder": 4e-5},
}
QUICK = {"steps": (150, 40, 20), "batch_size": 32, "test_images": 100}
AUGMENTATION = Recipe(  # that of the encoder's own training (weights/README.md)
    size=64, smallest_area=0.4, auto_augment="rand-m9-n1-mstd0.5-mmax9-inc1", random_erasing=0.25, mixup=0.0, cutmix=0.0
)
Report = Callable[..., None]  # title, done, total, loss


def mixed(*numbers: int) -> int:
    """Many numbers -> one, the seed of what depends on all of them."""
    return int(numpy.random.SeedSequence(numbers).generate_state(1)[0])


class Views(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Position in a stage -> (augmented picture, class, way to say it), all drawn from the seed and the position.

    So it is nothing to a run how often it was stopped, or which process reads its pictures.
    """

    def __init__(self, pictures: Pictures, seed: Sequence[int], length: int) -> None:
        self.pictures, self.seed = pictures, seed
        generator = torch.Generator().manual_seed(mixed(*seed))
        passes = range(-(-length // len(pictures)))
        self.order = torch.cat([torch.randperm(len(pictures), generator=generator) for _ in passes])[:length]

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor, Tensor]:
        seed = mixed(*self.seed, position)
        torch.manual_seed(seed), random.seed(seed), numpy.random.seed(seed)  # the augmentation draws from all three
        return *self.pictures[int(self.order[position])], torch.randint(len(WAYS), ())


def spread(items: list[Any], number: int) -> list[Any]:
    """So many of the items, evenly spread over the list and so over the classes; 0 means all."""
    number = min(number, len(items)) or len(items)
    return [items[index * len(items) // number] for index in range(number)]


def make_model(tokenizer: Any, seed: int) -> Any:
    """The encoder, folded, a random projector, a random Qwen2: without dropout, and so in eval mode even to train."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from fastvit.fastvlm import join

    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    encoder = fastvit.reparameterize(fastvit.load(ENCODER).eval()).to(memory_format=torch.channels_last)
    return join(encoder, Qwen2ForCausalLM(config), tokenizer.convert_tokens_to_ids(IMAGE)).eval()


@torch.inference_mode()
def describe(model: Any, tokenizer: Any, images: Tensor) -> list[str]:
    """Preprocessed images (B, 3, H, W) -> a caption of each; one that found no end has "..." behind it."""
    image_tokens = model.model.vision_tower.encoder.num_tokens(*images.shape[2:])
    prompt = ask(tokenizer, image_tokens).expand(len(images), -1)
    inputs = {"input_ids": prompt, "attention_mask": torch.ones_like(prompt), "pixel_values": images}
    written = model.generate(**inputs, do_sample=False)[:, prompt.shape[1] :]
    texts = [tokenizer.decode(tokens).partition(END) for tokens in written]
    return [text.strip() + ("" if end else " ...") for text, end, _ in texts]


class Run:
    """The model, and how far it has come in the stages.

    Args:
        options: those of the command line.

    Raises:
        ValueError: data that is not there, or an `out` that cannot be written to.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.last = options, options.out / "last.pt"
        self.pictures = Pictures(options.data / "train", AUGMENTATION.transform(0))
        self.held_out = Pictures(held_out_folder(options.data), lambda image: self.encoder.preprocess(image))
        check_same_classes(self.pictures, self.held_out)
        self.pictures.items = spread(self.pictures.items, options.images)
        self.held_out.items = spread(self.held_out.items, options.test_images)
        classes = self.pictures.classes
        self.tokenizer = make_tokenizer(classes)
        self.model = make_model(self.tokenizer, options.seed)
        vlm = self.model.model
        self.encoder = vlm.vision_tower.encoder
        self.parts = {"language_model": vlm.language_model, "projector": vlm.multi_modal_projector}
        self.parts["encoder"] = self.encoder
        image_tokens = self.encoder.num_tokens(*self.encoder.preprocess.size)
        self.sentences = Sentences(self.tokenizer, classes, image_tokens)
        self.model.generation_config.max_new_tokens = self.sentences.longest
        self.steps = dict(zip(STAGES, options.steps, strict=True))
        self.settings = {name: getattr(options, name) for name in ("batch_size", "seed")}
        self.settings |= {"classes": classes, "images": len(self.pictures), "test_images": len(self.held_out)}
        self.settings |= {"stages": STAGES, "steps": self.steps}
        self.losses: dict[str, list[float]] = {stage: [] for stage in STAGES}  # of each update
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.captions: dict[str, list[str]] = {}  # of the held-out pictures, after a stage
        self.optimizer: torch.optim.Optimizer | None = None
        self._kept: Any = None  # the optimizer's state in the stage in which a run was stopped
        make_folder(options.out)

    def train(self, report: Report) -> None:
        """All that is not done yet, with a checkpoint now and then; `report` hears of every update."""
        for stage in STAGES:
            if len(self.losses[stage]) < self.steps[stage]:
                self._train(stage, report)
            if stage != "words" and stage not in self.captions:
                self.captions[stage] = self._describe_held_out(report)
                self.save()

    def _train(self, stage: str, report: Report) -> None:
        losses, size = self.losses[stage], self.options.batch_size
        self.optimizer = self._start(stage)
        started = time.perf_counter() - self.seconds[stage]
        for inputs in self._batches(stage, len(losses)):
            losses.append(self._update(inputs, len(losses) / self.steps[stage]))
            self.seconds[stage] = time.perf_counter() - started
            report(stage, len(losses) * size, self.steps[stage] * size, losses[-1])
            if len(losses) % self.options.every == 0 or len(losses) == self.steps[stage]:
                self.save()

    def _start(self, stage: str) -> torch.optim.Optimizer:
        """Freeze all parts but the stage's -> their optimizer, as it was if the run was stopped in this stage."""
        self.model.requires_grad_(False)
        parts = {name: self.parts[name].requires_grad_(True) for name in STAGES[stage]}
        groups = [{"params": [*part.parameters()], "highest": STAGES[stage][name]} for name, part in parts.items()]
        optimizer = torch.optim.AdamW(groups, weight_decay=0.05)
        if self._kept is not None:
            optimizer.load_state_dict(self._kept)
            self._kept = None
        return optimizer

    def _batches(self, stage: str, start: int) -> Iterator[dict[str, Tensor]]:
        """What the model learns from, update after update, from the one numbered `start` on."""
        size, seed = self.options.batch_size, (self.options.seed, list(STAGES).index(stage))
        if stage == "words":
            highs = (*self.sentences.ids.shape[:2], self.sentences.image_tokens)  # classes, ways, places
            for step in range(start, self.steps[stage]):
                generator = torch.Generator().manual_seed(mixed(*seed, step))
                yield self.sentences.inputs(*(torch.randint(high, (size,), generator=generator) for high in highs))
            return
        views = Views(self.pictures, seed, self.steps[stage] * size)
        rest = range(start * size, len(views))
        for images, classes, ways in DataLoader(views, size, sampler=rest, num_workers=self.options.workers):
            pixels = images.contiguous(memory_format=torch.channels_last)
            yield {**self.sentences.inputs(classes, ways), "pixel_values": pixels}

    def _update(self, inputs: dict[str, Tensor], done: float) -> float:
        """One, with that part of the stage done -> the loss, in nats a token."""
        assert self.optimizer
        for group in self.optimizer.param_groups:  # a short rise, then half a cosine down
            group["lr"] = group["highest"] * min(1, 0.1 + done / 0.05) * (1 + math.cos(math.pi * done)) / 2
        loss = self.model(**inputs, use_cache=False).loss
        loss.backward()
        nn.utils.clip_grad_norm_([p for group in self.optimizer.param_groups for p in group["params"]], 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()

    def _describe_held_out(self, report: Report) -> list[str]:
        texts: list[str] = []
        for images, _ in DataLoader(self.held_out, 100):
            texts += describe(self.model, self.tokenizer, images)
            report("held-out captions", len(texts), len(self.held_out))
        return texts

    def right(self, stage: str) -> list[bool]:
        """Of each held-out picture whether its caption, as written after the stage, was right."""
        names = [self.held_out.classes[label] for _, label in self.held_out.items]
        return [text in captions(name) for text, name in zip(self.captions[stage], names, strict=True)]

    def save(self) -> None:
        names = ("settings", "losses", "seconds", "captions")
        optimizer = self.optimizer.state_dict() if self.optimizer else None
        state = {name: getattr(self, name) for name in names} | {"optimizer": optimizer}
        with writing(self.last), replacing(self.last) as path:
            torch.save(state | {"model": self.model.state_dict()}, path)

    def resume(self) -> int:
        """Go on from `last.pt`, if there is one; the number of updates made before."""
        if not self.last.exists():
            return 0
        try:
            state = torch.load(self.last, weights_only=True)
            then = state["settings"]
            changed = [name for name, value in self.settings.items() if then.get(name) != value]
            if not changed:
                self.model.load_state_dict(state["model"])
                self.losses, self.seconds, self.captions = (state[name] for name in ("losses", "seconds", "captions"))
                optimizer = state["optimizer"]
        except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError, AttributeError):
            raise ValueError(f"{self.last}: damaged, or of something else; remove it to start anew") from None
        if changed:
            raise ValueError(f"{self.last}: a run with other {', '.join(changed)}; give the same, or another --out")
        if any(0 < len(self.losses[stage]) < self.steps[stage] for stage in STAGES):
            self._kept = optimizer  # of a stage that is not done
        return sum(map(len, self.losses.values()))


def train(options: argparse.Namespace) -> None:
    check_installed("train,vlm", "transformers", "matplotlib")
    run, progress = Run(options), Progress()
    if updates := run.resume():
        progress.console.print(f"resumed after update {updates} of {sum(options.steps)}")
    with progress.bar:
        run.train(progress)
    found = write(run, ENCODER)
    if options.json:
        print(json.dumps(found))
        return
    names = ("right", "right_after_projector", "right_by_classifier", "sentences")
    for name, right in [*found["right_of_class"].items(), *((name, found[name]) for name in names)]:
        print(f"{name.replace('_', ' '):<24}{'-' if right is None else f'{right:.1f} %':>8}")
    print(f"{options.out / 'model'}: {sum(run.seconds.values()):.0f} s of training")


def caption(options: argparse.Namespace) -> None:
    check_installed("vlm", "transformers")
    from transformers import AutoTokenizer, logging

    from fastvit import fastvlm

    folder = options.out / "model"
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; train first, with --data and the same --out")
    logging.disable_progress_bar()
    model = fastvlm.load(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    preprocess = model.model.vision_tower.encoder.preprocess
    for path in options.caption:
        (text,) = describe(model, tokenizer, preprocess(read_image(path))[None])
        print(json.dumps({"image": str(path), "caption": text}) if options.json else f"{path}: {text}")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=Path, metavar="FOLDER", help="with train/CLASS/* and test/CLASS/*")
    add("--out", type=Path, default=Path("runs/tiny_fastvlm"), help="receives all that is written (%(default)s)")
    add("--caption", type=Path, nargs="+", metavar="IMAGE", help="describe these pictures with the model in --out")
    described = "updates in each stage (%(default)s)"
    add("--steps", type=int, nargs=3, metavar=tuple(STAGES), default=(300, 300, 500), help=described)
    add("--batch-size", type=int, default=128, help="sentences or pictures an update (%(default)s)")
    add("--images", type=int, default=0, help="training pictures, spread evenly over the classes (0: all)")
    add("--test-images", type=int, default=1000, help="held-out pictures, likewise (%(default)s; 0: all)")
    add("--seed", type=int, default=0, help="of every random draw (%(default)s)")
    add("--every", type=int, default=25, help="updates between two checkpoints (%(default)s)")
    add("--threads", type=int, default=0, help="of torch (0: as many as there are cores)")
    add("--workers", type=int, default=1, help="processes that read pictures, beside the main one (%(default)s)")
    add("--quick", action="store_true", help="a miniature, to see it run: fewer updates, pictures and tests")
    add("--json", action="store_true", help="print the results, or a line for each picture, as JSON")
    if parser.parse_args(arguments).quick:
        parser.set_defaults(**QUICK)
    options = parser.parse_args(arguments)
    if (options.data is None) == (options.caption is None):
        parser.error("give either --data FOLDER to train, or --caption IMAGE to describe pictures")
    check_least(parser, options, batch_size=1, every=1, images=0, test_images=0, seed=0, threads=0, workers=0)
    if min(options.steps) < 1:
        parser.error(f"--steps is {' '.join(map(str, options.steps))}, expected at least 1 for each stage")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.caption:
        return status_of(lambda: caption(options))
    return status_of(lambda: train(options), options.out / "last.pt")


if __name__ == "__main__":
    sys.exit(main())
