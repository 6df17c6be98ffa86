"""A hub that cannot be reached is told at once: its client is not asked, which would repeat its requests."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import NoReturn

import pytest
from huggingface_hub import constants

from aft_ray.models import hub_connection, model_files
from aft_ray.models.model_files import Repository
from aft_ray.recipe.errors import InputError


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The tests themselves run offline."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in (*hub_connection.PROXIES, "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    hub_connection.answers.cache_clear()
    yield
    hub_connection.answers.cache_clear()


def never(*arguments: object, **options: object) -> NoReturn:
    raise AssertionError("the hub's client was asked")


def test_the_client_is_not_asked_where_nothing_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:  # bound and not listening: a connection is refused
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        monkeypatch.setattr(model_files, "_hash_on_hub", never)
        with pytest.raises(InputError, match=r"org/name is not in the model hub's cache, .* \(it cannot be reached\)"):
            Repository("org/name").digest("config.json")


def test_a_server_or_a_proxy_that_takes_a_connection_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        place = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", place)
        assert hub_connection.answers()
        hub_connection.answers.cache_clear()
        monkeypatch.setattr(constants, "ENDPOINT", "https://nowhere.invalid")
        monkeypatch.setenv("HTTPS_PROXY", place)
        assert hub_connection.answers()
