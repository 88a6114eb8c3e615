"""timm's registry: ours only when asked. Each test in a process of its own, since a registry cannot be undone."""

import subprocess
import sys

import pytest

PRELUDE = "import warnings; warnings.simplefilter('error'); import timm, fastvit\n"


def output_of(code: str) -> str:
    ran = subprocess.run([sys.executable, "-c", PRELUDE + code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def test_importing_registers_nothing() -> None:
    code = "print(timm.is_model('fastvithd'), type(timm.create_model('fastvit_t8')).__module__)"
    assert output_of(code) == "False timm.models.fastvit"


def test_registering_adds_only_what_timm_lacks_and_says_which() -> None:
    code = """
print(fastvit.register_timm(), fastvit.register_timm())
print(type(timm.create_model('fastvit_t8')).__module__)
model = timm.create_model('fastvithd', num_classes=3, in_chans=1, drop_path_rate=0.1)
print(type(model) is fastvit.FastViT, model.num_classes, model.in_chans, timm.list_models('fastvithd'))
"""
    assert output_of(code).splitlines() == [
        "['fastvithd'] ['fastvithd']",
        "timm.models.fastvit",
        "True 3 1 ['fastvithd']",
    ]


def test_overriding_takes_every_name_without_a_warning() -> None:
    code = """
print(fastvit.register_timm(override=True) == fastvit.list_models())
for name in ('fastvit_t8', 'fastvit_sa12'):
    model = timm.create_model(name, num_classes=0, global_pool='')
    print(type(model) is fastvit.FastViT, model.num_classes)
print(timm.get_pretrained_cfg('fastvit_sa36').crop_pct)
maps = timm.create_model('fastvithd', features_only=True, out_indices=(0, 4))
print(maps.feature_info.channels(), maps.feature_info.reduction())
"""
    assert output_of(code).splitlines() == ["True", "True 0", "True 0", "0.95", "[96, 1536] [4, 64]"]


@pytest.mark.parametrize("pretrained", [True, False])
def test_timm_makes_our_tagged_checkpoints(pretrained: bool) -> None:
    code = f"""
fastvit.register_timm(override=True)
model = timm.create_model('fastvit_t8.cifar10', pretrained={pretrained}).eval()
ours = fastvit.load(fastvit.weights.catalog.bundled('fastvit_t8.cifar10'))
print(model.num_classes, (model.head.fc.weight == ours.head.fc.weight).all().item() if {pretrained} else True)
print(timm.data.resolve_model_data_config(model)['input_size'] if {pretrained} else '')
"""
    expected = ["10 True", "(3, 64, 64)"] if pretrained else ["1000 True"]
    assert output_of(code).splitlines() == expected
