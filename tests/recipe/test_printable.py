"""Names from outside cannot steer a terminal, hide, or end the program where they cannot be shown."""

from __future__ import annotations

import io
import logging

import pytest

from aft_ray.recipe.printable import PrintableFormatter, counted, printable, tell


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("two\nlines\r", "two\\nlines\\r"),
        ("\x9b31m", "\\x9b31m"),  # ESC [ in one character
        ("exe\u202egnp.", "exe\\u202egnp."),
        ("one\u2028line", "one\\u2028line"),
        ("not text: \udcff", "not text: \\udcff"),
        ("café, 日本, 👩‍🔬 [/b]", "café, 日本, 👩‍🔬 [/b]"),
    ],
)
def test_what_steers_a_terminal_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown


def test_a_fault_stays_on_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    tell("no class 'a\naft-ray: all is well'")
    assert capsys.readouterr().err == "aft-ray: no class 'a\\naft-ray: all is well'\n"


def test_a_log_shows_names_as_they_are_spelt() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(PrintableFormatter("%(levelname)s: %(message)s"))
    handler.handle(
        logging.makeLogRecord({"levelname": "WARNING", "msg": "Sample %s is left out.", "args": ("\x1b[8m",)})
    )
    assert stream.getvalue() == "WARNING: Sample \\x1b[8m is left out.\n"


def test_one_is_told_in_the_singular() -> None:
    told = [counted(1, "sample"), counted(0, "sample"), counted(1791, "sample"), counted(2, "class", "classes")]
    assert told == ["1 sample", "0 samples", "1,791 samples", "2 classes"]
