"""Wherever a model is taken, a name, a path, a folder, a state dict and a model are taken, and mean the same."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.small import small
from torchvision.models.feature_extraction import create_feature_extractor

import fastvit
from fastvit.bench import report
from fastvit.bench.racing import Backend, Race
from fastvit.deploy.running import runnable
from fastvit.deploy.sensitivity import layer_errors
from fastvit.testing import write_images
from fastvit.verification import Comparison

IMAGES = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
Use = Callable[[Any, Path], Any]


def predicted(model: Any, folder: Path) -> Any:
    return [found.top for found in fastvit.predict(model, folder / "data")]


def evaluated(model: Any, folder: Path) -> Any:
    return round(fastvit.evaluate(model, folder / "data").nll, 5)


def embedded(model: Any, folder: Path) -> Any:
    out = folder / "out" / str(len(list(folder.glob("out/*"))))
    fastvit.embed(model, folder / "data", out)
    return fastvit.embedding.read_embeddings(out).features.round(5).tolist()


def exported(model: Any, folder: Path) -> Any:
    return fastvit.export(model, folder / "model.pt2", input_size=(32, 32)).operations


def raced(model: Any, folder: Path) -> Any:
    """Nothing is timed; what each process is told to load is loaded."""
    found = []

    def race(backends: list[Backend], **_: Any) -> Race:
        found.append(fastvit.load(backends[0].options["subject"].model)(IMAGES).tolist())
        return Race()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "race", race)
        fastvit.bench.measure(model, engines=["torch"])
    return found


USES: dict[str, Use] = {
    "predict": predicted,
    "evaluate": evaluated,
    "embed": embedded,
    "engine": lambda model, _: fastvit.engine(model, "torch")(IMAGES).tolist(),
    "export": exported,
    "verify": lambda model, _: fastvit.verify(model, IMAGES).whole,
    "Comparison": lambda model, _: Comparison(model)(IMAGES).tolist(),
    "runnable": lambda model, _: runnable(model)(IMAGES).tolist(),
    "layer_errors": lambda model, _: layer_errors(model, IMAGES).whole,
    "measure": raced,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the file of a small model, and images of its two classes."""
    folder = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(fastvit.CONFIGS, "fastvit_t8", small("fastvit_t8").config)
        model = small("fastvit_t8", num_classes=2)
        model.pretrained_cfg |= {"architecture": "fastvit_t8", "input_size": (3, 32, 32)}
        model.pretrained_cfg |= {"label_names": ["red", "blue"]}
        (folder / "saved").mkdir()
        fastvit.save(model, folder / "saved" / "model.safetensors")
    write_images(folder, data=2)
    return folder


@pytest.mark.parametrize("use", USES)
def test_a_model_a_name_a_path_and_a_folder_mean_the_same(use: str, folder: Path, small_variants: None) -> None:
    path = folder / "saved" / "model.safetensors"
    model = fastvit.load(path)
    expected = USES[use](model, folder)
    assert fastvit.form_of(model) == "unfused"
    for given in (str(path), path, path.parent, str(path.parent)):
        found = USES[use](given, folder)
        if use in ("predict", "evaluate"):  # fused, for what is loaded
            assert found == pytest.approx(expected, abs=1e-5) if use == "evaluate" else len(found) == len(expected)
            continue
        assert found == expected, given


WRAPPED: dict[str, Callable[[Any], Any]] = {
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "data parallel": torch.nn.DataParallel,
    "averaged": lambda model: torch.optim.swa_utils.AveragedModel(model).eval(),
    "compiled and data parallel": lambda model: torch.compile(torch.nn.DataParallel(model), backend="eager"),
}


@pytest.mark.parametrize("wrapper", WRAPPED)
@pytest.mark.parametrize("use", USES)
def test_a_wrapper_is_taken_for_the_model_in_it_which_stays_as_it_is(
    use: str, wrapper: str, folder: Path, small_variants: None
) -> None:
    model = fastvit.load(folder / "saved")
    wrapped, before = WRAPPED[wrapper](model), {name: id(part) for name, part in model.named_modules()}
    found, expected = USES[use](wrapped, folder), USES[use](model, folder)
    assert found == expected
    assert {name: id(part) for name, part in model.named_modules()} == before


@pytest.mark.parametrize("use", USES)
def test_what_is_no_model_and_cannot_be_loaded_is_one_sentence(use: str, folder: Path) -> None:
    for given in (None, 5, [torch.nn.Linear(1, 1)]):
        with pytest.raises(TypeError, match=r"^model is an? \w+, expected a FastViT, or a name, path or folder that "):
            USES[use](given, folder)
    with pytest.raises(fastvit.WeightsError, match="fastvit_t99: no such file, and no checkpoint of that name"):
        USES[use]("fastvit_t99", folder)


