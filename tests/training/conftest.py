"""Training's tests draw no curves unless they ask for them: that takes most of the time of runs as small as these."""

import pytest

from fastvit.training.log import MetricsLog


@pytest.fixture
def curves() -> None:
    """The curves are drawn after each epoch, as they are for everybody."""


@pytest.fixture(autouse=True)
def _no_curves(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "curves" not in request.fixturenames:
        monkeypatch.setattr(MetricsLog, "draw", lambda log, path: None)
