"""What the programs share: flags parsed early, and one plain sentence for whatever a user can mend.

TensorFlow takes seconds to start. So a program parses its command line first, with nothing but
absl and the recipes loaded, and a typo is answered at once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from absl import app, flags, logging

from keras_robust.core.validation import did_you_mean
from keras_robust.experiments.flags import recipe_flags

# What a user can mend: a name, a number, a file. Anything else is a defect, and shows where.
USER_ERRORS = (ValueError, OSError, ImportError)

Define = Callable[[flags.FlagValues], None]


def early(argv: Sequence[str], define_flags: Define) -> flags.FlagValues:
    """A first look at the command line: the program's own flags, whatever else stands there.

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
    argv: Sequence[str], define_flags: Define, values: flags.FlagValues = flags.FLAGS
) -> list[str]:
    """Parses the command line.

    Args:
        argv: the command line, the program's name first.
        define_flags: declares the program's flags; they are in `values` already.
        values: what to fill.

    Returns:
        What is not a flag: the program's name alone.

    Raises:
        ValueError: an unknown flag, with the valid ones; an argument that is no flag.
        absl.flags.Error: a value that does not fit.
    """
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
        raise ValueError(sentence) from None
    if len(rest) > 1:
        raise ValueError(f"{rest[1]!r} is no flag; write flags as --NAME=VALUE.")
    return rest


def required(values: flags.FlagValues, name: str, example: str) -> Any:
    """The value of a flag that a program cannot do without.

    Raises:
        ValueError: it was not given.
    """
    if values[name].value in (None, []):
        raise ValueError(f"--{name} is missing; give it as in --{name}={example}")
    return values[name].value


def start(
    program: str,
    main: Callable[[list[str]], int | None],
    define_flags: Define,
    parser: Callable[[Sequence[str]], list[str]] | None = None,
) -> None:
    """Runs a program under absl; what the user can mend in its flags ends it with one sentence.

    Args:
        program: its module, such as `"trainers.train"`.
        main: the program; returns the exit code.
        define_flags: declares its flags.
        parser: parses its command line, if `parse` alone does not do.
    """

    def flags_parser(argv: Sequence[str]) -> list[str]:
        try:
            return parser(argv) if parser else parse(argv, define_flags)
        except (*USER_ERRORS, flags.Error) as error:
            fail(program, error)

    def run(argv: list[str]) -> int | None:
        if not flags.FLAGS["verbosity"].present:  # absl makes INFO of the default
            logging.set_verbosity(logging.WARNING)  # TensorFlow tells of every export
        return main(argv)

    define_flags(flags.FLAGS)
    app.run(run, flags_parser=flags_parser)


def fail(program: str, error: BaseException) -> NoReturn:
    """Ends the program with what an error says, and an exit code that is not zero."""
    sys.exit(f"{program}: {error}")


def initialize_devices() -> None:
    """Lets TensorFlow look for devices, about which it prints lines the first time."""
    import tensorflow as tf

    tf.config.list_logical_devices()