@pytest.mark.parametrize("use", [use for use in USES if use not in ("engine", "export", "layer_errors")])
def test_a_features_only_model_is_taken_by_what_needs_no_classes_and_refused_by_the_others_in_one_line(
    use: str, folder: Path, tmp_path: Path, small_variants: None
) -> None:
    features: Any = fastvit.create_model("fastvit_t8", features_only=True, out_indices=(0, 1)).eval()
    fastvit.save(features, tmp_path / "features.safetensors")
    for given in (features, tmp_path / "features.safetensors", str(tmp_path / "features.safetensors")):
        expected = (
            r": a features_only model, which returns maps of 2 stages \(0, 1\), and has no classifier: give a whole"
        )
        with pytest.raises(ValueError, match=expected):
            USES[use](given, folder)
    for run in (fastvit.engine(tmp_path / "features.safetensors", "torch"), features):
        assert [map_.shape[1] for map_ in run(IMAGES)] == [8, 16]


def test_a_name_of_the_catalogue_is_loaded_by_every_function(folder: Path) -> None:
    run = fastvit.engine("fastvit_t8.cifar10", "torch")
    assert torch.allclose(run(IMAGES), fastvit.load("fastvit_t8.cifar10")(IMAGES), atol=1e-4)


def test_images_to_verify_on_are_paths_folders_patterns_or_a_tensor(folder: Path, small_variants: None) -> None:
    path = folder / "saved" / "model.safetensors"
    files = sorted((folder / "data").glob("*/*"))
    expected = fastvit.verify(path, fastvit.load(path).preprocess.read(files))
    for given in (folder / "data", str(folder / "data"), f"{folder}/data/*/*", files, list(map(str, files))):
        assert fastvit.verify(path, given) == expected, given
    for wrong in (5, [5], b"bytes"):
        with pytest.raises(TypeError, match=r"^images are an? \w+, expected paths, folders or patterns of images"):
            fastvit.verify(path, wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"nowhere\.png: there is no such file"):
        fastvit.verify(path, "nowhere.png")


@pytest.mark.parametrize(
    ("option", "value"),
    [("workers", -1), ("batch_size", 0), ("batch_size", 1.5), ("max_unreadable", -1), ("workers", True)],
)
def test_numbers_that_evaluate_cannot_use_are_refused_by_name(
    option: str, value: object, folder: Path, small_variants: None
) -> None:
    with pytest.raises(ValueError, match=rf"^{option} is {value}, expected a whole number, \d or more$"):
        fastvit.evaluate(folder / "saved", folder / "data", **{option: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "use", [fastvit.reparameterize, fastvit.overparameterize, fastvit.form_of], ids=lambda u: u.__name__
)
@pytest.mark.parametrize("given", [None, {}, "fastvit_t8.cifar10", 5, [torch.nn.Linear(1, 1)]], ids=str)
def test_what_is_no_model_is_one_sentence_for_what_takes_only_models(use: Callable[[Any], Any], given: Any) -> None:
    with pytest.raises(TypeError, match=rf"^model is an? {type(given).__name__}, expected a FastViT, as fastvit\.load"):
        use(given)


def test_a_compiled_or_averaged_model_is_taken_for_what_it_wraps(tmp_path: Path) -> None:
    model = small("fastvit_t8", num_classes=2)
    for wrapped in (torch.compile(model), torch.optim.swa_utils.AveragedModel(model).eval()):
        assert fastvit.form_of(wrapped) == "unfused"  # type: ignore[arg-type]
        assert fastvit.verify(wrapped, IMAGES).exact  # type: ignore[arg-type]
        assert fastvit.form_of(fastvit.overparameterize(wrapped)) == "unfused"  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^model is a Sequential, expected a FastViT, .*: give the one inside it"):
        fastvit.form_of(torch.nn.Sequential(model))  # type: ignore[arg-type]


class FastViT(torch.nn.Module):
    """A namesake."""


TRACED = {
    "fx": lambda: torch.fx.symbolic_trace(small("fastvit_t8")),
    "torchvision": lambda: create_feature_extractor(small("fastvit_t8"), ["stem"]),
}


@pytest.mark.parametrize("use", ["save", "export"])
@pytest.mark.parametrize("made", [*TRACED, "namesake"])
def test_what_only_bears_the_name_of_a_fastvit_is_told_from_it(made: str, use: str, tmp_path: Path) -> None:
    model: Any = TRACED[made]() if made in TRACED else FastViT()
    expected = r"a torch\.fx\.GraphModule" if made in TRACED else rf"a {__name__}\.FastViT"
    with pytest.raises(TypeError, match=rf"^model is {expected}, expected a FastViT, as fastvit\.load"):
        if use == "save":
            fastvit.save(model.eval(), tmp_path / "model.safetensors")
        else:
            fastvit.export(model.eval(), tmp_path / "model.pt2")
