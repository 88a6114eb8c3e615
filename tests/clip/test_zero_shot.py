"""Labels freeze into a classifier, which is a FastViT as any other, and needs no text encoder any more."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import open_clip
import pytest
import timm
import timm.data
import torch
from helpers.clips import small_clip
from helpers.command import run
from helpers.near import assert_near
from helpers.small import equal, small
from PIL import Image
from torch.nn import functional as F

import fastvit
from fastvit import WeightsError
from fastvit.clip import CLIP, zero_shot
from fastvit.clip.naming import renamed
from fastvit.clip.prompts import SETS, as_words, read_labels, templates
from fastvit.data import open_source
from fastvit.models.heads import CosineHead
from fastvit.testing import randomize, write_images

pytestmark = pytest.mark.usefixtures("small_variants")

IMAGES = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
LABELS = ["cat", "dog", "fire truck"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTVIT_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def clip() -> CLIP:
    return small_clip()


@pytest.mark.parametrize("prompts", ["none", "simple", "imagenet", ["a {}", "the {} of {}."]])
@torch.no_grad()
def test_the_weights_are_open_clips(clip: CLIP, prompts: Any) -> None:
    theirs = open_clip.transformer.TextTransformer(width=64, heads=1, layers=2, no_causal_mask=True).eval()
    theirs.load_state_dict(dict(renamed(clip.text, "open_clip")), strict=True)

    class Model(torch.nn.Module):
        def encode_text(self, tokens: torch.Tensor, normalize: bool = False) -> torch.Tensor:
            return F.normalize(theirs(tokens)) if normalize else theirs(tokens)

    lists: dict[str, Any] = {
        "none": ["{}"],
        "simple": open_clip.SIMPLE_IMAGENET_TEMPLATES,
        "imagenet": open_clip.OPENAI_IMAGENET_TEMPLATES,
    }
    filled = [
        each if callable(each) else lambda label, each=each: each.replace("{}", label)
        for each in (lists[prompts] if isinstance(prompts, str) else prompts)
    ]
    tokenizer = open_clip.get_tokenizer("MobileCLIP2-S0")
    expected = open_clip.build_zero_shot_classifier(Model(), tokenizer, LABELS, filled, None, "cpu").T
    model = clip.zero_shot(LABELS, prompts)
    assert_near(model.head.fc.weight, clip.scale * expected, 1e-6)


@torch.no_grad()
def test_the_logits_are_the_scaled_cosines_of_both_encoders(clip: CLIP) -> None:
    model = clip.zero_shot(LABELS)
    assert_near(model(IMAGES), clip.scale * clip.encode_image(IMAGES) @ clip.encode_text(LABELS).T, 1e-5)
    assert model.num_classes == 3 and model.pretrained_cfg["label_names"] == LABELS
    assert not model.returns_embedding and clip.image.returns_embedding  # which is left as it was
    assert model.class_scales == pytest.approx([clip.scale] * 3)
    assert model.forward_head(model.forward_features(IMAGES), pre_logits=True).shape == (4, model.head_hidden_size)


@torch.no_grad()
def test_a_saved_model_of_labels_needs_neither_text_encoder_nor_tokenizer(clip: CLIP, tmp_path: Path) -> None:
    model = clip.zero_shot(LABELS, "photo")
    for form in (model, fastvit.reparameterize(model)):
        fastvit.save(form, tmp_path / "pets.safetensors")
        again = fastvit.load(tmp_path / "pets.safetensors")
        assert equal(again, form) and again.pretrained_cfg["label_names"] == LABELS
        assert_near(again(IMAGES), form(IMAGES), 0)
    Image.new("RGB", (80, 60), "red").save(tmp_path / "red.png")
    code = (
        "import sys; sys.modules['open_clip'] = None\n"
        f"import helpers.small as small, fastvit; fastvit.CONFIGS.update(small.SMALL)\n"
        f"print(fastvit.predict({str(tmp_path / 'pets.safetensors')!r}, {str(tmp_path / 'red.png')!r}).label)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout.strip() in LABELS, ran.stderr
    for names in ("timm", "apple"):
        with pytest.raises(ValueError, match=f"names is '{names}', and the model compares its embedding .* by cosine"):
            fastvit.save(model, tmp_path / "x.safetensors", names=names)


@pytest.mark.parametrize("name", ["torch", "openvino", "onnxruntime"])
def test_engines_run_it(clip: CLIP, name: str) -> None:
    run = fastvit.engine(clip.zero_shot(LABELS), name)
    assert run(IMAGES).shape == (4, 3) and run.error is not None and run.error.relative < 1e-4
    assert run.class_scales == pytest.approx([clip.scale] * 3)


@pytest.mark.parametrize("suffix", [".onnx", ".pt2", ".xml", ".mlpackage"])
def test_it_is_exported_with_the_names_of_the_labels(clip: CLIP, suffix: str, tmp_path: Path) -> None:
    report = fastvit.export(clip.zero_shot(LABELS), tmp_path / f"pets{suffix}", input_size=(64, 64))
    assert report.outputs == ("logits",) and '"fire truck"' in report.metadata["label_names"]


def test_a_pickled_engine_and_a_copy_keep_the_scales(clip: CLIP) -> None:
    import copy
    import pickle

    run = fastvit.engine(clip.zero_shot(LABELS), "torch")
    assert copy.deepcopy(run).class_scales == pickle.loads(pickle.dumps(run)).class_scales == run.class_scales


def test_units_and_the_least_likely(clip: CLIP) -> None:
    model, image = clip.zero_shot(LABELS), Image.effect_noise((64, 64), 90).convert("RGB")
    pixels = model.preprocess(image)[None]
    cosines = (clip.encode_image(pixels) @ clip.encode_text(LABELS).T)[0]
    found = dict(fastvit.predict(model, image, unit="cosine").top)
    assert found == pytest.approx(dict(zip(LABELS, cosines.tolist(), strict=True)), abs=1e-5)
    likely = dict(fastvit.predict(model, image).top)
    expected = (clip.scale * cosines).softmax(0).tolist()
    assert likely == pytest.approx(dict(zip(LABELS, expected, strict=True)), abs=1e-5)
    middle = sorted(found.values())[1]
    assert set(dict(fastvit.predict(model, image, unit="cosine", least=middle - 1e-6).top)) == {
        label for label in LABELS if found[label] >= middle - 1e-6
    }
    nothing = fastvit.predict(model, image, least=0.999)
    assert nothing.top == () and nothing.label == "" and nothing.error == ""


def test_units_that_make_no_sense_are_refused(clip: CLIP) -> None:
    image = Image.new("RGB", (64, 64))
    one = clip.zero_shot(["cat"])
    with pytest.raises(
        ValueError, match="probability of one label alone is always 100 %: give more labels, or unit 'c"
    ):
        fastvit.predict(one, image)
    assert abs(fastvit.predict(one, image, unit="cosine").probability) <= 1
    with pytest.raises(ValueError, match="unit is 'cosine', and the classifier is linear"):
        fastvit.predict(small("fastvit_t8"), image, unit="cosine")
    with pytest.raises(ValueError, match="unit is 'percent', expected probability or cosine"):
        fastvit.predict(one, image, unit="percent")  # type: ignore[call-overload]
    for least in (2, float("nan")):
        with pytest.raises(ValueError, match=f"least is {least}, expected a probability or a cosine"):
            fastvit.predict(one, image, unit="cosine", least=least)


def test_texts_are_encoded_once_and_a_second_time_nothing_of_them_is_read(
    clip: CLIP, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "clip.safetensors"
    fastvit.clip.save(clip, path)
    first = zero_shot(path, LABELS, "photo")
    read = "fastvit.clip.checkpoint.read_text"
    monkeypatch.setattr(read, lambda *_: pytest.fail("the text encoder was read again"))
    assert equal(zero_shot(path, LABELS, "photo"), first)
    monkeypatch.setattr("fastvit.clip.tokens.tokenizer", lambda: pytest.fail("texts were encoded again"))
    assert equal(clip.zero_shot(LABELS, "photo"), first)  # the same weights, whatever holds them
    with pytest.raises(pytest.fail.Exception):
        zero_shot(path, [*LABELS, "mouse"], "photo")


def test_other_weights_under_the_same_name_are_encoded_anew(tmp_path: Path) -> None:
    path = tmp_path / "clip.safetensors"
    fastvit.clip.save(small_clip(), path)
    first = zero_shot(path, LABELS)
    other = small_clip()
    randomize(other.text, seed=5)
    fastvit.clip.save(other, path)
    second = zero_shot(path, LABELS)
    assert not torch.equal(first.head.fc.weight, second.head.fc.weight)
    assert equal(second, other.zero_shot(LABELS))


def test_a_second_call_of_the_command_imports_no_open_clip(clip: CLIP, tmp_path: Path) -> None:
    path = tmp_path / "clip.safetensors"
    fastvit.clip.save(clip, path)
    Image.new("RGB", (80, 60), "red").save(tmp_path / "red.png")
    code = (
        "import sys, helpers.small as small, fastvit\n"
        "fastvit.CONFIGS.update(small.SMALL)\n"
        "from fastvit.cli import main\n"
        f"words = ['classify', {str(tmp_path / 'red.png')!r}, '--model', {str(path)!r}, '--labels', 'a cat, a dog']\n"
        "try: main(words)\n"
        "except SystemExit as end: print(end.code, 'open_clip' in sys.modules)"
    )
    for imported in (True, False):
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert ran.stdout.strip().endswith(f"0 {imported}"), ran.stdout + ran.stderr


def test_many_texts_come_in_parts_with_progress(clip: CLIP, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastvit.clip.vectors.TEXTS", 4)
    labels, seen = [f"number {index}" for index in range(7)], list[tuple[int, int]]()
    model = clip.zero_shot(labels, ["a {}", "one {}"], progress=lambda *done: seen.append(done))
    assert seen[-1] == (14, 14) and [done for done, _ in seen] == sorted(done for done, _ in seen)
    whole = clip.encode_text([f"{word} {label}" for label in labels for word in ("a", "one")])
    expected = F.normalize(whole.view(7, 2, -1).mean(1))
    assert_near(model.head.fc.weight, clip.scale * expected, 1e-6)


BAD: dict[str, tuple[Any, Any, str]] = {
    "no labels": ([], None, "labels are .*expected one or more"),
    "one text": ("cat", None, "labels are 'cat', expected a list"),
    "an empty one": (["cat", " "], None, "none empty"),
    "one twice": (["cat", "CAT"], None, "the label 'CAT' is there twice"),
    "one twice to the encoder": (["a &amp; b", "a & b"], None, "'a &amp; b' and 'a & b' are the same text to the enc"),
    "no number": (["cat", 5], None, "expected a list of texts"),
    "the token of the end": (["cat", "a <end_of_text> dog"], None, "has the token of start or end in it"),
    "a prompt without a place": (LABELS, ["a photo"], "the prompt 'a photo': expected one with {} where the label"),
    "a stray brace": (LABELS, ["a {} {photo}"], "the prompt 'a {} {photo}': expected one with {}"),
    "no prompts": (LABELS, [], "there are no prompts"),
    "an unknown set": (LABELS, "imagenett", "expected a set of prompts .none, photo, simple, imagenet or cifar."),
}


@pytest.mark.parametrize("what", BAD)
def test_labels_and_prompts_that_make_no_sense_are_refused(clip: CLIP, what: str) -> None:
    labels, prompts, said = BAD[what]
    with pytest.raises(ValueError, match=said):
        clip.zero_shot(labels, prompts)


def test_sets_of_prompts_are_as_many_as_published_and_each_has_a_place() -> None:
    assert {name: len(templates(name)) for name in SETS} == {
        "none": 1, "photo": 1, "simple": 7, "imagenet": 80, "cifar": 18
    }  # fmt: skip
    for name in SETS:
        assert all(each.count("{}") == 1 for each in templates(name))
        assert len(set(templates(name))) == len(templates(name))
    assert templates("cifar")[9] == "a photo of the {}." and templates() == ("{}",)


def test_files_of_labels_and_prompts_are_read_line_by_line(tmp_path: Path) -> None:
    file = tmp_path / "labels.txt"
    file.write_bytes("\ufeffa cat\r\n\n  Straße, breit \n".encode())
    assert read_labels(file) == read_labels(str(file)) == ["a cat", "Straße, breit"]
    assert read_labels("a cat,  a dog ,") == ["a cat", "a dog"]
    (tmp_path / "prompts.txt").write_text("a {}\n\nthe {} here\n")
    assert templates(tmp_path / "prompts.txt") == ("a {}", "the {} here")
    for content, said in (
        (b"a cat\nA CAT\n", r"labels.txt, line 2: 'A CAT' is there twice"),
        (b"a cat\n\xff\n", r"labels.txt, line 2: is no text in UTF-8"),
        (b"a cat\na\0b\n", r"labels.txt, line 2: has a NUL in it"),
        (b"\n \n", r"has no labels: give one or more"),
    ):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=said):
            read_labels(file)
    with pytest.raises(ValueError, match=r"nothere.txt: No such file.*; expected a file of labels"):
        read_labels("nothere.txt")


def test_folders_names_become_words_and_imagenets_classes_each_another() -> None:
    assert as_words(["fire_truck", "cat"]) == ["fire truck", "cat"]
    words = as_words(timm.data.ImageNetInfo().label_names())
    assert len(set(words)) == 1000
    pairs = zip(words, open_clip.IMAGENET_CLASSNAMES, strict=True)
    assert {(mine, theirs) for mine, theirs in pairs if mine != theirs} == {
        ("projectile", "missile"), ("sunglass", "sunglasses")
    }  # fmt: skip


def test_a_source_gives_its_classes_as_labels(clip: CLIP, tmp_path: Path) -> None:
    data = open_source(str(write_images(tmp_path, ("fire_truck", "cat"), val=3)), "val")
    model = clip.zero_shot(data, "photo")
    assert model.pretrained_cfg["label_names"] == ["cat", "fire_truck"]
    expected = clip.encode_text(["a photo of a cat.", "a photo of a fire truck."])
    assert_near(model.head.fc.weight, clip.scale * expected, 1e-6)
    assert fastvit.evaluate(model, data).images == 6


def test_train_mode_other_embeddings_and_exchanged_projections_are_refused(clip: CLIP) -> None:
    with pytest.raises(ValueError, match="is in train mode"):
        small_clip().train().zero_shot(LABELS)
    other = small_clip()
    other.image.head.fc = torch.nn.Sequential(other.image.head.fc)
    with pytest.raises(ValueError, match="projection is a Sequential, expected a Linear layer"):
        other.zero_shot(LABELS)


@torch.no_grad()
def test_a_new_classifier_is_linear_and_loading_with_other_classes_starts_one(clip: CLIP, tmp_path: Path) -> None:
    model = clip.zero_shot(LABELS)
    fastvit.save(model, tmp_path / "pets.safetensors")
    with pytest.warns(fastvit.FastViTWarning, match="its classifier is of 3 classes; started a new one of 5"):
        again = fastvit.load(tmp_path / "pets.safetensors", num_classes=5)
    assert type(again.head).__name__ == "Head" and again(IMAGES).shape == (4, 5)
    assert fastvit.load(tmp_path / "pets.safetensors", num_classes=0)(IMAGES).shape == (4, model.num_features)
    assert isinstance(model.head, CosineHead)
    model.reset_classifier(2)
    assert type(model.head).__name__ == "Head" and model.class_scales is None


def test_commands_classify_evaluate_and_convert_by_labels(clip: CLIP, tmp_path: Path) -> None:
    path, data = tmp_path / "clip.safetensors", write_images(tmp_path / "data", ("fire_truck", "cat"), val=3)
    fastvit.clip.save(clip, path)
    (tmp_path / "labels.txt").write_text("a cat\na dog\n")
    image = next(path for path in sorted((tmp_path / "data").rglob("*.*")) if path.is_file())
    shown = run("classify", image, "--model", path, "--labels", tmp_path / "labels.txt", "--json")
    assert shown.status == 0 and '"label": "a cat"' in shown.stdout and '"probability"' in shown.stdout, shown.stderr
    shown = run("classify", image, "--model", path, "--labels", "a cat", "--unit", "cosine", "--least", "0.99")
    assert shown.status == 0 and "none of the classes" in shown.stdout, shown.stderr
    counted = run("evaluate", path, data, "--prompts", "cifar", "--json")
    assert counted.status == 0 and '"images": 6' in counted.stdout, counted.stderr
    written = run("convert", path, tmp_path / "pets.safetensors", "--labels", "cat, fire_truck", "--prompts", "photo")
    assert written.status == 0 and "head       2 classes" in written.stdout, written.stderr
    assert fastvit.load(tmp_path / "pets.safetensors").pretrained_cfg["label_names"] == ["cat", "fire_truck"]
    assert run("evaluate", tmp_path / "pets.safetensors", data).status == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--prompts", "photo"), "prompts are said of labels, and there are none"),
        (("--labels", "a cat"), "the probability of one label alone"),
        (("--labels", "a cat, a dog", "--unit", "percent"), "--unit"),
        ((), "returns an embedding of 512 numbers.*make a classifier of labels"),
    ],
)
def test_commands_say_what_is_wrong_in_one_line(clip: CLIP, options: Any, said: str, tmp_path: Path) -> None:
    fastvit.clip.save(clip, tmp_path / "clip.safetensors")
    Image.new("RGB", (80, 60), "red").save(tmp_path / "red.png")
    ran = run("classify", tmp_path / "red.png", "--model", tmp_path / "clip.safetensors", *options)
    assert ran.status == 2 and ran.stderr.count("\n") == 1
    assert re.search(said, ran.stderr), ran.stderr


def test_labels_for_a_model_without_a_text_encoder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="has no text encoder"):
        zero_shot("fastvit_t8.cifar10", LABELS)


@torch.no_grad()
def test_vectors_that_are_kept_are_of_this_encoder_alone(clip: CLIP) -> None:
    first = clip.zero_shot(LABELS).head.fc.weight
    other = small_clip(causal=True)
    second = other.zero_shot(LABELS).head.fc.weight
    assert (second - first).abs().max() > 1e-3
    assert_near(second, clip.scale * other.encode_text(LABELS), 1e-6)


def test_reports_show_cosines_as_they_are_and_say_where_no_class_is_likely_enough(clip: CLIP, tmp_path: Path) -> None:
    fastvit.clip.save(clip, tmp_path / "clip.safetensors")
    Image.effect_noise((80, 60), 90).convert("RGB").save(tmp_path / "image.png")
    asked = ("classify", tmp_path / "image.png", "--model", tmp_path / "clip.safetensors", "--labels", "a cat, a dog")
    for least, words in (("-1", ["a cat", "a dog"]), ("1", ["none of the classes"])):
        for suffix in (".csv", ".html", ".png", ".pdf"):
            out = tmp_path / f"found{suffix}"
            ran = run(*asked, "--unit", "cosine", "--least", least, "--save", out, "--force")
            assert ran.status == 0 and out.stat().st_size > 50, ran.stderr
        page, table = (tmp_path / "found.html").read_text(), (tmp_path / "found.csv").read_text("utf-8-sig")
        assert all(word in page for word in words) and "%</td>" not in page
        assert table.splitlines()[0] == "path,rank,label,cosine,error"
        assert len(table.splitlines()) == 1 + (2 if least == "-1" else 1) and str(tmp_path / "image.png") in table
    ran = run(*asked, "--save", tmp_path / "found.html", "--force")
    assert "%</td>" in (tmp_path / "found.html").read_text()


def test_a_file_that_keeps_its_time_and_size_is_still_known_apart(tmp_path: Path) -> None:
    path = tmp_path / "clip.safetensors"
    fastvit.clip.save(small_clip(), path)
    before = path.stat()
    first = zero_shot(path, LABELS)
    other = small_clip()
    randomize(other.text, seed=5)
    fastvit.clip.save(other, path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert not torch.equal(zero_shot(path, LABELS).head.fc.weight, first.head.fc.weight)


@torch.no_grad()
def test_pooling_dropout_and_dtype_of_the_image_encoder_are_kept() -> None:
    clip = small_clip()
    clip.image.head.global_pool = torch.nn.Sequential(torch.nn.AdaptiveMaxPool2d(1), torch.nn.Flatten())
    clip.image.head.drop.p = 0.25
    model = clip.zero_shot(LABELS)
    assert_near(model(IMAGES), clip.scale * clip.encode_image(IMAGES) @ clip.encode_text(LABELS).T, 1e-5)
    assert model.head.drop.p == 0.25
    half = small_clip().to(torch.bfloat16)
    model = half.zero_shot(LABELS)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert half.encode_text(LABELS).dtype == half.encode_image(IMAGES).dtype == torch.float32
    other = small_clip()
    other.image.head = torch.nn.Sequential(torch.nn.Flatten())
    with pytest.raises(ValueError, match="the image encoder's head is a Sequential, expected a Head"):
        other.zero_shot(LABELS)


def test_train_mode_is_refused_whether_texts_are_kept_or_not(clip: CLIP) -> None:
    clip.zero_shot(LABELS)
    again = small_clip()
    again.train()
    with pytest.raises(ValueError, match="is in train mode"):
        again.zero_shot(LABELS)


def test_labels_of_any_length_and_mistyped_files() -> None:
    for count in (40, 2000):
        labels = [f"label number {index}" for index in range(count)]
        assert read_labels(", ".join(labels)) == labels
    for given in ("lables.csv", "my/labels", "folder\\labels", "labels.json"):
        with pytest.raises(ValueError, match="no such file of labels; expected one, or labels with commas"):
            read_labels(given)
    assert read_labels("a U.S. flag, a dog") == ["a U.S. flag", "a dog"]


def test_one_prompt_and_a_generator_of_them_will_do(clip: CLIP) -> None:
    assert templates("one {} here") == ("one {} here",)
    assert templates(prompt for prompt in ["a {}", "b {}"]) == ("a {}", "b {}")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="there are no prompts"):
        templates("")


def test_timms_registry_says_that_it_has_no_names_for_such_a_classifier(
    clip: CLIP, tmp_path: Path, own_registry: None
) -> None:
    fastvit.register_timm(override=True)
    fastvit.save(clip.zero_shot(["a", "b"]), tmp_path / "pets.safetensors")
    overlay = {"file": str(tmp_path / "pets.safetensors")}
    with pytest.raises(WeightsError, match="compares with its classes by cosine, which timm has no names for"):
        timm.create_model("fastvit_mci0", pretrained=True, pretrained_cfg_overlay=overlay, num_classes=2)


def test_a_whole_clips_name_makes_its_image_encoder() -> None:
    with pytest.raises(WeightsError, match=r"timm/MobileCLIP2-S0-OpenCLIP: open_clip_model\.safetensors is not in"):
        fastvit.create_model("mobileclip2_s0", pretrained=True)
    with pytest.raises(ValueError, match="unknown model"):
        fastvit.create_model("mobileclip2_s9", pretrained=True)


def test_embeddings_may_be_used_in_a_loss(clip: CLIP) -> None:
    images, words = clip.encode_image(IMAGES), torch.randn(3, 512, requires_grad=True)
    (images @ words.T).sum().backward()
    assert words.grad is not None and not images.requires_grad


@pytest.mark.parametrize("token", ["<start_of_text>", "<end_of_text>"])
def test_texts_that_name_the_tokens_of_start_or_end_are_refused(clip: CLIP, token: str) -> None:
    with pytest.raises(ValueError, match=f"the text 'a {token} dog' has the token of start or end in it: take it out"):
        clip.encode_text(["a cat", f"a {token} dog"])
    assert clip.encode_text("").shape == (1, 512)


def test_labels_are_the_same_as_the_encoder_has_them_and_not_by_other_rules(clip: CLIP, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("caf\u00e9\nCafe\u0301\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"labels.txt, line 2: .* is there twice"):
        read_labels(tmp_path / "labels.txt")
    with pytest.raises(ValueError, match="is there twice: each label once"):
        clip.zero_shot(["a cat", " A  cat"])
    assert read_labels("Straße, Strasse") == ["Straße", "Strasse"]
    assert clip.zero_shot(["Straße", "Strasse"]).num_classes == 2
