"""How good features are by a linear classifier that is trained on them."""

import warnings
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray

from ..data import DataError
from ..utils.extras import require
from ..utils.text import counted, display_name, rendered, table
from ..utils.warning import warn
from .features import Embeddings
from .neighbors import check_comparable
from .parts import Parts, read_embeddings

HELD_OUT = 5  # of so many images of a class one is held out, where there is no other folder
STRENGTH, STEPS = 0.316, 1000  # as CLIP's linear probe: C, and the most iterations of L-BFGS
ROWS = 50  # of the table; of more classes the worst are shown


@dataclass(frozen=True)
class ProbedClass:
    """The images of one class that the probe was tested on, and how many of them it names correctly."""

    name: str
    images: int
    correct: int


@dataclass(frozen=True)
class Probed:
    """What a linear probe has found; `print` shows a table.

    Attributes:
        top1: percent of the tested images that are named correctly.
        trained: on how many images.
        tested: on how many others.
        held_out: whether they are of the same folder.
        classes: a row for each class of the tested images.
    """

    top1: float
    trained: int
    tested: int
    held_out: bool
    classes: tuple[ProbedClass, ...]

    def __str__(self) -> str:
        return rendered(self)

    def __rich__(self) -> Any:
        from rich.console import Group
        from rich.text import Text

        shown = list(self.classes)
        lines = [""]
        if len(shown) > ROWS:
            shown = sorted(shown, key=lambda each: each.correct / each.images)[:ROWS]
            lines = [f"The {ROWS} worst of {len(self.classes):,} classes are shown.", ""]
        rows = [
            (display_name(each.name), str(each.images), str(each.correct), f"{100 * each.correct / each.images:.2f}")
            for each in shown
        ]
        held = ", held out of the same folder" if self.held_out else ""
        lines.append(f"linear probe: trained on {counted(self.trained, 'image')}, tested on {self.tested:,}{held}")
        lines.append(f"top-1 {self.top1:.2f} %")
        return Group(table(("class", ">images", ">correct", ">top-1 %"), rows), *map(Text, lines))

    def to_dict(self) -> dict[str, Any]:
        """What JSON takes."""
        return asdict(self)


def probe(features: str | PathLike[str], other: str | PathLike[str] | None = None, *, seed: int = 0) -> Probed:
    """Train a linear classifier on the features of one folder, and count how many of another's images it names.

    It is scikit-learn's logistic regression by L-BFGS, with C = 0.316 and 1,000 steps at most, as CLIP's README has it
    (github.com/openai/CLIP, "Linear-probe evaluation"); here of features whose mean is zero and whose variance is one
    over the training images, so that C means the same for every model.

    Args:
        features: the folder of the training images.
        other: the folder of the test images; by default a fifth of each class of the first is held out for them.
        seed: of which are held out.

    Raises:
        DataError: no such folder, files missing or damaged, features of different models; images without classes, of
            one class only, or of other classes.
        MissingExtraError: scikit-learn or pyarrow is not installed.

    Example:
        >>> import fastvit, tempfile
        >>> folder = tempfile.mkdtemp()
        >>> data = fastvit.testing.write_images(f"{folder}/data", train=10)
        >>> _ = fastvit.embed("fastvit_t8.cifar10", data, f"{folder}/features", split="train")
        >>> found = fastvit.embedding.probe(f"{folder}/features")
        >>> found.top1, found.trained, found.tested
        (100.0, 16, 4)
    """
    require("embed", "sklearn", what="a linear probe")
    known = _labelled(features)
    if other is None:
        held = _held_out(features, known, seed)
        training, tested = _some(known, ~held), _some(known, held)
    else:
        check_comparable(Parts(Path(features)), Parts(Path(other)))
        training, tested = known, _labelled(other)
        if unknown := sorted({*tested.classes} - {*training.classes}):
            raise DataError(f"{other}: has classes that {features} has not, {unknown[0]} first of {len(unknown)}")
    names = numpy.array(training.classes)
    truth = numpy.array(tested.classes)[tested.labels]
    predicted = names[_fitted_and_predicted(training, tested)]
    correct = predicted == truth
    rows = [(name, truth == name) for name in tested.classes if (truth == name).any()]
    classes = tuple(ProbedClass(str(name), int(of.sum()), int(correct[of].sum())) for name, of in rows)
    return Probed(100 * float(correct.mean()), len(training.names), len(tested.names), other is None, classes)


def _labelled(folder: str | PathLike[str]) -> Embeddings:
    """The whole folder, whose images have at least two classes."""
    found = read_embeddings(Path(folder))
    if found.labels is None:
        raise DataError(f"{folder}: its images have no classes, which a probe learns; embed images in class folders")
    if (present := len(numpy.unique(found.labels))) < 2:
        raise DataError(f"{folder}: its images are of {counted(present, 'class', 'classes')}, expected two or more")
    return found


def _held_out(folder: str | PathLike[str], known: Embeddings, seed: int) -> NDArray[numpy.bool_]:
    """(N) a fifth of each class, and at least one image of it; at least one stays."""
    draw, labels = numpy.random.default_rng(seed), numpy.asarray(known.labels)
    held = numpy.zeros(len(labels), dtype=bool)
    for label in numpy.unique(labels):
        members = numpy.flatnonzero(labels == label)
        if len(members) < 2:
            name = known.classes[label]
            raise DataError(f"{folder}: class {name} has one image, and none to test on; give a second folder")
        held[draw.permutation(members)[: max(1, len(members) // HELD_OUT)]] = True
    return held


def _some(known: Embeddings, chosen: NDArray[numpy.bool_]) -> Embeddings:
    labels = None if known.labels is None else known.labels[chosen]
    names = [name for name, one in zip(known.names, chosen.tolist(), strict=True) if one]
    return known._replace(names=names, labels=labels, features=known.features[chosen])


def _fitted_and_predicted(training: Embeddings, tested: Embeddings) -> Any:
    """(tested) labels, indices into the training set's classes."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH, max_iter=STEPS))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", ConvergenceWarning)
        classifier.fit(training.features.astype(numpy.float32), training.labels)
    if caught:
        warn(f"the linear probe had not converged after {STEPS:,} steps: its accuracy is that of then")
    return classifier.predict(tested.features.astype(numpy.float32))
