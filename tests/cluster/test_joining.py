"""When an actor joins, leaves and comes back, with a Ray that answers at once."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest
from ray import exceptions

from aft_ray.cluster import joining
from aft_ray.cluster.joining import Joining
from aft_ray.cluster.slots import Slots

LOST = exceptions.ActorUnavailableError("its node is gone", None)


class Actor:
    """Answers each question of `begun` with the next of `answers`: what it returns or raises; None for later."""

    def __init__(self, *answers: Any) -> None:
        self.answers = deque(answers)
        self.begun = SimpleNamespace(remote=lambda: Question(self))


class Question:
    def __init__(self, actor: Actor) -> None:
        self.actor = actor


def wait(asked: list[Question], num_returns: int, timeout: float) -> tuple[list[Question], list[Question]]:
    for question in asked:
        if question.actor.answers[0] is None:
            question.actor.answers.popleft()
            asked = [one for one in asked if one is not question]
    return asked, []


def get(question: Question) -> Any:
    answer = question.actor.answers.popleft()
    if isinstance(answer, Exception):
        raise answer
    return answer


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a Joining without its thread, for these actors beside one of the gang, and the slots of their stage."""
    monkeypatch.setattr(joining, "ray", SimpleNamespace(wait=wait, get=get, exceptions=exceptions))
    monkeypatch.setattr(joining.threading.Thread, "start", lambda thread: None)

    def make(*actors: Actor) -> tuple[Joining, Slots, list[str]]:
        slots, changes = Slots(["gang", *[None] * len(actors)], each=2), []
        pools: Any = [([Actor(), *actors], slots)]
        return Joining(pools, lambda: changes.append("changed")), slots, changes

    return make


def test_actors_join_as_they_answer_and_come_back_from_a_loss(joined: Any) -> None:
    watched, slots, changes = joined(Actor(LOST, None, ("a", ""), ("b", "")), Actor(("c", ""), LOST, LOST))
    watched.look()
    assert slots.nodes == ["gang", None, "c"] and len(changes) == 1
    assert not watched.may_be_lost([(slots, 0)]) and watched.may_be_lost([(slots, 0), (slots, 2)])
    assert slots.nodes == ["gang", None, None] and len(changes) == 2
    watched.look()
    assert slots.nodes == ["gang", None, None]
    watched.look()
    assert slots.nodes == ["gang", "a", None]
    assert watched.lines() == []


def test_one_that_cannot_begin_is_told_once_and_joins_when_it_begins_elsewhere(joined: Any) -> None:
    fault = "Node 10.0.0.7 (01234567): Teacher 'a': no such weights"
    watched, slots, _ = joined(Actor(("a", fault), ("a", fault), ("b", "")), Actor(("a", fault), LOST, LOST))
    watched.look()
    assert watched.lines() == [f"an actor cannot join, the others go on: {fault}"]
    watched.look()
    assert slots.nodes == ["gang", None, None]
    watched.look()
    assert slots.nodes == ["gang", "b", None] and watched.lines() == []


def test_one_that_ray_cannot_start_is_told(joined: Any) -> None:
    watched, _, _ = joined(Actor(exceptions.RuntimeEnvSetupError("no working_dir")))
    watched.look()
    assert watched.lines() == ["an actor cannot join, the others go on: no working_dir"]
