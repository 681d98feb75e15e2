"""Tells, at the end of a test run, how much of the wire transcript holds on each server."""

from collections import Counter, defaultdict

import pytest


class Tally:
    """A plugin of pytest's: it counts the outcomes of one test, by the server it ran on."""

    def __init__(self, test: str) -> None:
        self.test = test
        self.outcomes: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" or f"{self.test}[" not in report.nodeid:
            return
        kind = report.nodeid.partition("[")[2].partition(" ")[0]
        outcome = "hold" if report.passed else "fail"
        if hasattr(report, "wasxfail"):
            outcome = "expected failures"
        self.outcomes[kind][outcome] += 1

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.outcomes:
            terminalreporter.section("wire transcript")
        for kind, outcomes in sorted(self.outcomes.items()):
            counts = ", ".join(f"{outcomes[outcome]} {outcome}" for outcome in sorted(outcomes))
            terminalreporter.line(f"{kind}: of {outcomes.total()} cases {counts}")
