"""Training's tests draw no plots unless they ask for them: that takes most of the time of runs as small as these."""

import pytest

from fastvit.training.log import MetricsLog


@pytest.fixture
def curves() -> None:
    """The curves and the confusion matrix are drawn, as they are for everybody."""


@pytest.fixture(autouse=True)
def _no_curves(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "curves" not in request.fixturenames:
        monkeypatch.setattr(MetricsLog, "draw", lambda *_: None)
        monkeypatch.setattr("fastvit.evaluation.report.missing", lambda package: [package])
