"""What signals do to work in order: the first ends it, the second waits for that, and nothing is lost on the way."""

from __future__ import annotations

import os
import signal
import sys
import threading

import pytest

from core.system.signals import Signalled, graceful_shutdown, signals_blocked

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends itself signals of POSIX")


def press(signum: int = signal.SIGINT) -> None:
    os.kill(os.getpid(), signum)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_every_one_of_them_interrupts(name: str) -> None:
    signum = getattr(signal, name)
    before = signal.getsignal(signum)
    with pytest.raises(KeyboardInterrupt) as raised, graceful_shutdown():
        press(signum)
    assert isinstance(raised.value, Signalled)
    assert raised.value.signum == signum
    assert signal.getsignal(signum) == before


def test_the_second_waits_for_what_the_first_began_and_the_third_does_not() -> None:
    got: list[str] = []
    steps: list[str] = []
    with pytest.raises(Signalled), graceful_shutdown(lambda: got.append("second")):
        try:
            press()
        finally:
            press(signal.SIGTERM)
            steps.append("cleaned up")
            with pytest.raises(Signalled):
                press()
            steps.append("left")
    assert (got, steps) == (["second"], ["cleaned up", "left"])


def test_what_is_deferred_raises_when_it_is_done() -> None:
    steps: list[str] = []

    @signals_blocked()
    def clean_up() -> None:
        press()
        press()
        steps.append("whole")

    with pytest.raises(KeyboardInterrupt):
        clean_up()
    assert steps == ["whole"]
    with pytest.raises(Signalled) as raised, graceful_shutdown(), signals_blocked():
        press(signal.SIGTERM)
        raise ValueError
    assert raised.value.signum == signal.SIGTERM
    assert isinstance(raised.value.__context__, ValueError)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_closed_terminal_ends_nothing_under_nohup() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with graceful_shutdown(), signals_blocked():
            press(signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_other_threads_are_left_alone() -> None:
    seen: list[object] = []

    def work() -> None:
        with graceful_shutdown(), signals_blocked():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]
