"""Methods describe themselves: everything else in the package asks their classes, also those of the user's own."""

from pathlib import Path

import numpy as np
import pytest

from aft_ray.regularizers import (
    REGULARIZERS,
    FeatureEncoder,
    MadeUpData,
    Regularizer,
    build_regularizer,
    fit_regularizer,
    regularizer_class,
)
from tests.helpers.own_regularizers import Means

OWN = "tests.helpers.own_regularizers:Means"


def test_every_method_has_a_title_colours_and_as_many_strengths() -> None:
    kinds = list(REGULARIZERS.values())
    assert [kind.name for kind in kinds] == list(REGULARIZERS)
    assert all(kind.title and len({*kind.colours, "#444444", "#bbbbbb"}) == 4 for kind in kinds)
    assert len({kind.title for kind in kinds}) == len({kind.colours for kind in kinds}) == len(kinds)
    assert {len(kind.betas) for kind in kinds if kind.needs_teachers} == {4}
    assert all(list(kind.betas) == sorted(kind.betas) for kind in kinds)


@pytest.mark.parametrize("method", [*REGULARIZERS, OWN])
def test_every_method_is_built_before_there_is_any_data(method: str) -> None:
    """Also those that will be fitted to the data: a check of the recipe knows their options without it."""
    regularizer = fit_regularizer(method, MadeUpData(2), student_dim=2)
    assert isinstance(regularizer, regularizer_class(method)) and not regularizer.is_off
    assert regularizer.teacher_dims == (2, 2)


def test_a_fitted_option_cannot_be_given() -> None:
    with pytest.raises(ValueError, match="Option 'scores' of regularizer 'btune' is fitted to the data. Leave it out."):
        fit_regularizer("btune", MadeUpData(1), student_dim=2, scores=[1.0])
    with pytest.raises(ValueError, match="Option 'encoder' of regularizer 'ft' is fitted to the data. Leave it out."):
        fit_regularizer("ft", MadeUpData(1), student_dim=2, encoder=FeatureEncoder([2]))


def test_a_class_of_ones_own_is_a_method() -> None:
    assert regularizer_class(OWN) is Means
    built = build_regularizer(OWN, student_dim=3, teacher_dims=[2], means=np.zeros(2), power=1)
    assert isinstance(built, Means) and built.power == 1
    with pytest.raises(ValueError, match=rf"Unknown option 'powr' for regularizer '{OWN}'\. Known: means, power\."):
        build_regularizer(OWN, student_dim=3, teacher_dims=[2], powr=1)
    with pytest.raises(ValueError, match="power must be 1 or 2, got 3."):
        fit_regularizer(OWN, MadeUpData(1), student_dim=2, power=3)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:Means", "Regularizer 'no_such_module:Means' cannot be imported: No module named"),
        ("tests.helpers.own_regularizers:Mean", "cannot be imported: module .* has no attribute 'Mean'"),
        ("tests.helpers.own_regularizers:np", "must be a subclass of aft_ray.regularizers.Regularizer."),
        (":Means", "Regularizer ':Means' cannot be imported"),
    ],
)
def test_helpful_errors_about_classes_of_ones_own(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        regularizer_class(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class Means(nn.Module): ...", "NameError: name 'nn' is not defined"),
        ("class Means(:", "SyntaxError: invalid syntax"),
        ("assert False, 'no'", "AssertionError: no"),
    ],
)
def test_a_module_of_one_s_own_that_fails_is_told_in_a_line(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "failing_method.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=f"Regularizer 'failing_method:Means' cannot be imported: {message}"):
        regularizer_class("failing_method:Means")


def test_only_methods_are_registered() -> None:
    assert all(issubclass(kind, Regularizer) and kind.name for kind in REGULARIZERS.values())
    assert "" not in REGULARIZERS


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("probe_kd", "Unknown options 'gate', 'width' for regularizer 'probe_kd'. Known: combine, scope."),
        ("btune", "Unknown options 'gate', 'width' for regularizer 'btune'. Known: scope."),
        ("aft_probe", "for regularizer 'aft_probe'. Known: raw_weight, combine, learn_gates, scope."),
    ],
)
def test_options_that_are_fitted_to_the_data_are_not_offered(name: str, message: str) -> None:
    data = MadeUpData(1)
    with pytest.raises(ValueError) as refused:
        fit_regularizer(name, data, student_dim=MadeUpData.student_dim, gate=1, width=2)
    assert str(refused.value).endswith(message)
