"""No reports: OpenVINO and nncf send some, from their import on, under a name that they keep in the home folder."""

import sys


def silence() -> None:
    """For this process, before `import openvino` or `import nncf`: they find nothing to report with.

    Both take the package openvino_telemetry as optional and go on without it. Nothing is written, and nothing changes
    for what has imported them before.
    """
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # Python's way to say: cannot be imported
