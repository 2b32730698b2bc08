"""The end of a run says how near the outputs were to those of the official code."""

import pytest

import golden


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if lines := golden.worst_shares():
        terminalreporter.section("goldens")
        for line in lines:
            terminalreporter.write_line(line)
