"""Factor transfer (arXiv 1802.04977), a baseline of AFT's paper."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from aft_ray.regularizers.autoencoder import FeatureEncoder, fit_encoder
from aft_ray.regularizers.base import Regularizer, Scope
from aft_ray.regularizers.distributed import Rows
from aft_ray.regularizers.fitting import FittingData

HELD_OUT = 10
"""Where there is no validation split, the autoencoder stops by every tenth train row."""


class FactorTransfer(Regularizer):
    """Factor transfer: L1 distance of the normalised translation of student features and teacher codes.

    The codes are ``encoder(teacher_features)``, from `fit_encoder`; without an encoder, the teacher features themselves.
    """

    name = "ft"
    title = "factor transfer"
    colours = ("#b0457f", "#e58fbd")
    betas = (0.0125, 0.05, 0.2, 0.8)

    def __init__(
        self,
        student_dim: int,
        teacher_dims: Sequence[int],
        *,
        encoder: FeatureEncoder | None = None,
        scope: Scope = "global",
    ) -> None:
        super().__init__(student_dim, teacher_dims, scope=scope)
        if encoder is not None and encoder.teacher_dims != self.teacher_dims:
            raise ValueError(
                f"encoder must be fitted to teachers of widths {list(self.teacher_dims)}, got {list(encoder.teacher_dims)}."
            )
        self.encoder = encoder
        code_dim = self.teacher_dim if encoder is None else encoder.code_dim
        self.translator = nn.Sequential(
            nn.Linear(student_dim, student_dim),
            nn.ReLU(),
            nn.Linear(student_dim, code_dim),
            nn.ReLU(),
            last := nn.Linear(code_dim, code_dim),
        )
        # Its bias keeps the usual initialisation: with both zero nothing could be normalised.
        nn.init.zeros_(last.weight)

    @classmethod
    def fitted_options(cls, data: FittingData) -> dict[str, Any]:
        """The autoencoder of all teachers. Its training takes longer than many a student's, so it is kept for other runs."""
        with torch.random.fork_rng(devices=[]):  # later draws do not depend on who has trained the encoder
            encoder = FeatureEncoder(data.teacher_dims)
        if not data.weights_follow:
            every_teacher = range(len(data.teacher_dims))
            encoder.load_state_dict(data.kept("encoders", every_teacher, lambda: _trained(data)))
        return {"encoder": encoder}

    def _value(self, student: tuple[Tensor, ...], teacher_bT: Tensor, rows: Rows) -> Tensor:
        codes_bT = teacher_bT if self.encoder is None else self.encoder(teacher_bT)
        return rows.mean_loss((normalize(self.translator(student[0])) - normalize(codes_bT)).abs().sum(1))


def _trained(data: FittingData) -> dict[str, Tensor]:
    own, held_out = data.train_features(), data.validation_features()
    if held_out is None:
        own, held_out = np.delete(own, np.s_[::HELD_OUT], axis=0), own[::HELD_OUT]
    return fit_encoder(own, held_out, data.teacher_dims, device=data.device).cpu().state_dict()
