"""Regularizers by name: AFT, its variants and the baselines of its paper (arXiv 2406.07337), and two methods of ours.

A file in this folder that holds a subclass of `Regularizer` with a `name` is a method; nothing else has to know it.
"""

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Mapping, Sequence
from typing import Any

from aft_ray.regularizers.autoencoder import FeatureEncoder, fit_encoder
from aft_ray.regularizers.base import Regularizer, StudentDim
from aft_ray.regularizers.btune import btune_options
from aft_ray.regularizers.fitting import FittingData, MadeUpData
from aft_ray.regularizers.logme import LogMEStatistics, log_me
from aft_ray.regularizers.probe import Probe, ridge_probe

__all__ = [
    "REGULARIZERS",
    "FeatureEncoder",
    "FittingData",
    "LogMEStatistics",
    "MadeUpData",
    "Probe",
    "Regularizer",
    "btune_options",
    "build_regularizer",
    "fit_encoder",
    "fit_regularizer",
    "log_me",
    "regularizer_class",
    "ridge_probe",
]

IN_ORDER = (
    *("none", "aft", "aft_rbf", "aft_dense", "aft_no_kernel", "aft_probe"),
    *("kd", "kkd", "rkd", "ft", "probe_kd", "btune"),
)
"""How tables list the methods; any other file's come after these."""


def _found() -> dict[str, type[Regularizer]]:
    """The methods of every file in this folder."""
    modules = [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
    classes = [kind for module in modules for _, kind in inspect.getmembers(module, inspect.isclass)]
    methods = {kind.name: kind for kind in classes if issubclass(kind, Regularizer) and kind.name}
    return {name: methods[name] for name in sorted(methods, key=lambda name: (*IN_ORDER, name).index(name))}


REGULARIZERS: dict[str, type[Regularizer]] = _found()
"""Every regularizer of this package; the first line of its docstring describes it."""


def regularizer_class(name: str) -> type[Regularizer]:
    """The class of the method ``name``, which may be one of the user's own, ``module:Class``.

    Raises ValueError if no such class exists.
    """
    if name in REGULARIZERS:
        return REGULARIZERS[name]
    module, separator, attribute = name.partition(":")
    if not separator:
        close = difflib.get_close_matches(name, REGULARIZERS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"Unknown regularizer {name!r}.{hint} Known: {', '.join(REGULARIZERS)}.")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # the user's module may raise anything
        kind = "" if isinstance(error, (ImportError, AttributeError, ValueError)) else f"{type(error).__name__}: "
        raise ValueError(f"Regularizer {name!r} cannot be imported: {kind}{error}.") from error
    if not (inspect.isclass(found) and issubclass(found, Regularizer)):
        raise ValueError(f"Regularizer {name!r} must be a subclass of aft_ray.regularizers.Regularizer.")
    return found


def build_regularizer(
    name: str, *, student_dim: StudentDim, teacher_dims: Sequence[int], **options: Any
) -> Regularizer:
    """The regularizer ``name`` for a student of width ``student_dim`` and teachers of widths ``teacher_dims``.

    ``options`` are the keyword arguments of its class in `REGULARIZERS`. ``student_dim`` is a tuple, one width per tower, with
    ``combine="product"``; ``towers`` then says which teachers belong to which.
    """
    kind = regularizer_class(name)
    known = kind.options()
    _check_known(name, options, list(known))
    required = [option for option, default in known.items() if default is inspect.Parameter.empty]
    if missing := [option for option in required if option not in options]:
        raise ValueError(f"Regularizer {name!r} needs the options {', '.join(missing)}.")
    return kind(student_dim, teacher_dims, **options)


def _check_known(name: str, options: Mapping[str, Any], known: Sequence[str]) -> None:
    """Raises ValueError, naming the unknown options and all known ones."""
    if unknown := sorted(options.keys() - set(known)):
        listed = f"option{'s' * (len(unknown) > 1)} {', '.join(map(repr, unknown))}"
        raise ValueError(f"Unknown {listed} for regularizer {name!r}. Known: {', '.join(known)}.")


def fit_regularizer(name: str, data: FittingData, *, student_dim: StudentDim, **options: Any) -> Regularizer:
    """`build_regularizer` with options that the method fits to ``data`` before training, beside the recipe's ``options``."""
    kind = regularizer_class(name)
    fitted = kind.fitted_options(data)
    if "towers" in kind.options():
        fitted = {**fitted, "towers": data.towers}
    for option in sorted(fitted.keys() & options.keys()):
        raise ValueError(f"Option {option!r} of regularizer {name!r} is fitted to the data. Leave it out.")
    _check_known(name, options, [option for option in kind.options() if option not in fitted])
    return build_regularizer(name, student_dim=student_dim, teacher_dims=data.teacher_dims, **fitted, **options)
