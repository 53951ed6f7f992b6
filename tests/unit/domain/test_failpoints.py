from __future__ import annotations

import os
import signal
import sys
import time

import pytest

from app.domain.errors import InvalidFieldError
from app.domain.failpoints import NO_FAILPOINTS, Failpoints, Fault, InjectedError, parse_failpoints, parse_fault


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("committed", Fault("committed", "after", "kill")),
        ("committed:before", Fault("committed", "before", "kill")),
        ("committed:raise", Fault("committed", "after", "raise")),
        ("committed:before:pause:hit=3", Fault("committed", "before", "pause", hit=3)),
        ("committed:hit=2:delay=1.5:before", Fault("committed", "before", "delay", 1.5, 2)),
        (" committed:kill ", Fault("committed")),
    ],
)
def test_what_a_failpoint_says(text: str, fault: Fault) -> None:
    assert parse_fault(text) == fault


@pytest.mark.parametrize(
    "text",
    [
        "comitted", "committed:stop", "committed:", "committed:delay", "committed:delay=", "committed:delay=x",
        "committed:delay=-1", "committed:delay=.", "committed:hit=0", "committed:hit=x", "committed:kill=1", ":before",
        "committed,", "committed;fence_request", "committed,comitted", "all",
    ],
)  # fmt: skip
def test_what_says_nothing_is_an_error_with_the_setting_in_it(text: str) -> None:
    with pytest.raises(InvalidFieldError, match="AUTOLOADER_FAILPOINT"):
        parse_failpoints(text)


def test_nothing_set_is_nothing_done() -> None:
    assert parse_failpoints("") is NO_FAILPOINTS
    assert parse_failpoints(" ") is NO_FAILPOINTS
    with NO_FAILPOINTS.step("committed"):
        pass
    NO_FAILPOINTS.before("committed")
    NO_FAILPOINTS.after("committed")


def test_a_step_is_told_before_and_after_it() -> None:
    told: list[str] = []
    failpoints = Failpoints(told.append)
    with failpoints.step("committed"):
        told.append("done")
    assert told == ["committed:before", "done", "committed:after"]


def test_a_step_that_raises_has_no_after() -> None:
    told: list[str] = []
    with pytest.raises(ZeroDivisionError), Failpoints(told.append).step("committed"):
        raise ZeroDivisionError
    assert told == ["committed:before"]


def test_it_happens_the_time_that_was_said_and_no_other() -> None:
    failpoints = parse_failpoints("committed:before:raise:hit=2,committed:after:raise:hit=3")
    with failpoints.step("committed"):
        pass
    with pytest.raises(InjectedError, match="before committed"), failpoints.step("committed"):
        raise AssertionError
    with failpoints.step("committed"):
        pass
    # The second time it was not done.
    with pytest.raises(InjectedError, match="after committed"), failpoints.step("committed"):
        pass
    with failpoints.step("batch_closed"), failpoints.step("committed"):
        pass


def test_a_delay_waits_and_goes_on() -> None:
    began = time.monotonic()
    with parse_failpoints("committed:before:delay=0.2").step("committed"):
        assert time.monotonic() - began >= 0.2


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_process_that_is_killed_does_nothing_more(moment: str) -> None:
    pid = forked(f"committed:{moment}:kill")
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL


def test_a_process_that_is_paused_goes_on_where_it_stood() -> None:
    pid = forked("committed:pause")
    _, status = os.waitpid(pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    os.kill(pid, signal.SIGCONT)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


def forked(text: str) -> int:
    """A process that goes through one step and ends with status 7."""
    script = (
        "import sys; from app.domain.failpoints import parse_failpoints\n"
        "with parse_failpoints(sys.argv[1]).step('committed'): pass\n"
        "sys.exit(7)"
    )
    return os.posix_spawn(sys.executable, [sys.executable, "-c", script, text], os.environ)
