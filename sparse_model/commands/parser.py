"""What all verbs share: parsing, and errors as one sentence."""

import argparse
import os
import sys
from collections.abc import Sequence
from types import ModuleType

from ..files import printable
from .stopping import code_of, terminable

LIMIT = 1000
"""Characters of an error: what files say of themselves, and what people type, has no end."""
CLOSED_PIPE = 128 + 13
"""The exit code that shells know from SIGPIPE."""


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, without the usage text."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: {printable(message, LIMIT)}\n")


def run_verb(verbs: Sequence[ModuleType], description: str, arguments: Sequence[str] | None) -> int:
    """Parses the arguments (of the process, if None) and runs the verb that they name -> the exit code.

    A verb's STOPPED says what is left of it after Ctrl-C.
    """
    parser, left = Parser(prog="python -m sparse_model", description=description), ""
    try:
        with terminable():
            commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
            for verb in verbs:
                verb.add_parser(commands).set_defaults(run=verb.run, left=getattr(verb, "STOPPED", ""))
            options = parser.parse_args(arguments)
            parser.prog, left = f"{parser.prog} {options.command}", options.left
            options.run(options)
            sys.stdout.flush()
    except BrokenPipeError:  # whoever read, such as head, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is flushed at exit
        return CLOSED_PIPE
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: {printable(_sentence(error), LIMIT)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        print(f"\n{parser.prog}: stopped; {left or 'nothing was written'}.", file=sys.stderr)
        return code_of(error)
    return 0


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"'{error.filename}': {error.strerror}."
    return str(error)
