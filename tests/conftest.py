"""What holds in every test: the same random numbers, one thread, no network, no deadlines on a busy machine.

What takes long to import is imported in the fixtures: pytest's first process, which runs no test, can do without it.
"""

import os
from collections.abc import Generator

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"  # here and in the programs that tests start; one test runs on each core
# of these programs: where `helpers` and `fastvit` are
os.environ["PYTHONPATH"] = os.pathsep.join([os.path.dirname(__file__), os.path.dirname(os.path.dirname(__file__))])

import pytest
from hypothesis import settings

from fastvit.training import Stopped

pytest_plugins = ["helpers.hub_server"]

settings.register_profile("fastvit", deadline=None, derandomize=True)
settings.load_profile("fastvit")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """A signal to end the tests, as `timeout` sends it, ends them also where a trainer takes it for one to itself."""
    try:
        return (yield)
    except Stopped as stopped:
        item.session.shouldstop = f"signal {stopped.signal} in {item.nodeid}"
        raise


@pytest.fixture(autouse=True)
def _seed() -> None:
    import torch

    torch.manual_seed(0)


@pytest.fixture
def small_variants(monkeypatch: pytest.MonkeyPatch) -> None:
    """The names mean the small networks, for `create_model` and for files."""
    from helpers.small import SMALL

    from fastvit import CONFIGS

    for name, config in SMALL.items():
        monkeypatch.setitem(CONFIGS, name, config)


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is registered with timm meanwhile goes with the test."""
    from helpers.registry import copied  # which imports timm

    copied(monkeypatch)


@pytest.fixture
def overridden(own_registry: None) -> None:
    """Timm makes our models under all their names."""
    import fastvit

    fastvit.register_timm(override=True)
