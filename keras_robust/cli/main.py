"""The console script `keras-robust`: finds the command, parses its flags and runs it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from types import ModuleType

from absl import flags, logging

from keras_robust import __version__
from keras_robust.cli import completion
from keras_robust.core.validation import did_you_mean
from keras_robust.experiments.flags import command_line

COMMANDS = (
    "evaluate", "compare", "check", "attack", "export", "calibrate", "serve", "monitor", "query",
    "verify",
)  # fmt: skip
_COMPLETION = "completion"
_HELP, _FULL = {"--help", "-help", "-h"}, {"--helpfull", "--help-full"}
_WIDTH = 100
_EXIT_CODES = """exit codes: 0 done; 1 an error of the model, the data or a value; 2 a command line
that cannot be understood; 3 below --fail_under; 130 interrupted"""


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
    if name == _COMPLETION:
        print(_completion(rest))
        return
    if name not in COMMANDS:
        expected = did_you_mean(name, (*COMMANDS, _COMPLETION))
        error = f"There is no command {name!r}; expected one of {expected}"
        command_line.fail("keras-robust", command_line.UsageError(error))
    module = _module(name)
    values = _flags(name)
    if (_HELP | _FULL).intersection(rest):
        main_flags = None if _FULL.intersection(rest) else getattr(module, "MAIN_FLAGS", None)
        print(f"{_document(name, module)}\n\nflags:\n{_flag_help(name, values, main_flags)}")
        return
    program = f"keras-robust {name}"
    if not rest:
        command_line.usage(program, module.__doc__ or "", program)
    logging.set_verbosity(logging.WARNING)  # TensorFlow logs every export
    resume_hint = getattr(module, "resume_hint", lambda _: command_line.START_OVER)
    with command_line.interruptible(program, lambda: resume_hint(values)):
        try:
            positional = getattr(module, "positional", None)
            command_line.parse([program, *rest], module.define_flags, values, positional)
            text = module.run(values)
        except command_line.NotPassed as failure:
            print(failure)
            sys.exit(command_line.FAILED)
        except (*command_line.USER_ERRORS, flags.Error) as error:
            command_line.fail(program, error)
    if text:
        print(text)


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"keras_robust.cli.{name}")


def _flags(name: str) -> flags.FlagValues:
    values = flags.FlagValues()
    _module(name).define_flags(values)
    return values


def _completion(arguments: Sequence[str]) -> str:
    """The completion script of a shell, or the help of that."""
    if _HELP.union(_FULL).intersection(arguments) or not arguments:
        return f"keras-robust {_COMPLETION}\n\n{completion.HELP}"
    if len(arguments) > 1 or arguments[0] not in completion.SHELLS:
        expected = " or ".join(completion.SHELLS)
        error = f"keras-robust {_COMPLETION} takes {expected}; received {' '.join(arguments)!r}"
        command_line.fail("keras-robust", command_line.UsageError(error))
    return completion.script(arguments[0], {name: _flags(name) for name in COMMANDS}).rstrip("\n")


def _usage() -> str:
    summaries = {name: (_module(name).__doc__ or "").splitlines()[0] for name in COMMANDS}
    summaries[_COMPLETION] = completion.HELP.splitlines()[0]
    width = max(map(len, summaries))
    lines = [f"  {name.ljust(width)}  {summary}" for name, summary in summaries.items()]
    return "\n".join(
        [
            "usage: keras-robust COMMAND [MODEL] --FLAG=VALUE ...",
            "",
            *lines,
            "",
            "`keras-robust COMMAND --help` explains a command, `--helpfull` all of its flags.",
            "",
            _EXIT_CODES,
        ]
    )


def _document(name: str, module: ModuleType) -> str:
    return f"keras-robust {name}\n\n{(module.__doc__ or '').strip()}"


def _flag_help(name: str, values: flags.FlagValues, main_flags: Sequence[str] | None) -> str:
    """The flags of a command with their defaults, in alphabetical order.

    Args:
        name: the command.
        values: its flags.
        main_flags: those that are explained, in their order, while others are named; None for all.
    """
    lines = []
    for flag in (values[flag] for flag in main_flags or sorted(values)):
        default = (flag.default_as_str or "").strip("'")
        default = f" (default: {default})" if default else ""
        text = f"{_name(flag)}: {flag.help}{default}"
        lines.append(flags.text_wrap(text, _WIDTH, indent="      ", firstline_indent="  "))
    others = [] if main_flags is None else sorted(set(values) - set(main_flags))
    if others:
        names = ", ".join(_name(values[flag]) for flag in others)
        text = f"Further flags, explained by `keras-robust {name} --helpfull`: {names}"
        lines += ["", flags.text_wrap(text, _WIDTH, indent="  ", firstline_indent="")]
    return "\n".join(lines)


def _name(flag: flags.Flag) -> str:
    return f"--{'[no]' if flag.boolean else ''}{flag.name}"


if __name__ == "__main__":
    main()
