"""What the options --device, --engine and --unfused make of a network."""

import pytest
import torch
from helpers.small import small

from fastvit.cli.options import device_for, runner
from fastvit.models.reparam import fusible_blocks


def test_engines_of_the_processor_take_it_even_where_there_is_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastvit.utils.devices.choose_device", lambda name: torch.device(name or "cuda"))
    assert device_for("", "openvino").type == device_for("", "onnxruntime").type == "cpu"
    assert device_for("", "torch").type == device_for("", "compile").type == device_for("", "auto").type == "cuda"
    with pytest.raises(ValueError, match=r"^--device cuda: --engine openvino runs on the processor; give --device cpu"):
        device_for("cuda", "openvino")


@pytest.mark.parametrize("fused", [True, False])
def test_in_torch_and_float32_it_is_the_network_itself_in_the_form_asked_for(fused: bool) -> None:
    network, images = small("fastvit_sa12"), torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = network(images)
        run = runner(network, "torch", "float32", fused=fused)
        assert bool(fusible_blocks(run)) != fused
        torch.testing.assert_close(run(images), expected, rtol=1e-4, atol=1e-4)


def test_in_another_precision_it_is_an_engine() -> None:
    network, images = small("fastvit_sa12"), torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = network(images)
        run = runner(network, "torch", "bfloat16")
        difference = (run(images) - expected).abs().max() / expected.abs().max()
    assert (run.name, run.precision) == ("torch", "bfloat16") and 1e-5 < difference < 0.05
