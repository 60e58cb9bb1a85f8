"""The entry point of ``softnll``: every failure ends in one line on standard error and an exit code."""

from __future__ import annotations

import os
import sys
import warnings
from contextlib import nullcontext

from softnll._cli.compiling import announced
from softnll._cli.encoding import accept_all_text
from softnll._cli.exit_code import ExitCode

_EXTRA = {"typer", "rich", "matplotlib", "jinja2", "markupsafe", "sklearn", "PIL", "pyarrow", "safetensors"}


def main(arguments: list[str] | None = None) -> int:
    """Run ``softnll`` with these arguments (the process's own if None) and return its `ExitCode`."""
    accept_all_text()
    if arguments is None and not sys.warnoptions:
        # A warning of a library names its files, not the user's; `python -W` shows them.
        warnings.simplefilter("ignore")
    try:
        with announced() if arguments is None else nullcontext():
            code = _run(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()  # a full disk or a closed pipe raises here, instead of a traceback at exit
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except Exception as error:
        code, message = _outcome(error)
        if message is None:
            raise
        _print_error(message)
    return code


def _run(arguments: list[str]) -> int:
    """Run the command that the arguments name; return the exit code."""
    import typer  # noqa: PLC0415 - importing this module stays light, and works without the app extra

    from softnll._cli.commands import app  # noqa: PLC0415

    # typer's usage errors are click's, of which newer typers carry a copy of their own: reached through a public name.
    usage_error: type[Exception] = typer.BadParameter.__mro__[1]
    try:
        code = app(arguments or ["--help"], prog_name="softnll", standalone_mode=False)
    except usage_error as error:
        raise ValueError(error.format_message()) from None  # type: ignore[attr-defined]
    except typer.Abort:  # Ctrl-C, in older typers
        return ExitCode.INTERRUPTED
    return code if isinstance(code, int) else ExitCode.DONE


def _outcome(error: Exception) -> tuple[int, str | None]:
    """Return the exit code and the message of an error; the message of a bug is None, since it needs its traceback."""
    match error:
        case BrokenPipeError():
            # The process that reads the output has ended (``| head``): print nothing, also when Python flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return ExitCode.FAILED, ""
        case ImportError() if (error.name or "").partition(".")[0] in _EXTRA or "softnll[" in str(error):
            other = "softnll[app]" not in str(error) and "softnll[" in str(error)
            return ExitCode.FAILED, str(error) if other else "the command line needs more: pip install 'softnll[app]'"
        case OSError(strerror=str(reason), filename=str(name)):
            return ExitCode.FAILED, f"{name}: {reason}"
        case OSError() | MemoryError():
            return ExitCode.FAILED, str(error) or type(error).__name__
        case ValueError() | TypeError() | OverflowError():  # a DataError is a ValueError
            return ExitCode.BAD_INPUT, str(error)
    return ExitCode.FAILED, None


def _print_error(message: str) -> None:
    """Write the message as one line to standard error, without characters that a terminal interprets."""
    from softnll.data.text import printable  # noqa: PLC0415 - NumPy comes with it

    if message:
        sys.stderr.write(f"softnll: {printable(' '.join(message.split()), 500)}\n")


if __name__ == "__main__":
    sys.exit(main())
