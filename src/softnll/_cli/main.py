"""The command line's front door: every way to fail ends in one line on standard error and an exit code."""

from __future__ import annotations

import os
import sys

__all__ = ["main"]

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

_EXTRA = {"typer", "rich", "matplotlib", "jinja2", "markupsafe", "sklearn", "PIL", "pyarrow", "safetensors"}


def main(arguments: list[str] | None = None) -> int:
    """Run ``softnll`` with these arguments (the process's own if None) and return its exit code.

    0: done. 1: the network or the disk failed, or a needed package is missing. 2: bad input. 130: Ctrl-C.
    """
    try:
        code = _run(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()  # a full disk or a closed pipe is told here, not in a traceback at exit
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        code, message = _outcome(error)
        if message is None:
            raise
        _say(message)
    return code


def _run(arguments: list[str]) -> int:
    """Hand the arguments to the commands; return the exit code."""
    import typer  # noqa: PLC0415 - importing this module stays light, and works without the app extra

    from softnll.commands import app  # noqa: PLC0415

    # typer's usage errors are click's, of which newer typers carry a copy of their own: reached through a public name.
    usage_error: type[Exception] = typer.BadParameter.__mro__[1]
    try:
        code = app(arguments or ["--help"], prog_name="softnll", standalone_mode=False)
    except usage_error as error:
        raise ValueError(error.format_message()) from None  # type: ignore[attr-defined]
    except typer.Abort:  # Ctrl-C, in older typers
        return INTERRUPTED
    return code if isinstance(code, int) else DONE


def _outcome(error: Exception) -> tuple[int, str | None]:
    """Return the exit code and the line to say of an error; None where it is our mistake and wants its traceback."""
    match error:
        case BrokenPipeError():
            # Whoever read our output left (``| head``): nothing to say, and Python must not complain at exit either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return FAILED, ""
        case ImportError() if (error.name or "").partition(".")[0] in _EXTRA or "softnll[app]" in str(error):
            return FAILED, "the command line needs more: pip install 'softnll[app]'"
        case OSError(strerror=str(reason), filename=str(name)):
            return FAILED, f"{name}: {reason}"
        case OSError() | MemoryError():
            return FAILED, str(error) or type(error).__name__
        case ValueError() | TypeError() | OverflowError():  # a DataError is a ValueError
            return BAD_INPUT, str(error)
    return FAILED, None


def _say(message: str) -> None:
    """Write the message as one line to standard error, without anything a terminal would act upon."""
    from softnll.data.text import printable  # noqa: PLC0415 - NumPy comes with it

    if message:
        sys.stderr.write(f"softnll: {printable(' '.join(message.split()), 500)}\n")


if __name__ == "__main__":
    sys.exit(main())
