"""Parsing of flags and the start of a program; user errors end it with a one-line message.

TensorFlow takes seconds to import, so a program parses its command line first, with absl and the
recipes alone, and answers a typing error at once.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from absl import app, flags, logging

from keras_robust.core.validation import did_you_mean
from keras_robust.experiments.flags import recipe_flags

# Errors that a user can correct: a name, a number, a file, a learning rate.
USER_ERRORS = (ValueError, OSError, ImportError, FloatingPointError)
USAGE, FAILED, INTERRUPTED = 2, 3, 130  # exit codes; 1 for a user error
START_OVER = "the same command starts over."


class UsageError(ValueError):
    """A command line that cannot be understood: a missing or an unknown flag."""


class NotPassed(Exception):
    """A measurement that is below the threshold that was set for it; its text is the output."""


Define = Callable[[flags.FlagValues], None]
Positional = Callable[[flags.FlagValues, list[str]], None]


def early(argv: Sequence[str], define_flags: Define) -> flags.FlagValues:
    """Parses the program's own flags and ignores everything else on the command line.

    Args:
        argv: the command line, the program's name first.
        define_flags: declares the program's flags.

    Returns:
        The values of those flags.
    """
    values = flags.FlagValues()
    define_flags(values)
    values.set_gnu_getopt(True)
    values(list(argv), known_only=True)
    return values


def parse(
    argv: Sequence[str],
    define_flags: Define,
    values: flags.FlagValues = flags.FLAGS,
    positional: Positional | None = None,
) -> list[str]:
    """Parses the command line.

    Args:
        argv: the command line, the program's name first.
        define_flags: declares the program's flags; they are in `values` already.
        values: the flags to fill.
        positional: sets flags from the arguments that are not flags; None to refuse those.

    Returns:
        The arguments that are not flags: the program's name alone.

    Raises:
        UsageError: an unknown flag, or an argument that is not a flag.
        absl.flags.Error: an invalid value.
    """
    values.set_gnu_getopt(positional is not None)  # flags may follow other arguments
    try:
        rest = values(list(argv))
    except flags.UnrecognizedFlagError as error:
        known = flags.FlagValues()
        define_flags(known)
        name = error.flagname
        sentence = f"There is no flag --{name}; there are {did_you_mean(name, sorted(known))}"
        field = recipe_flags.field_called(name, values)
        if field:
            sentence += f" The recipe's field is --config.{field}."
        raise UsageError(sentence) from None
    if len(rest) > 1 and positional is not None:
        positional(values, rest[1:])
        return rest[:1]
    if len(rest) > 1:
        raise not_a_flag(rest[1])
    return rest


def not_a_flag(argument: str) -> UsageError:
    """The error of an argument that is not a flag."""
    return UsageError(f"{argument!r} is not a flag; write flags as --NAME=VALUE.")


def assign(values: flags.FlagValues, name: str, text: str) -> None:
    """Sets a flag from an argument without its name.

    Raises:
        UsageError: the flag was given as well.
    """
    if values[name].present:
        raise UsageError(f"{text!r} and --{name}={values[name].value} were given; expected one.")
    values[name].parse(text)
    values[name].present, values[name].using_default_value = 1, False


def required(values: flags.FlagValues, name: str, example: str) -> Any:
    """The value of a required flag.

    Raises:
        UsageError: the flag was not given.
    """
    if values[name].value in (None, []):
        raise UsageError(f"--{name} is missing; give it as in --{name}={example}")
    return values[name].value


def check_only(values: flags.FlagValues, define_flags: Define, valid: Sequence[str]) -> None:
    """Raises if flags were given that do not go with another one.

    Args:
        values: the parsed flags.
        define_flags: declares the program's flags.
        valid: the flag in question, then those that go with it.

    Raises:
        ValueError: flags that would be ignored.
    """
    own = flags.FlagValues()
    define_flags(own)
    ignored = [f"--{name}" for name in own if values[name].present and name not in valid]
    if ignored:
        raise ValueError(
            f"--{valid[0]} does not take {', '.join(ignored)}; it takes "
            f"{', '.join(f'--{name}' for name in valid[1:])}."
        )


def command(program: str) -> str:
    """The command that started this program, to be kept with its results.

    Args:
        program: its module, such as `"trainers.train"`.
    """
    return shlex.join(["python", "-m", program, *sys.argv[1:]])


def start(
    program: str,
    main: Callable[[list[str]], int | None],
    define_flags: Define,
    parser: Callable[[Sequence[str]], list[str]] | None = None,
    resume_hint: Callable[[], str] = lambda: START_OVER,
) -> None:
    """Runs a program under absl; user errors and Ctrl-C end it with a one-line message.

    With `--verbosity=1` user errors end it with a traceback. Without arguments it prints what it
    does and an example of its flags, and exits with code 2.

    Args:
        program: its module, such as `"trainers.train"`.
        main: the program; returns the exit code.
        define_flags: declares its flags.
        parser: parses its command line; default `parse`.
        resume_hint: the progress of an interrupted program, and how to resume it.
    """

    def flags_parser(argv: Sequence[str]) -> list[str]:
        if len(argv) < 2:
            usage(program, sys.modules[main.__module__].__doc__ or "", f"python -m {program}")
        try:
            return parser(argv) if parser else parse(argv, define_flags)
        except (*USER_ERRORS, flags.Error) as error:
            fail(program, error)

    def run(argv: list[str]) -> int | None:
        if not flags.FLAGS["verbosity"].present:  # absl's default is INFO
            logging.set_verbosity(logging.WARNING)  # TensorFlow logs every export
        try:
            return main(argv)
        except USER_ERRORS as error:
            if flags.FLAGS["verbosity"].present and flags.FLAGS.verbosity > 0:
                raise
            fail(program, error)

    define_flags(flags.FLAGS)
    with interruptible(program, lambda: resume_hint() if flags.FLAGS.is_parsed() else START_OVER):
        app.run(run, flags_parser=flags_parser)


@contextlib.contextmanager
def interruptible(
    program: str, resume_hint: Callable[[], str] = lambda: START_OVER
) -> Iterator[None]:
    """Ends the program on Ctrl-C with one line and exit code 130.

    Args:
        program: its name.
        resume_hint: its progress and how to resume it.
    """
    try:
        yield
    except KeyboardInterrupt:
        text = resume_hint()
        sys.stdout.flush()
        line = "\n" if sys.stdout.isatty() else ""  # a progress bar has no line end yet
        sys.stderr.write(f"{line}{program}: Interrupted; {text}\n")
        sys.exit(INTERRUPTED)


def fail(program: str, error: BaseException) -> NoReturn:
    """Ends the program with the message of an error, and exit code 2 for a usage error, else 1."""
    text = str(error)
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG and error.filename:
        name = os.fsdecode(error.filename)
        text = (
            f"The path {name[:40]!r}... of {len(name)} characters is too long for the file system."
        )
    sys.stderr.write(f"{program}: {text}\n")
    sys.exit(USAGE if isinstance(error, (UsageError, flags.Error)) else 1)


def usage(program: str, document: str, command: str) -> NoReturn:
    """Ends a program that was started without flags with its description and exit code 2."""
    sys.stderr.write(
        f"{document.strip()}\n\n{program}: Expected flags, such as those of the first command "
        f"above; `{command} --help` lists them all.\n"
    )
    sys.exit(USAGE)


def initialize_devices() -> None:
    """Lets TensorFlow look for devices, which logs lines the first time."""
    import tensorflow as tf

    tf.config.list_logical_devices()
