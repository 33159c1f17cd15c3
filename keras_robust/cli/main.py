"""The console script `keras-robust`: finds the command, parses its flags and runs it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from types import ModuleType

from absl import flags, logging

from keras_robust import __version__
from keras_robust.core.validation import did_you_mean
from keras_robust.experiments.flags import command_line

COMMANDS = ("evaluate", "check", "attack", "export", "calibrate", "serve", "query", "verify")
_HELP = {"--help", "-help", "-h"}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a command; user errors and Ctrl-C end it with a one-line message.

    Args:
        argv: the command and its flags; default those of the process.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in _HELP:
        print(_usage())
        return
    if arguments[0] == "--version":
        print(f"keras-robust {__version__}")
        return
    name, *rest = arguments
    if name not in COMMANDS:
        expected = did_you_mean(name, COMMANDS)
        error = f"There is no command {name!r}; expected one of {expected}"
        command_line.fail("keras-robust", command_line.UsageError(error))
    module = _module(name)
    values = flags.FlagValues()
    module.define_flags(values)
    if _HELP.intersection(rest):
        print(f"{_document(name, module)}\n\nflags:\n{_flag_help(values)}")
        return
    program = f"keras-robust {name}"
    if not rest:
        command_line.usage(program, module.__doc__ or "", program)
    logging.set_verbosity(logging.WARNING)  # TensorFlow logs every export
    resume_hint = getattr(module, "resume_hint", lambda _: command_line.START_OVER)
    with command_line.interruptible(program, lambda: resume_hint(values)):
        try:
            command_line.parse([program, *rest], module.define_flags, values)
            text = module.run(values)
        except (*command_line.USER_ERRORS, flags.Error) as error:
            command_line.fail(program, error)
    if text:
        print(text)


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"keras_robust.cli.{name}")


def _usage() -> str:
    summaries = {name: (_module(name).__doc__ or "").splitlines()[0] for name in COMMANDS}
    width = max(map(len, summaries))
    lines = [f"  {name.ljust(width)}  {summary}" for name, summary in summaries.items()]
    return "\n".join(
        [
            "usage: keras-robust COMMAND --FLAG=VALUE ...",
            "",
            *lines,
            "",
            "`keras-robust COMMAND --help` explains a command and lists its flags.",
        ]
    )


def _document(name: str, module: ModuleType) -> str:
    return f"keras-robust {name}\n\n{(module.__doc__ or '').strip()}"


def _flag_help(values: flags.FlagValues) -> str:
    """The flags of a command with their defaults, in alphabetical order."""
    lines = []
    for name in sorted(values):
        flag = values[name]
        default = (flag.default_as_str or "").strip("'")
        default = f" (default: {default})" if default else ""
        text = f"--{'[no]' if flag.boolean else ''}{name}: {flag.help}{default}"
        lines.append(flags.text_wrap(text, indent="      ", firstline_indent="  "))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
