"""The time to the first tokens: a pass is a FastVLM's, and what the script makes of timings, whatever these are."""

import io
import pickle
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import first_token
import pytest
import readme
import results as results_module
import timm
import torch
import ttft
from first_token import PARTS, FirstToken
from helpers.near import assert_near
from helpers.raced import replies
from helpers.small import SMALL, timms
from PIL import Image
from results import Line, Results
from towers import BESIDE, CONVNEXT, EAGER, FASTVITHD, OPENVINO, PUBLISHED, SIGLIP, TWIN, VIT, Point, Tower, entered
from ttft import Times

import fastvit
from fastvit.bench import Backend, Race
from fastvit.bench.racing import FEWEST

LANGUAGE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "vocab_size": 90,
    "tie_word_embeddings": True,
}


@pytest.fixture
def small_twins(small_variants: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The names mean the small networks in timm as well, and the photograph is a small one."""
    create = timm.create_model
    shapes = {timms(name): {"layers": config.depths, "embed_dims": config.widths} for name, config in SMALL.items()}
    monkeypatch.setattr(timm, "create_model", lambda name, **given: create(name, **shapes.get(name, {}), **given))
    monkeypatch.setattr(first_token, "PHOTOGRAPH", (160, 120))


def small_pass(runs: str = "eager", dtype: str = "float32", size: int = 128) -> FirstToken:
    channels = SMALL["fastvithd"].num_features
    return FirstToken(Tower("small", "fastvithd", runs, 64, channels), size, dtype, 1, 5, LANGUAGE)


@pytest.mark.usefixtures("small_twins")
def test_a_pass_is_that_of_transformers_fastvlm() -> None:
    from fastvit.fastvlm.tower import join

    run = small_pass()
    given = run()
    network = first_token.load_or_random("fastvithd")
    (image_token,) = {89} - set(run.question[0].tolist())
    model = join(network, run.language, image_token).eval()
    theirs = model.model.multi_modal_projector
    theirs.linear_1.load_state_dict(run.projector[0].state_dict())
    theirs.linear_2.load_state_dict(run.projector[2].state_dict())
    ids = torch.cat([torch.full((1, 4), image_token), run.question], 1)
    images = run.preprocess(Image.open(io.BytesIO(run.photograph)))[None]
    with torch.inference_mode():
        expected = model(input_ids=ids, pixel_values=images).logits[0, -1]
        other = model(input_ids=ids, pixel_values=torch.randn_like(images)).logits[0, -1]
    assert_near(given, expected, 1e-4)
    assert (other - expected).abs().max() > 1e-2 * expected.abs().max()  # that the image counts


@pytest.mark.usefixtures("small_twins")
@pytest.mark.parametrize("runs", ["twin", pytest.param("openvino", marks=pytest.mark.slow)])
def test_all_backends_of_fastvithd_give_the_same_first_token(
    runs: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FASTVIT_CACHE", str(tmp_path))
    expected = small_pass(size=256)()
    assert_near(small_pass(runs, size=256)(), expected, 1e-4)
    assert 1e-4 < (small_pass(dtype="bfloat16", size=256)() - expected).abs().max() / expected.abs().max() < 5e-2


@pytest.mark.usefixtures("small_twins")
@pytest.mark.parametrize("runs", ("eager", "twin"))
def test_what_runs_is_fused_and_channels_last(runs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cast, given = first_token._cast, list[Any]()

    def spy(model: Any, dtype: torch.dtype) -> Any:
        given.append(cast(model, dtype))
        return given[-1]

    monkeypatch.setattr(first_token, "_cast", spy)
    run = small_pass(runs)
    (model,) = given
    if runs == "eager":
        assert fastvit.form_of(model) == "fused"
    else:  # as far as timm does it
        branched = [module for module in model.modules() if hasattr(module, "reparam_conv")]
        assert branched and all(module.reparam_conv is not None for module in branched)
    first = next(module for module in model.modules() if isinstance(module, torch.nn.Conv2d))
    layouts = list[bool]()
    first.register_forward_pre_hook(
        lambda _, images: layouts.append(images[0].is_contiguous(memory_format=torch.channels_last))
    )
    run()
    assert layouts == [True] and first.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.usefixtures("small_twins")
def test_a_pass_answers_with_two_steps_of_the_language_model(monkeypatch: pytest.MonkeyPatch) -> None:
    run, steps = small_pass(), list[tuple[int, int]]()

    def step(model: Any, arguments: tuple[()], given: dict[str, Any], output: Any) -> None:
        assert output.logits.shape == (1, 1, 90)  # of the last position alone
        new = given["inputs_embeds" if "inputs_embeds" in given else "input_ids"].shape[1]
        steps.append((new, given[run.cache].get_seq_length()))

    run.language.register_forward_hook(step, with_kwargs=True)
    for _ in range(2):  # nothing is left of the first pass
        run()
        assert list(run.parts) == list(PARTS) and min(run.parts.values()) > 0
    assert steps == [(4 + 5, 9), (1, 10)] * 2


@pytest.mark.usefixtures("small_twins")
def test_the_seconds_of_the_parts_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    run = small_pass()
    ticks = iter([10.0, 11.0, 13.0, 17.0, 25.0, 41.0])
    monkeypatch.setattr(first_token.time, "perf_counter", lambda: next(ticks))
    run()
    assert list(run.parts.values()) == [1, 2, 4, 8, 16]


@pytest.mark.usefixtures("small_twins")
def test_a_tower_that_gives_other_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the tower gives \(1, 4, \d+\), expected \(1, 4, 7\)"):
        FirstToken(Tower("small", "fastvithd", "eager", 64, 7), 128, "float32", 1, 5, LANGUAGE)()


@pytest.mark.usefixtures("small_twins")
def test_a_vision_transformers_class_token_is_left_out() -> None:
    run = FirstToken(Tower("vit", "test_vit", "timm", 16, 64), 160, "float32", 1, 5, LANGUAGE)
    seen = list[torch.Tensor]()
    run.projector.register_forward_pre_hook(lambda module, given: seen.extend(given))
    run()
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=0).eval()
    with torch.inference_mode():
        features = model.forward_features(run.preprocess(Image.open(io.BytesIO(run.photograph)))[None])
    assert features.shape[1] == 101 and run.preprocess.mean == model.pretrained_cfg["mean"]
    assert_near(seen[0], features[:, 1:], 1e-5)


def test_the_photograph_is_a_large_jpeg() -> None:
    with Image.open(io.BytesIO(first_token.photograph())) as image:
        assert (image.format, image.size) == ("JPEG", (2048, 1536))
    assert 5e5 < len(first_token.photograph()) < 2e6  # a camera's would be as large


@pytest.mark.slow
@pytest.mark.parametrize("point", sorted({point for size in BESIDE for point in entered(size)}, key=lambda p: p.key))
def test_every_tower_gives_the_tokens_that_it_says(point: Point) -> None:
    with torch.device("meta"):
        if point.tower in FASTVITHD:
            seen = fastvit.create_model(point.tower.source).tokens(torch.empty(1, 3, point.size, point.size))
        else:
            model = timm.create_model(point.tower.source)
            features = model.eval().forward_features(torch.empty(1, 3, point.size, point.size))
            seen = features[:, 1:] if point.tower == VIT else features
            seen = seen.flatten(2).transpose(1, 2) if seen.ndim == 4 else seen
    assert seen.shape == (1, point.tower.tokens(point.size), point.tower.channels)


def test_the_language_model_has_the_size_of_qwen2() -> None:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    with torch.device("meta"):
        model = Qwen2ForCausalLM(Qwen2Config(**first_token.LANGUAGE))
    model.tie_weights()  # which the first transformers 5 left out on this device
    assert sum(parameter.numel() for parameter in model.parameters()) == 494_032_768  # Qwen/Qwen2-0.5B's


def test_the_language_model_is_made_as_transformers_makes_it() -> None:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    model = first_token.language_model(LANGUAGE, torch.bfloat16)
    theirs = Qwen2ForCausalLM(Qwen2Config(**LANGUAGE)).eval()
    assert model.lm_head.weight is model.model.embed_tokens.weight and not model.training
    rotary, expected = model.model.rotary_emb.inv_freq, theirs.model.rotary_emb.inv_freq
    assert rotary.dtype == torch.float32 and torch.equal(rotary, expected)
    for (name, mine), other in zip(model.named_parameters(), theirs.parameters(), strict=True):
        assert mine.dtype == torch.bfloat16 and abs(mine.float().std() - other.std()) < 3e-3, name
    theirs.load_state_dict(model.state_dict())
    words = torch.arange(7)[None]
    assert_near(model(words).logits.float(), theirs(words).logits, 5e-2)


class Counted:
    """Two parts, of which the second lasts as many seconds as there were passes."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}
        self.passes = 0

    def __call__(self) -> None:
        self.passes += 1
        self.parts = {"a": 0.5, "b": float(self.passes)}


def test_a_race_keeps_the_parts_of_each_rounds_single_pass() -> None:
    """The first pass, before the rounds, is never one of them."""
    *_, (_, parts) = replies(pickle.dumps(Backend("cold", Counted, warm=False)), True, True, False)
    assert parts == {"a": [0.5, 0.5], "b": [2.0, 3.0]}


class Pausing:
    """A pass of 10 milliseconds."""

    def __call__(self) -> None:
        time.sleep(0.01)


def test_a_warm_round_says_how_long_one_of_its_passes_takes() -> None:
    _, seconds, again, _ = replies(pickle.dumps(Backend("warm", Pausing)), True, True, False)
    assert seconds == pytest.approx(0.01, rel=0.5) and again == pytest.approx(0.01, rel=0.5)


@pytest.mark.slow
def test_a_real_race_has_every_part_of_every_round(tmp_path: Path) -> None:
    tower = Tower("fastvit_t8", "fastvit_t8", "eager", 32, 768)
    given = {"tower": tower, "size": 64, "dtype": "float32", "threads": 1, "text_tokens": 3, "language": LANGUAGE}
    options: Any = SimpleNamespace(results=tmp_path / "races.jsonl", threads=1, seconds=0.0)
    found = Results(options, more=("transformers",)).race("t8", [Backend("t8", FirstToken, given, warm=False)])
    assert not found.failed and found.about["versions"]["transformers"]
    parts = found.parts["t8"]
    assert list(parts) == list(PARTS) and {len(each) for each in parts.values()} == {FEWEST}
    assert Results(options, more=("transformers",)).lines["t8"] == found  # parts survive the file


MILLISECONDS = {  # FastViTHD's three, and those raced beside them
    256: (389, 359, 412, 3005),
    512: (746, 629, 740, 758, 1725),
    768: (1500, 1350, 1600, 4100),
    1024: (2700, 2400, 2950, 7500, 4300),
    1536: (6000, 4900, 6100, 29000),
}


def line(size: int, milliseconds: tuple[float, ...], left_out: tuple[Tower, ...] = ()) -> Line:
    """Of four rounds, of which one was slow for all; the encoder has half of it."""
    given = dict(zip((point.key for point in entered(size)), milliseconds, strict=True))
    failed = {point.key: "no such kernel" for point in entered(size) if point.tower in left_out}
    seconds = {key: [each * load / 1000 for load in (1, 1, 3, 1)] for key, each in given.items() if key not in failed}
    share = {"image": 0.0125, "encoder": 0.5, "projector": 0.0025, "prefill": 0.46, "decode": 0.025}
    parts = {key: {part: [of * each for each in all_] for part, of in share.items()} for key, all_ in seconds.items()}
    return Line(str(size), {}, seconds, {}, dict.fromkeys(seconds, size / 1e5), failed, "2026-01-02", parts)


def times(*left_out: Tower) -> Times:
    return Times({size: line(size, each, left_out) for size, each in MILLISECONDS.items()})


def rows(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()]


def test_the_table_has_the_milliseconds_of_every_part() -> None:
    head, _, *body = rows(ttft.table(times()))
    assert head == ["", "px", "tokens", "image", "encoder", "projector", "prefill", "decode", "total", "±"]
    assert body[1] == ["FastViTHD, OpenVINO", "256", "16", "4.5", "180", "0.9", "165", "9.0", "359", "25%"]
    assert body[3][:3] == ["ViT-L/14", "336", "576"] and body[-1][:3] == ["ConvNeXt-L", "1536", "2304"]
    assert len(body) == sum(map(len, MILLISECONDS.values()))
    assert ttft._milliseconds([0.0123]) == "12" and ttft._milliseconds([0.00123]) == "1.2"


def test_no_line_of_the_tables_is_wider_than_80_columns() -> None:
    for table in (ttft.table(times()), ttft.at_equal_accuracy(times())):
        assert max(map(len, table.splitlines())) <= 80


def test_it_is_said_where_fastvithd_is_not_faster() -> None:
    vit, small_convnext, _, convnext, _, siglip, largest, twin = ttft.verdicts(times()).splitlines()
    assert vit == (
        "- ViT-L/14@336 (3005 ms, 47.3 %): FastViTHD is not faster at 1024 and 1536 in PyTorch and OpenVINO, "
        "and its encoder alone likewise."
    )
    assert "not faster at 768, 1024 and 1536 in PyTorch and OpenVINO," in small_convnext
    assert "not faster at 1536 in PyTorch and OpenVINO" in siglip
    assert "ConvNeXt-L@768 (4100 ms, 54.4 %)" in convnext
    assert largest.startswith(
        "- ConvNeXt-L@1536 (29000 ms): FastViTHD is faster at all sizes, in PyTorch and OpenVINO,"
    )
    assert twin.endswith("ours is not faster at 512 in PyTorch.")


def test_the_encoder_and_each_backend_are_judged_by_themselves() -> None:
    found = times()
    encoders = found.lines[768].parts["FastViTHD@768"]
    encoders["encoder"] = [5 * seconds for seconds in encoders["encoder"]]
    found.lines[1536].seconds["FastViTHD, OpenVINO@1536"] = [3.0, 2.9, 3.0, 3.0]  # less than ViT-L's median
    vit = ttft.verdicts(found).splitlines()[0]
    assert vit.endswith(
        "FastViTHD is not faster at 1024 and 1536 in PyTorch nor at 1024 in OpenVINO, "
        "and its encoder alone is not faster at 768, 1024 and 1536 in PyTorch nor at 1024 and 1536 in OpenVINO."
    )


def test_what_did_not_run_is_not_judged_and_is_named() -> None:
    text = ttft.report(times(OPENVINO, SIGLIP))
    assert "SO400M/14@384 (" not in text and "1024 without SO400M/14@384: no such kernel" in text
    assert "OpenVINO" not in ttft.verdicts(times(OPENVINO)) and "not compared" in ttft.verdicts(times(EAGER, OPENVINO))
    assert "256 without FastViTHD, OpenVINO@256: no such kernel" in text
    some = times()
    for key in ("FastViTHD, OpenVINO@1536", "FastViTHD@1536", "mci3 of timm@512"):
        some.lines[int(key.rpartition("@")[2])].seconds.pop(key)
    *_, largest, twin = ttft.verdicts(Times(some.lines)).splitlines()
    assert "FastViTHD is faster wherever it ran, in PyTorch and OpenVINO," in largest
    assert "ours is faster wherever it ran, in PyTorch." in twin
    equal = rows(ttft.at_equal_accuracy(times(OPENVINO)))
    assert {row[-1] for row in equal[2:]} == {"-"}


def test_in_one_race_rounds_are_compared_and_in_two_medians() -> None:
    found = times()
    vit, same, other = Point(VIT, 336), Point(EAGER, 256), Point(EAGER, 512)
    found.lines[256].seconds[same.key] = [1.0, 3.0, 2.0, 2.0]
    found.lines[256].seconds[vit.key] = [4.0, 3.0, 4.0, 12.0]  # 4, 1, 2 and 6 times as long
    found.lines[512].seconds[other.key] = [2.0, 1.0, 9.0, 4.0]
    assert found.speedup(same, vit) == (1.75, 3, 4.5)
    # The others take 3.75, 4 and 6 seconds, by quartiles, and ours 1.75, 3 and 5.25.
    assert found.speedup(other, vit) == pytest.approx((3.75 / 5.25, 4 / 3, 6 / 1.75))
    assert found.speedup(same, Point(VIT, 256)) is None


def test_towers_of_equal_accuracy_are_compared() -> None:
    """Each beside the smallest FastViTHD that the paper has as accurate, with which it was raced."""
    accuracies = {size: PUBLISHED["FastViTHD", size].accuracy for size in (256, 512, 768, 1024)}
    for size, others in BESIDE.items():
        for other in others:
            if published := Point(*other).published:
                assert size == min(edge for edge, accuracy in accuracies.items() if accuracy >= published.accuracy)
    *_, siglip = rows(ttft.at_equal_accuracy(times()))
    assert siglip == ["SO400M/14@384: 55.5", "@1024: 55.9", "3.21", "1.59 ±0%", "1.79 ±0%"]


def test_the_published_points_are_the_papers() -> None:
    """As read off its figure 1a, once more."""
    assert {(*key, *point) for key, point in PUBLISHED.items()} == {
        ("FastViTHD", 256, 32.2, 48.4),
        ("FastViTHD", 512, 50.2, 52.5),
        ("FastViTHD", 768, 96.0, 54.5),
        ("FastViTHD", 1024, 166.9, 55.9),
        ("ConvNeXt-L", 320, 63.3, 49.0),
        ("ConvNeXt-L", 512, 120.6, 52.2),
        ("ConvNeXt-L", 768, 292.6, 54.4),
        ("ConvNeXt-L", 1024, 942.3, 55.3),
        ("ViT-L/14", 336, 255.7, 47.3),
        ("SO400M/14", 384, 535.3, 55.5),
    }


def test_every_published_accuracy_is_measured_somewhere() -> None:
    points = [point for size in BESIDE for point in entered(size)]
    assert {(point.tower.name, point.size) for point in points if point.published} >= set(PUBLISHED)
    assert Point(TWIN, 512).published == PUBLISHED["FastViTHD", 512] and Point(CONVNEXT, 1536).published is None


def test_the_plot_has_the_published_accuracies_over_both_times(tmp_path: Path) -> None:
    figure = ttft.plot(times())
    paper, here = ({str(curve.get_label()): curve.get_xydata() for curve in axes.lines} for axes in figure.axes)
    assert paper["FastViTHD"].tolist() == [[32.2, 48.4], [50.2, 52.5], [96.0, 54.5], [166.9, 55.9]]
    assert here["FastViTHD, OpenVINO"].tolist() == [[359, 48.4], [629, 52.5], [1350, 54.5], [2400, 55.9]]
    assert here["ViT-L/14"].tolist() == [[3005, 47.3]] and set(here) - set(paper) == {"FastViTHD, OpenVINO"}
    assert len({curve.get_marker() for curve in figure.axes[1].lines}) == len(here)  # without colours too
    figure.canvas.draw()
    for axes in figure.axes:
        boxes = [text.get_window_extent() for text in axes.texts]
        assert len(boxes) == sum(map(len, (paper if axes is figure.axes[0] else here).values()))
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    readme.write_plot(tmp_path / "README.md", "ttft", figure)
    ttft.plot(times(EAGER, VIT))  # nor is one drawn that did not run


@pytest.fixture
def faked(monkeypatch: pytest.MonkeyPatch) -> list[Backend]:
    """A race without processes: the nth backend takes n seconds, and has parts."""
    raced: list[Backend] = []

    def fake(candidates: list[Backend], *, threads: int, seconds: float, progress: Callable[[str], None]) -> Race:
        raced.extend(candidates)
        result = Race()
        for number, each in enumerate(candidates, 1):
            result.seconds[each.name], result.outputs[each.name] = [float(number)] * 3, [1.0, float(number)]
            result.parts[each.name] = {part: [number / 5] * 3 for part in PARTS}
        return result

    monkeypatch.setattr(results_module, "race", fake)
    return raced


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["ttft", *arguments])
    ttft.main()


