"""Regularizers by name: AFT, its variants and the baselines of its paper (arXiv 2406.07337)."""

import inspect
from collections.abc import Sequence
from typing import Any

from aft_ray.regularizers.aft import Aft, AftDense, AftNoKernel, AftRbf, KernelKd
from aft_ray.regularizers.autoencoder import FeatureEncoder, fit_encoder
from aft_ray.regularizers.base import Regularizer, StudentDim
from aft_ray.regularizers.baselines import BTuning, FactorTransfer, Kd, NoRegularizer, btune_options
from aft_ray.regularizers.logme import LogMEStatistics, log_me
from aft_ray.regularizers.probe import Probe, ridge_probe
from aft_ray.regularizers.relational import Rkd

__all__ = [
    "REGULARIZERS",
    "FeatureEncoder",
    "LogMEStatistics",
    "Probe",
    "Regularizer",
    "btune_options",
    "build_regularizer",
    "fit_encoder",
    "log_me",
    "ridge_probe",
]

REGULARIZERS: dict[str, type[Regularizer]] = {
    "none": NoRegularizer,
    "aft": Aft,
    "aft_rbf": AftRbf,
    "aft_dense": AftDense,
    "aft_no_kernel": AftNoKernel,
    "kd": Kd,
    "kkd": KernelKd,
    "rkd": Rkd,
    "ft": FactorTransfer,
    "btune": BTuning,
}
"""Every regularizer a recipe can name; the first line of its docstring describes it."""


def build_regularizer(
    name: str, *, student_dim: StudentDim, teacher_dims: Sequence[int], **options: Any
) -> Regularizer:
    """The regularizer ``name`` for a student of width ``student_dim`` and teachers of widths ``teacher_dims``.

    ``options`` are the keyword arguments of its class in `REGULARIZERS`. ``student_dim`` is a tuple, one width per modality,
    with ``combine="product"``.
    """
    if name not in REGULARIZERS:
        raise ValueError(f"Unknown regularizer {name!r}. Known: {', '.join(REGULARIZERS)}.")
    signature = inspect.signature(REGULARIZERS[name]).parameters.values()
    known = {option.name: option.default for option in signature if option.kind is option.KEYWORD_ONLY}
    for option in sorted(options.keys() - known.keys()):
        raise ValueError(f"Unknown option {option!r} for regularizer {name!r}. Known: {', '.join(known)}.")
    required = [option for option, default in known.items() if default is inspect.Parameter.empty]
    if missing := [option for option in required if option not in options]:
        raise ValueError(f"Regularizer {name!r} needs the options {', '.join(missing)}.")
    return REGULARIZERS[name](student_dim, teacher_dims, **options)
