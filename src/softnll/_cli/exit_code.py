"""The exit codes of the process."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes of ``softnll``."""

    DONE = 0
    FAILED = 1  # the network or the disk failed, a package is missing, or a finding is as severe as --fail-on
    BAD_INPUT = 2
    INTERRUPTED = 130  # Ctrl-C