def test_the_script_writes_its_section_and_goes_on_where_it_was_ended(
    faked: list[Backend], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, kept = tmp_path / "README.md", tmp_path / "kept.jsonl"
    page.write_text("before\n<!-- ttft.py -->\nyesterday\n<!-- /ttft.py -->\nafter\n")
    given = ["--readme", str(page), "--results", str(kept), "--threads", "1", "--dtype", "bfloat16"]
    run(monkeypatch, *given)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "yesterday" not in text
    assert "![ttft](ttft.png)" in text and (tmp_path / "ttft.png").exists() and "transformers 5" in text
    assert [each.name for each in faked] == [point.key for size in BESIDE for point in entered(size)]
    assert {each.warm for each in faked} == {False} and {each.options["text_tokens"] for each in faked} == {20}
    lines = kept.read_text().splitlines(keepends=True)
    kept.write_text("".join(lines[:-1]) + lines[-1][:50])  # killed while it wrote
    faked.clear()
    run(monkeypatch, *given)
    assert {each.name for each in faked} == {point.key for point in entered(1536)} and page.read_text() == text
    faked.clear()
    run(monkeypatch, *given[:-1], "float32")  # is another measurement
    assert {each.options["dtype"] for each in faked} == {"float32"} and len(faked) == 22


def test_a_quick_run_is_printed_and_nothing_else(
    faked: list[Backend], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(results_module, "HERE", tmp_path)
    run(monkeypatch, "--quick")
    assert "| ConvNeXt-L | 512 | 256 |" in capsys.readouterr().out and not list(tmp_path.iterdir())
    assert {each.options["size"] for each in faked} == {256, 320, 336, 512}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--text-tokens", "0"], "--text-tokens is 0, expected at least 1"),
        (["--dtype", "int8"], "invalid choice: 'int8' (choose from"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_raced(
    given: list[str], expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, *given)
    assert ended.value.code == 2 and expected in capsys.readouterr().err


def test_where_nothing_runs_the_section_is_left_as_it_is(
    faked: list[Backend], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(candidates: list[Backend], **_: Any) -> Race:
        return Race(failed={each.name: "no memory" for each in candidates})

    monkeypatch.setattr(results_module, "race", nothing)
    page = tmp_path / "README.md"
    page.write_text("<!-- ttft.py -->\nyesterday\n<!-- /ttft.py -->\n")
    with pytest.raises(SystemExit, match=r"nothing ran, and .*README.md was left as it is"):
        run(monkeypatch, "--readme", str(page), "--results", str(tmp_path / "races.jsonl"))
    assert "yesterday" in page.read_text() and not (tmp_path / "ttft.png").exists()


@pytest.mark.parametrize("option", ("--readme", "--results"))
def test_where_nothing_can_be_written_nothing_is_raced(
    option: str,
    faked: list[Backend],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, option, str(tmp_path / "file" / "x.md"))
    assert ended.value.code == 2 and str(tmp_path / "file") in capsys.readouterr().err.splitlines()[-1] and not faked
