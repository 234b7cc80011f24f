"""Ctrl-C, and SIGTERM of a system that wants its machine back, end a command in one sentence."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn


class Stopped(KeyboardInterrupt):
    """The signal of this number has ended a command."""

    def __init__(self, number: int = signal.SIGINT):
        self.number = number


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM raises Stopped in this block, so that what is half written is removed as after Ctrl-C."""

    def stop(number: int, _: object) -> NoReturn:
        raise Stopped(number)

    if threading.current_thread() is not threading.main_thread():  # others hear no signals
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def code_of(error: KeyboardInterrupt) -> int:
    """The exit code of a process that a signal ended, as shells count it: 130 after Ctrl-C."""
    return 128 + (error.number if isinstance(error, Stopped) else signal.SIGINT)
