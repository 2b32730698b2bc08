"""The end of a run says how near the outputs were to those of the official code; loaders hold what can be sent."""

import pickle
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader

import golden


@pytest.fixture(autouse=True)
def loaders_can_be_sent(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows and macOS start a loader's workers anew and send them their data, as Linux does from Python 3.14."""
    if request.path.parent.name not in ("jobs", "recipes"):
        return
    make = DataLoader.__init__

    def checked(self: Any, dataset: Any, *args: Any, **options: Any) -> None:
        pickle.loads(pickle.dumps((dataset, options)))
        make(self, dataset, *args, **options)

    monkeypatch.setattr(DataLoader, "__init__", checked)


def pytest_addoption(parser: pytest.Parser) -> None:
    told = "add every golden's worst share of its tolerance to FOLDER, and write the table anew"
    parser.addoption("--goldens", metavar="FOLDER", type=Path, help=told)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if folder := config.getoption("--goldens"):
        golden.write_shares(folder)
    if lines := golden.worst_shares():
        terminalreporter.section("goldens")
        for line in lines:
            terminalreporter.write_line(line)
