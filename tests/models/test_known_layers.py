"""What a user put into a foldable block is folded exactly, or refused with its name; never dropped.

Oracle: the outputs of the model before, in float64.
"""

from collections.abc import Callable
from typing import Any

import pytest
import timm.layers
import torch
from helpers.near import assert_near
from helpers.small import equal, small
from timm.layers import BatchNormAct2d, GroupNorm
from torch import Tensor, nn
from torch.ao.nn import qat
from torch.nn.utils import parametrizations, parametrize, prune
from torchvision.ops import FrozenBatchNorm2d

import fastvit
from fastvit import FastViT
from fastvit.models.affine import ScaleShift, StridedPointwise
from fastvit.models.blocks import ConvNorm, RepMixer, SkipNorm
from fastvit.models.reparam import fusible_blocks
from fastvit.testing import randomize

BRANCH = "stages.0.blocks.0.mixer.mixer.main"
CONV = "stages.0.blocks.0.mixer.mixer.main.conv"  # 3x3, depthwise
NORM = "stages.0.blocks.0.mixer.mixer.main.norm"
LINEAR = "stages.3.blocks.0.mixer.qkv.linear"
IMAGES = torch.randn(2, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def model() -> FastViT:
    return small("fastvit_sa12", num_classes=5).double()


def with_layer(name: str, exchange: Callable[[Any], nn.Module]) -> FastViT:
    """The model with another layer at `name`, in eval mode."""
    made = model()
    made.set_submodule(name, exchange(made.get_submodule(name)).double().eval())
    return made


class Doubled(nn.Conv2d):
    """A user's own, of which `isinstance` sees nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class DoubledNorm(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class DoubledMixer(RepMixer):
    """Has another forward, and the affine() of its parent."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Halved(ConvNorm):
    """Both, and so it may be folded."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 2

    def affine(self) -> Any:
        return torch.full_like(self.norm.weight, 0.5) * super().affine()


def like(conv: nn.Conv2d, kind: type[nn.Conv2d] = nn.Conv2d, **changes: Any) -> nn.Module:
    """A convolution of the same size but for the changes, with random weights."""
    given: dict[str, Any] = {"stride": conv.stride, "padding": conv.padding, "groups": conv.groups, "bias": False}
    return randomize(kind(conv.in_channels, conv.out_channels, **({"kernel_size": conv.kernel_size} | given | changes)))


def norm(conv: Any, kind: Callable[..., nn.Module], **options: Any) -> nn.Module:
    return randomize(kind(conv.num_features, **options))


def groups(channels: int) -> nn.Module:
    return nn.GroupNorm(2, channels)


def frozen(channels: int) -> nn.Module:
    """Torchvision's, whose statistics and weights are buffers."""
    made = FrozenBatchNorm2d(channels)
    for name, buffer in made.named_buffers():
        buffer.copy_(torch.rand(channels) + 0.5 if name in ("weight", "running_var") else torch.randn(channels) / 10)
    return made


EXACT: dict[str, tuple[str, Callable[[Any], nn.Module]]] = {
    "another plain convolution": (CONV, like),
    "a convolution with a bias": (CONV, lambda conv: like(conv, bias=True)),
    "a kernel that is not square": (CONV, lambda conv: like(conv, kernel_size=(1, 5), padding=(0, 2))),
    "a strided pointwise one of ours": (CONV.replace("main", "small"), lambda conv: like(conv, StridedPointwise)),
    "weight norm": (CONV, parametrizations.weight_norm),
    "spectral norm": (LINEAR, parametrizations.spectral_norm),
    "an orthogonal matrix": ("stages.3.blocks.0.mixer.proj.linear", parametrizations.orthogonal),
    "synchronized batch norm": (NORM, lambda old: norm(old, nn.SyncBatchNorm)),
    "frozen batch norm of torchvision": (NORM, lambda old: frozen(old.num_features)),
    "batch norm without weights": (NORM, lambda old: norm(old, nn.BatchNorm2d, affine=False)),
    "batch norm without weights on a skip": (
        "stages.0.blocks.0.mixer.norm.norm",
        lambda old: norm(old, nn.BatchNorm2d, affine=False),
    ),
    "batch norm without momentum": (NORM, lambda old: norm(old, nn.BatchNorm2d, momentum=None, eps=0.1)),
    "a block of one's own with its affine()": (
        "stages.0.blocks.0.mlp.conv",
        lambda block: randomize(Halved(block.conv.in_channels, block.conv.in_channels, 7, 1, block.groups)),
    ),
    "a layer norm's affine part on a skip": (
        "stages.0.blocks.0.mixer.norm.norm",
        lambda old: randomize(ScaleShift(old.num_features)),
    ),
    "a layer norm's affine part of one number for all channels": (
        "stages.3.blocks.0.mixer.qkv.norm",
        lambda old: randomize(ScaleShift(1)),
    ),
    "another block in a block's place": (
        "stages.0.blocks.0.mixer.norm",
        lambda skip: randomize(ConvNorm(skip.channels, skip.channels, 5, groups=skip.groups)),
    ),
    "another activation between blocks": ("stem.0.act", lambda old: nn.Hardswish()),
    "another activation in a downsampling": ("stages.1.downsample.0.act", lambda old: nn.ReLU()),
    "an MLP of one's own": ("stages.2.blocks.0.mlp", lambda old: nn.Tanh()),
    "no MLP": ("stages.2.blocks.0.mlp", lambda old: nn.Identity()),
    "dropout before the classifier": (
        "head.fc",
        lambda fc: nn.Sequential(nn.Dropout(0.5), randomize(nn.Linear(fc.in_features, 5))),
    ),
}


@torch.no_grad()
@pytest.mark.parametrize("name", EXACT)
def test_what_is_known_exactly_is_folded_exactly(name: str) -> None:
    changed = with_layer(*EXACT[name])
    expected = changed(IMAGES)
    fused = fastvit.reparameterize(changed)
    assert not fusible_blocks(fused)
    assert_near(fused(IMAGES), expected, 1e-9)


REFUSED: dict[str, tuple[str, Callable[[Any], nn.Module], str]] = {
    "a subclass of convolution": (CONV, lambda conv: like(conv, Doubled), "Doubled, which is no class"),
    "a subclass of batch norm": (NORM, lambda old: norm(old, DoubledNorm), "DoubledNorm, which is no class"),
    "batch norm with an activation, of timm": (NORM, lambda old: norm(old, BatchNormAct2d), "BatchNormAct2d, which is"),
    "group norm of timm": (NORM, lambda old: norm(old, GroupNorm, num_groups=2), "GroupNorm, which is no class"),
    "group norm": (NORM, lambda old: norm(old, groups), "GroupNorm, which is no class"),
    "layer norm of timm": (NORM, lambda old: norm(old, timm.layers.LayerNorm2d), "LayerNorm2d, which is no class"),
    "instance norm": (NORM, lambda old: norm(old, nn.InstanceNorm2d), "InstanceNorm2d, which is no class"),
    "instance norm with statistics": (
        NORM,
        lambda old: norm(old, nn.InstanceNorm2d, affine=True, track_running_stats=True),
        "InstanceNorm2d, which is no class",
    ),
    "batch norm without statistics": (
        NORM,
        lambda old: norm(old, nn.BatchNorm2d, track_running_stats=False),
        "BatchNorm2d, which keeps no running statistics",
    ),
    "no norm": (NORM, lambda old: nn.Identity(), "Identity, which is no class"),
    "a lazy convolution": (CONV, lambda conv: nn.LazyConv2d(8, 3, padding=1), "LazyConv2d, which is no class"),
    "a lazy batch norm": (NORM, lambda old: nn.LazyBatchNorm2d(), "LazyBatchNorm2d, which is no class"),
    "a convolution in quantization-aware training": (
        CONV,
        lambda conv: qat.Conv2d.from_float(_with_qconfig(conv)),
        "qat.*Conv2d, which is no class",
    ),
    "a linear layer quantized by torch": (
        LINEAR,
        lambda linear: torch.ao.nn.quantized.dynamic.Linear(linear.in_features, linear.out_features),
        "quantized.*Linear, which is no class",
    ),
    "another padding mode": (CONV, lambda conv: like(conv, padding_mode="reflect"), "which is not odd, undilated"),
    "dilation": (CONV, lambda conv: like(conv, dilation=2, padding=2), "which is not odd, undilated"),
    "an even kernel": (CONV, lambda conv: like(conv, kernel_size=2, padding=1), "which is not odd, undilated"),
    "a kernel that is not padded along": (
        CONV,
        lambda conv: like(conv, kernel_size=(3, 1), padding=1),
        "which is not odd",
    ),
    "no padding": (CONV, lambda conv: like(conv, padding=0), "padded with zeros to keep the size"),
    "a stride": (CONV, lambda conv: like(conv, stride=2), r"whose stride and groups are \(2, 2\), 8 and its block's"),
    "groups": ("stem.0.conv.main.conv", lambda conv: like(conv, groups=1, stride=1), "whose stride and groups"),
    "weight norm by a hook": (CONV, torch.nn.utils.weight_norm, "whose weights a hook sets.*: .*remove_weight_norm"),
    "spectral norm by a hook": (CONV, torch.nn.utils.spectral_norm, "whose weights a hook sets"),
    "pruning by a mask": (
        CONV,
        lambda conv: prune.l1_unstructured(conv, "weight", 0.5),
        "a hook.*: .*prune",
    ),
    "a convolution in a branch's place": (BRANCH, lambda block: like(block.conv), "Conv2d, which is no block, and"),
    "a convolution in a mixer's place": (
        "stages.0.blocks.0.mixer.mixer",
        lambda block: like(block.main.conv),
        "Conv2d, which is no block, and",
    ),
    "a norm in a branch's place": (BRANCH, lambda block: block.norm, "BatchNorm2d, which is no block, and"),
    "a norm in a convolution's place": (
        CONV,
        lambda conv: nn.BatchNorm2d(conv.out_channels),
        "BatchNorm2d, which is a norm in the place of a convolution",
    ),
    "a convolution in a norm's place": (
        NORM,
        lambda old: nn.Conv2d(old.num_features, old.num_features, 1, groups=old.num_features),
        "Conv2d, which is a convolution in the place of a norm",
    ),
    "a block in a convolution's place": (
        CONV,
        lambda conv: ConvNorm(conv.in_channels, conv.out_channels, 3, groups=conv.groups),
        "ConvNorm, which is a block in the place of a convolution",
    ),
    "a convolution in a linear layer's place": (
        LINEAR,
        lambda linear: nn.Conv2d(linear.in_features, linear.out_features, 1),
        "Conv2d, which is a convolution in the place of a linear layer",
    ),
    "a skip of other groups": (
        "stages.0.blocks.0.mixer.norm",
        lambda skip: SkipNorm(skip.channels, 1),
        "SkipNorm, whose groups are 1 and its block's 8",
    ),
    "a forward of another class": (
        "stages.0.blocks.0.mixer",
        lambda mixer: randomize(DoubledMixer(mixer.channels, 0.1)),
        "DoubledMixer, whose forward is another than its affine",
    ),
}


def _with_qconfig(conv: nn.Conv2d) -> nn.Conv2d:
    conv.qconfig = torch.ao.quantization.get_default_qat_qconfig("fbgemm")
    return conv


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_known_exactly_is_refused_with_its_name_its_class_and_what_to_do(name: str) -> None:
    place, exchange, why = REFUSED[name]
    changed = with_layer(place, exchange)
    blocks = list(fusible_blocks(changed))
    for inplace in (False, True):
        with pytest.raises(ValueError, match=rf"^cannot reparameterize {place}, a .*{why}.*") as error:
            fastvit.reparameterize(changed, inplace=inplace)
        assert "\n" not in str(error.value)
        assert list(fusible_blocks(changed)) == blocks  # not half fused
    block = next(changed.get_submodule(block) for block in blocks if f"{place}.".startswith(f"{block}."))
    with pytest.raises(ValueError, match=why):
        block.fuse()  # type: ignore[operator]


def test_a_forward_that_was_exchanged_on_an_object_is_refused() -> None:
    for place in (CONV, NORM, "stages.0.blocks.0.mixer"):
        changed = model()
        part = changed.get_submodule(place)
        part.forward = lambda x, old=part.forward: 2 * old(x)
        with pytest.raises(ValueError, match=rf"cannot reparameterize {place}, .*forward"):
            fastvit.reparameterize(changed)


def test_what_was_put_beside_the_branches_or_in_no_modules_place_is_refused() -> None:
    changed = model()
    changed.get_submodule("stem.0.conv").add_module("large", nn.Conv2d(3, 8, 5, 2, 2).double().eval())
    changed(IMAGES)
    with pytest.raises(ValueError, match=r"cannot reparameterize stem\.0\.conv\.large, a .*Conv2d, which is no block"):
        fastvit.reparameterize(changed)
    changed = model()
    mixer = changed.get_submodule("stages.0.blocks.0.mixer")
    del mixer.norm
    mixer.norm = torch.tanh
    changed(IMAGES)
    with pytest.raises(
        ValueError, match=r"cannot reparameterize stages\.0\.blocks\.0\.mixer, .*whose norm is no module"
    ):
        fastvit.reparameterize(changed)


@pytest.mark.parametrize("shape", [(16,), (2, 8, 1, 1), (8, 16, 1)], ids=str)
def test_a_scale_that_is_not_one_number_a_channel_is_refused(shape: tuple[int, ...]) -> None:
    changed = model()
    changed.get_submodule("stages.0.blocks.0.mixer").scale = nn.Parameter(torch.ones(shape))
    changed(IMAGES)
    with pytest.raises(
        ValueError, match=r"cannot reparameterize stages\.0\.blocks\.0\.mixer, .*whose scale is of shape"
    ):
        fastvit.reparameterize(changed)


class Wrapped(torch.Tensor):
    """A tensor that is another's view, as those of DTensor and torchao are."""

    def __tensor_flatten__(self) -> None: ...


def test_weights_that_are_no_plain_tensors_are_refused() -> None:
    changed = model()
    conv = changed.get_submodule(CONV)
    conv.weight = nn.Parameter(conv.weight.detach().as_subclass(Wrapped))
    with pytest.raises(ValueError, match=f"{CONV}, .*whose weights are not plain tensors"):
        fastvit.reparameterize(changed)


@torch.no_grad()
def test_a_parametrized_layer_scale_is_folded_exactly() -> None:
    class Squared(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x**2 + 0.1

    changed = model()
    for name in ("stages.0.blocks.0.mixer", "stages.1.blocks.0.mlp.fc2"):
        parametrize.register_parametrization(changed.get_submodule(name), "scale", Squared())
    changed.eval()
    expected = changed(IMAGES)
    assert not torch.allclose(expected, model()(IMAGES))
    assert_near(fastvit.reparameterize(changed)(IMAGES), expected, 1e-9)


@torch.no_grad()
def test_pruned_and_old_weight_norms_are_folded_once_they_are_made_plain() -> None:
    changed = model()
    prune.l1_unstructured(changed.get_submodule(CONV), "weight", 0.5)
    prune.remove(changed.get_submodule(CONV), "weight")
    expected = changed(IMAGES)
    assert_near(fastvit.reparameterize(changed)(IMAGES), expected, 1e-9)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's, of its older norms
@pytest.mark.parametrize(
    ("place", "change"),
    [
        (CONV, lambda layer: prune.l1_unstructured(layer, "weight", 0.5)),
        (NORM, lambda layer: prune.l1_unstructured(layer, "bias", 0.5)),
        (LINEAR, lambda layer: prune.ln_structured(layer, "weight", 0.5, 2, 0)),
        (CONV, torch.nn.utils.spectral_norm),
        (LINEAR, torch.nn.utils.spectral_norm),
        (CONV, torch.nn.utils.weight_norm),
    ],
)
@torch.no_grad()
def test_what_sets_a_tensor_before_each_call_is_refused_with_what_makes_it_plain(
    place: str, change: Callable[[Any], object]
) -> None:
    changed = model()
    layer = changed.get_submodule(place)
    change(layer)
    changed.eval()
    expected = changed(IMAGES)
    with pytest.raises(ValueError, match=rf"cannot reparameterize {place}, .* plain first, with torch\.") as error:
        fastvit.reparameterize(changed)
    exec(str(error.value).partition(" plain first, with ")[2], {"torch": torch, "layer": layer})
    assert_near(fastvit.reparameterize(changed)(IMAGES), expected, 1e-9)


# Everything else that folds


@pytest.mark.parametrize("place", ["stages.0.blocks.0.mixer", LINEAR.removesuffix(".linear")])
def test_overparameterize_refuses_a_layer_that_is_not_known_exactly(place: str) -> None:
    fused = fastvit.reparameterize(model())
    layer = fused.get_submodule(place)
    fused.set_submodule(place, nn.Sequential(layer))
    with pytest.raises(ValueError, match=f"cannot overparameterize {place}, a .*Sequential, which is no class"):
        fastvit.overparameterize(fused)


def test_overparameterize_refuses_another_stride_or_padding() -> None:
    fused = fastvit.reparameterize(model())
    fused.get_submodule("stem.0.conv").stride = (1, 1)
    with pytest.raises(ValueError, match=r"cannot overparameterize stem\.0\.conv, .*whose stride"):
        fastvit.overparameterize(fused)


@pytest.mark.parametrize(
    ("exchange", "why"),
    [
        (lambda conv: nn.Conv2d(8, 8, 1, groups=8), r"whose weight is \(8, 1, 1, 1\), expected \(8, 1, 3, 3\)"),
        (lambda conv: nn.Conv2d(8, 8, 5, padding=2, groups=8), r"whose weight is \(8, 1, 5, 5\), expected"),
        (lambda conv: nn.BatchNorm2d(8), "which is a norm in the place of a convolution"),
    ],
)
def test_overparameterize_refuses_a_layer_that_no_branches_give(exchange: Callable[[Any], nn.Module], why: str) -> None:
    fused, place = fastvit.reparameterize(model()), "stages.0.blocks.0.mixer"
    fused.set_submodule(place, exchange(fused.get_submodule(place)).double().eval())
    fused(IMAGES)
    with pytest.raises(ValueError, match=f"cannot overparameterize {place}, a .*{why}"):
        fastvit.overparameterize(fused)


@pytest.mark.parametrize("use", [fastvit.verify, fastvit.engine, lambda model: fastvit.export(model, "out.pt2")])
def test_what_folds_on_the_way_refuses_the_same(
    use: Callable[[FastViT], Any], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    changed = with_layer(CONV, lambda conv: like(conv, Doubled)).float()
    with pytest.raises(ValueError, match=f"cannot reparameterize {CONV if use is not fastvit.verify else ''}.*Doubled"):
        use(changed)
    assert not list(tmp_path.iterdir())


# Hooks inside


@torch.no_grad()
@pytest.mark.parametrize("inplace", [False, True], ids=["copied", "in place"])
def test_a_block_with_hooks_inside_stays_and_computes_and_records_what_it_did(inplace: bool) -> None:
    changed, seen = model(), []
    handles = [
        changed.get_submodule(CONV).register_forward_hook(lambda module, inputs, output: 2 * output),
        changed.get_submodule(LINEAR).register_forward_pre_hook(lambda module, inputs: seen.append(inputs)),
    ]
    expected = changed(IMAGES)
    with pytest.warns(fastvit.FastViTWarning, match=rf"hooks inside .*\({CONV} and 1 more\): remove the hooks"):
        fused = fastvit.reparameterize(changed, inplace=inplace)
    assert list(fusible_blocks(fused)) == ["stages.0.blocks.0.mixer", "stages.3.blocks.0.mixer.qkv"]
    assert_near(fused(IMAGES), expected, 1e-9)
    assert len(seen) == 2
    if inplace:
        for handle in handles:
            handle.remove()
        assert not fusible_blocks(fastvit.reparameterize(fused))


def test_verify_leaves_out_blocks_with_hooks_inside_and_form_of_says_to_remove_them() -> None:
    changed, seen = model(), []
    blocks = list(fusible_blocks(changed))
    handle = changed.get_submodule(CONV).register_forward_hook(lambda module, inputs, output: 2 * output)
    changed.get_submodule(blocks[1]).register_forward_pre_hook(lambda module, inputs: (3 * inputs[0],))
    changed.get_submodule(blocks[2]).register_forward_hook(lambda module, inputs, output: seen.append(output))
    with pytest.warns(fastvit.FastViTWarning, match="blocks with hooks inside stay as they are") as said:
        report = fastvit.verify(changed, IMAGES)
    assert report.exact and len(said) == 1 and seen
    assert [row.name for row in report.blocks] == [name for name in blocks if not CONV.startswith(f"{name}.")]
    with pytest.warns(fastvit.FastViTWarning):
        fused = fastvit.reparameterize(changed, inplace=True)
    with pytest.raises(ValueError, match=rf"remove the hooks inside the others \({CONV}\), and finish with reparam"):
        fastvit.form_of(fused)
    handle.remove()
    assert fastvit.form_of(fastvit.reparameterize(fused)) == "fused"


def test_a_block_alone_with_hooks_inside_is_not_folded() -> None:
    block = model().get_submodule("stages.0.blocks.0.mixer")
    block.norm.register_forward_hook(lambda module, inputs, output: 2 * output)
    with pytest.raises(ValueError, match=r"with hooks inside \(norm\)"):
        block.fuse()
    with pytest.warns(fastvit.FastViTWarning, match="hooks inside"):
        assert type(fastvit.reparameterize(block)) is type(block)


def test_fused_in_place_or_in_a_copy_is_the_same() -> None:
    assert equal(fastvit.reparameterize(model()), fastvit.reparameterize(model(), inplace=True))


def test_the_affine_part_of_a_layer_norm_counts_as_known() -> None:
    assert any(isinstance(module, ScaleShift) for module in small("fastvithd").modules())
