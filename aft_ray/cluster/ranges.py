"""Ranges: commands without a common cluster divide the work below one lease among them, and work side by side.

A command enters with the lease and leaves a claim for its range, which it holds while it works. So a command that has the
lease and sees no claim is alone. Nobody waits for a range with the lease in hand: a command at work can always take it to
finish what all have done together.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from aft_ray.cluster.claims import Claim, Claims, Owner
from aft_ray.cluster.lease import lease
from aft_ray.recipe.actors import MOST_PROCESSES
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.printable import tell
from aft_ray.store.files import Directory


@dataclass(frozen=True)
class Range:
    """Every `of`-th piece of work, from number `number` on. Ranges never overlap, whatever is done already.

    Neighbours lie in different ranges: where another command did the first half of the work, all have as much left to do.
    """

    number: int
    of: int

    @classmethod
    def parsed(cls, text: str) -> Range:
        """The range `i/N`. Raises InputError if the text has another form."""
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
        number, of = map(int, found.groups()) if found else (0, 0)
        if not 0 < of <= MOST_PROCESSES:
            raise InputError(
                f"--range is {text!r}; it must be i/N, the i-th of N ranges, such as 0/4, with N from 1 to"
                f" {MOST_PROCESSES:,}."
            )
        if number >= of:
            raise InputError(
                f"--range is {text!r}; {of} ranges are 0/{of} to {of - 1}/{of}, counted from 0 as in"
                f" 'sbatch --array=0-{of - 1}'."
            )
        return cls(number, of)

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def indices(self, count: int) -> range:
        """The pieces of this range, of `count` in all."""
        return range(self.number, count, self.of)


@contextmanager
def range_lease(workspace: Directory, name: str, own: Range) -> Iterator[None]:
    """One range of the work below the lease `name`. Waits for a command that has the same range, or all of the work.

    Raises InputError if commands at work divide it into another number of ranges.
    """
    claims, owner = _claims(workspace, name), Owner.this_process(own.of)
    claim = Claim(own.number, uuid.uuid4().hex)
    while not _enter(workspace, name, claims, claim, owner):
        _check_number(workspace, claims, own)
        claims.wait(lambda other: other.number == own.number, f"range {own} of {name}")
    with claims.held(claim, owner):
        yield


@contextmanager
def whole_lease(workspace: Directory, name: str) -> Iterator[None]:
    """The lease `name` while no command works on a range. Waits for such commands and says for whom."""
    claims = _claims(workspace, name)
    while True:
        with lease(workspace, name):
            if not claims.all():
                yield
                return
        claims.wait(lambda claim: True, f"ranges of {name}")


def _claims(workspace: Directory, name: str) -> Claims:
    return Claims(workspace / "leases" / f"{name}-ranges")


def _enter(workspace: Directory, name: str, claims: Claims, own: Claim, owner: Owner) -> bool:
    """Writes the claim, unless another command has this range or divides the work into another number."""
    with lease(workspace, name, sweeps=False):
        there = claims.all()
        if any(claim.number == own.number for claim in there) or _of_another_number(claims, there, owner.of):
            return False
        claims.write(own, owner)
        return True


def _of_another_number(claims: Claims, there: list[Claim], of: int | None) -> list[Claim]:
    return [claim for claim in there if (owner := claims.owner(claim)) is not None and owner.of != of]


def _check_number(workspace: Directory, claims: Claims, own: Range) -> None:
    """Raises InputError if a living command divides the work into another number. Removes the claims of dead ones."""
    if not (others := _of_another_number(claims, claims.all(), own.of)):
        return
    tell(f"{workspace} has ranges of another number: seeing whether their commands still work ...")
    if (found := claims.living(others)) is not None:
        claim, owner = found
        raise InputError(
            f"--range is {own}, and range {claim.number}/{owner.of} is at work in {workspace}: {owner}. Give i/{owner.of}, or"
            " wait until these ranges have ended."
        )
