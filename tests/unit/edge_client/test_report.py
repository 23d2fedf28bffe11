"""The exit code of a pass is that of its gravest problem."""

from __future__ import annotations

import pytest

from edge_client.agent.report import SEVERITY, PassReport
from nightshift.protocol import errors
from nightshift.protocol.errors import ExitCode


def test_nothing_wrong_is_zero() -> None:
    report = PassReport()
    assert report.exit_code is ExitCode.OK
    assert report.summary == "nothing was due"


@pytest.mark.parametrize(
    ("happened", "code"),
    [
        ([errors.DeclinedError("a"), errors.UnreachableError("b")], ExitCode.UNREACHABLE),
        ([errors.UnreachableError("a"), errors.PartialError("b")], ExitCode.PARTIAL),
        ([errors.ResourceError("a"), errors.PartialError("b")], ExitCode.NO_SPACE),
        (
            [errors.EquivocationError("a"), errors.RevokedError("b")],
            ExitCode.VERIFICATION_FAILED,
        ),
        ([errors.RevokedError("a"), errors.IncompatibleError("b")], ExitCode.REVOKED),
    ],
)
def test_the_gravest_problem_decides(happened: list[errors.NightshiftError], code: ExitCode) -> None:
    for order in (happened, happened[::-1]):
        report = PassReport()
        for error in order:
            report.add_problem(error)
        assert report.exit_code is code
        assert [problem.message for problem in report.problems] == [str(error) for error in order]


def test_every_exit_code_that_a_step_can_raise_has_a_rank() -> None:
    raised = {error.exit_code for error in errors.by_reason().values()}
    before_any_step = {ExitCode.OK, ExitCode.NOT_JOINED, ExitCode.LOCKED}
    assert raised - before_any_step == set(SEVERITY)
    assert len(set(SEVERITY)) == len(SEVERITY)
