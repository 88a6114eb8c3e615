"""Multiply-accumulates against timm's published counts, a count by hand, and what must not change them."""

import copy
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from helpers.small import EVERY_VARIANT, equal, small

from fastvit import CONFIGS, Config, FastViT, reparameterize
from fastvit.models.flops import multiply_adds

# Billions at 256 x 256, unfused and fused: results/model_metadata-in1k.csv and the benchmarks of timm. Of the MCi
# there is only the fused model's.
TIMM = {
    "fastvit_t8": (0.70, 0.69),
    "fastvit_t12": (1.42, 1.39),
    "fastvit_s12": (1.82, 1.80),
    "fastvit_sa12": (1.96, 1.94),
    "fastvit_sa24": (3.80, 3.77),
    "fastvit_sa36": (5.64, 5.59),
    "fastvit_ma36": (7.88, 7.82),
    "fastvit_mci3": (None, 14.82),
    "fastvit_mci4": (None, 27.78),
}


@pytest.mark.parametrize("name", [name for name in EVERY_VARIANT if name.values[0] in TIMM])
def test_it_is_what_timm_publishes(name: str) -> None:
    """Batch norms, which timm counts as well, are up to 2 % of an unfused model."""
    with torch.device("meta"):
        model = FastViT(CONFIGS[name]).eval()
    unfused, fused = TIMM[name]
    count, fused_count = multiply_adds(model, (256, 256)), multiply_adds(reparameterize(model), (256, 256))
    assert fused_count / 1e9 == pytest.approx(fused, abs=0.01, rel=0.001)
    assert unfused is None or count / 1e9 == pytest.approx(unfused, rel=0.02)
    assert fused_count < count


# One block a stage; the last of the second model attends, after a downsampling that squeezes and excites.
MIXING = Config(depths=(1, 1), width=32, mlp_ratio=3, num_classes=10)
ATTENDING = replace(MIXING, attention_stages=1, squeezed_stages=1)


def mlp(width: int, hidden: int, positions: int) -> int:
    return positions * (49 * width + width * hidden + hidden * width)


@pytest.mark.parametrize("config", [MIXING, ATTENDING], ids=["mixing", "attending"])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (64, 96)])
def test_it_is_the_count_by_hand(config: Config, height: int, width: int) -> None:
    """The fused model: kernel x input channels of a group x output channels x positions."""
    first, second = height * width // 16, height * width // 64  # positions of the two stages
    expected = 27 * 32 * 4 * first + 9 * 32 * first + 32 * 32 * first  # stem
    expected += 9 * 32 * first + mlp(32, 96, first)
    expected += 49 * 64 * second + 64 * 64 * second  # downsampling
    if config is ATTENDING:
        expected += 2 * 64 * 16  # squeeze and excite, on one position
        expected += 49 * 64 * second  # position encoding
        expected += (3 * 64 * 64 + 64 * 64) * second + 2 * second * second * 64  # qkv, projection; q k and its v
    else:
        expected += 9 * 64 * second
    expected += mlp(64, 192, second)
    expected += 9 * 128 * second + 2 * 128 * 8 + 128 * 10  # final convolution, its squeeze and excite, classifier
    assert multiply_adds(reparameterize(FastViT(config).eval()), (height, width)) == expected


@pytest.mark.parametrize("name", ["fastvit_t8", "fastvithd"])
def test_it_is_the_same_whatever_the_mode_dtype_and_device(name: str) -> None:
    model = small(name)
    expected = multiply_adds(model, (96, 64))
    assert expected > 0
    assert multiply_adds(copy.deepcopy(model).train(), (96, 64)) == expected
    assert multiply_adds(copy.deepcopy(model).to("meta"), (96, 64)) == expected
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        assert multiply_adds(copy.deepcopy(model).to(dtype), (96, 64)) == expected, dtype


def test_a_batch_norm_over_one_position_is_no_obstacle() -> None:
    """In train mode it would refuse a single image of 32 x 32, which is one position in the last stage."""
    model = small("fastvit_t8")
    assert multiply_adds(copy.deepcopy(model).train(), (32, 32)) == multiply_adds(model, (32, 32)) > 0


def test_it_reads_the_models_own_channels() -> None:
    colour, infrared = small("fastvit_t8"), small("fastvit_t8", in_chans=4)
    # One more channel, for the 3 x 3 and the 1 x 1 branch of the first convolution, at half the resolution.
    assert multiply_adds(infrared, (64, 64)) - multiply_adds(colour, (64, 64)) == (9 + 1) * 8 * 32 * 32


def test_the_model_is_left_alone() -> None:
    model = small("fastvit_sa12").train()
    before, state = copy.deepcopy(model), list(model.parameters())
    multiply_adds(model, (64, 64))
    assert model.training and equal(model, before)
    assert all(now is then for now, then in zip(model.parameters(), state, strict=True))


@pytest.mark.parametrize("size", [(64,), (64, 31), (64.0, 64), (0, 0)], ids=str)
def test_a_size_that_no_fastvit_takes_is_refused(size: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^size=.*: expected \(height, width\)"):
        multiply_adds(small("fastvit_t8"), size)


def test_counting_does_not_disturb_who_computes_meanwhile() -> None:
    model, images, done = small("fastvit_t8"), torch.randn(1, 3, 64, 64), threading.Event()
    expected, given = model(images), []

    def compute() -> None:
        while not done.is_set() or not given:
            given.append(model(images))

    with ThreadPoolExecutor(1) as pool:
        computing = pool.submit(compute)
        for _ in range(3):
            multiply_adds(model, (64, 64))
        done.set()
        computing.result()
    assert all(torch.equal(each, expected) for each in given)
