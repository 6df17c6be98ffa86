"""A model of another loop with a regularizer beside its loss."""

from __future__ import annotations

import pytest
import torch
import transformers

from aft_ray.regularizers import build_regularizer
from aft_ray.training.transfer_model import TransferModel, mean_of_tokens


@pytest.fixture
def both() -> TransferModel:
    torch.manual_seed(0)
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.BertConfig(vocab_size=20, num_labels=3, hidden_dropout_prob=0.0, **small)
    config.attention_probs_dropout_prob = 0.0
    student = transformers.BertForSequenceClassification(config)
    return TransferModel(student, build_regularizer("aft", student_dim=16, teacher_dims=[5]), beta=3.0)


def inputs() -> dict[str, torch.Tensor]:
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]])
    ids = torch.arange(12).view(3, 4) * mask
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([0, 1, 2])}


def test_the_loss_is_the_student_s_and_the_weighted_regularization(both: TransferModel) -> None:
    teacher = torch.randn(3, 5, generator=torch.Generator().manual_seed(1))
    plain = both.student(**inputs(), output_hidden_states=True)
    features = mean_of_tokens(plain, inputs())
    assert torch.allclose(features[1], plain.hidden_states[-1][1, :2].mean(0))
    expected = plain.loss + 3.0 * both.regularizer(features, teacher, plain.logits)
    outputs = both(teacher_features=teacher, **inputs())
    assert torch.allclose(outputs.loss, expected) and outputs.loss > plain.loss
    outputs.loss.backward()
    assert all(parameter.grad is not None for parameter in both.regularizer.parameters())


def test_to_evaluate_the_outputs_are_the_student_s_alone(both: TransferModel) -> None:
    assert torch.equal(both(**inputs()).loss, both.student(**inputs()).loss)
    both.eval()
    outputs = both(teacher_features=torch.randn(3, 5), **inputs())
    assert torch.equal(outputs.loss, both.student(**inputs()).loss) and "hidden_states" not in outputs


def test_the_regularizer_s_parameters_have_their_own_rate_and_do_not_decay(both: TransferModel) -> None:
    student, own = both.parameter_groups(1e-4)
    assert (student["lr"], own["lr"], own["weight_decay"]) == (1e-4, 0.01, 0.0)
    assert len(student["params"]) + len(own["params"]) == len(list(both.parameters()))
