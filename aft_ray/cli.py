"""The command line: `aft-ray VERB ...`, and its exit statuses. `commands/` has a file for each verb."""

from __future__ import annotations

import sys

if __name__ == "__main__" and not getattr(sys.flags, "safe_path", False):
    sys.path.append(sys.path.pop(0))  # `python -m` puts the working directory first, before Python's own modules

import argparse
import errno
import os
from collections.abc import Sequence

import aft_ray
from aft_ray.cluster.quick_exit import exit_quickly
from aft_ray.commands import epilog, verbs
from aft_ray.commands.completion import complete
from aft_ray.commands.environment import report_without_secrets, set_environment
from aft_ray.commands.library_log import LIBRARY_LOG
from aft_ray.commands.own_modules import script_directory_last
from aft_ray.commands.parser import Parser
from aft_ray.commands.signals import signals_as_before, take_signals
from aft_ray.recipe.errors import ClusterError, InputError, ObjectStoreError
from aft_ray.recipe.printable import show_any_character, tell

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
"""Errors of the disk that the user can mend."""


RESUMED = ("prepare", "extract", "train", "search", "pipeline", "study", "demo")
"""Verbs that go on where they were stopped. The others start anew, and keep their earlier output until the new one is whole."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done; 2 the input is wrong, one line per fault on stderr; 1 anything else."""
    exit_quickly()
    script_directory_last()
    show_any_character()
    parser = _parser()
    if "_ARGCOMPLETE" in os.environ:  # the shell asks for completions
        complete(parser)
    parsed = parser.parse_args(arguments)
    set_environment(own_cluster=parsed.verb != "submit")
    report_without_secrets()
    try:
        with signals_as_before():
            take_signals()
            return int(parsed.run(parsed) or 0)
    except InputError as error:
        for fault in error.faults:
            tell(fault)
        return 2
    except OSError as error:
        if error.errno not in UNWRITABLE and not isinstance(error, ObjectStoreError):
            raise
        whole = " Finished files are whole." if parsed.verb in RESUMED else ""
        tell(f"{error}.{whole} Fix this and {_again(parsed.verb)}.")
        return 2 if isinstance(error, PermissionError) else 1
    except ClusterError as error:
        tell(str(error))
        return 1
    except KeyboardInterrupt:
        tell(f"stopped; {_again(parsed.verb)}.")
        return 1
    finally:
        LIBRARY_LOG.end()


def _again(verb: str) -> str:
    return f"run the same command again {'to continue' if verb in RESUMED else 'from the start'}"


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="aft-ray",
        description="Adaptive Feature Transfer on Ray: the task-relevant knowledge of large frozen teachers in a small"
        " student. A cluster is used when RAY_ADDRESS names one; otherwise everything runs on this machine.",
        epilog="Start with 'aft-ray demo', and for your own data with 'aft-ray init PATH'."
        " Exit status: 0 done, 2 wrong input, 1 anything else.",
    )
    parser.add_argument("--version", action="version", version=f"aft-ray {aft_ray.__version__}")
    commands = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, module in verbs().items():
        command = commands.add_parser(name, help=module.SUMMARY, description=module.SUMMARY, epilog=epilog(module))
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
