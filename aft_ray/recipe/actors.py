"""How many actors a teacher has: a number, or one that grows."""

from __future__ import annotations

from typing import Annotated

from pydantic import Discriminator, Field, Tag, model_validator

from aft_ray.recipe.model import Model

MOST_PROCESSES = 10_000
"""More processes or CPUs are a slip of the hand."""
MOST_GROWING = 1000
"""Most copies of a number that grows: all are asked for at once, and Ray's head keeps 0.1 MiB for each process that waits."""


class ActorsConfig(Model):
    """A number of copies that grows while the work lasts."""

    min: int = Field(gt=0, le=MOST_GROWING)
    """Copies that extraction begins with; it waits for room for all of them."""
    max: int = Field(gt=0, le=MOST_GROWING)
    """Most copies: others join as the cluster has room for them, also on nodes that come later."""

    @model_validator(mode="after")
    def _makes_sense(self) -> ActorsConfig:
        if self.min > self.max:
            raise ValueError(f"must have min <= max, got {self.min} and {self.max}")
        return self


Actors = Annotated[
    Annotated[int, Field(gt=0, le=MOST_PROCESSES), Tag("[number]")] | Annotated[ActorsConfig, Tag("[min and max]")],
    Discriminator(lambda value: "[number]" if not isinstance(value, (dict, ActorsConfig)) else "[min and max]"),
]
"""A number, or one that grows."""
