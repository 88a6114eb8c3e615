"""What holds in every test: the same random numbers, no network, no deadlines on a busy machine."""

import os

import pytest
import torch
from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"

settings.register_profile("fastvit", deadline=None, derandomize=True)
settings.load_profile("fastvit")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
