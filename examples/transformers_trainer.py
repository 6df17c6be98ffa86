"""transformers' own Trainer, with AFT beside its loss: python examples/transformers_trainer.py WORKSPACE MODEL TEACHER ...

The workspace holds texts: `aft-ray prepare` and `aft-ray extract` have filled it.
"""

import sys

from torch.optim import AdamW
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding, Trainer
from transformers import TrainingArguments as Arguments

from aft_ray.regularizers import build_regularizer
from aft_ray.store import features_by_id, open_store
from aft_ray.training.transfer_model import TransferModel


def main(
    workspace: str,
    model: str,
    *teachers: str,
    beta: float = 10,
    epochs: int = 3,
    learning_rate: float = 2e-5,
    output: str = "work/trainer",
) -> dict[str, float]:
    """Trains, saves the student and returns its metrics on the validation split."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    store, validation = open_store(workspace, "train"), open_store(workspace, "validation")
    rows = [row for s in store.map_shards(dict) for row in zip(s["sample_id"], s["text"], s["label"], strict=True)]
    train = [{"sample_id": i, "labels": int(y), **tokenizer(text, truncation=True)} for i, text, y in rows]
    held = [pair for s in validation.map_shards(dict) for pair in zip(s["text"], s["label"], strict=True)]
    test = [{"labels": int(y), **tokenizer(text, truncation=True)} for text, y in held]

    student = AutoModelForSequenceClassification.from_pretrained(model, num_labels=len(store.manifest["classes"]))
    features = features_by_id(workspace, "train", teachers)
    aft = build_regularizer("aft", student_dim=student.config.hidden_size, teacher_dims=features.teacher_dims)
    both = TransferModel(student, aft, beta)
    trainer = Trainer(
        both,
        Arguments(
            output, num_train_epochs=epochs, remove_unused_columns=False, label_names=["labels"], save_strategy="no"
        ),
        data_collator=features.collator(DataCollatorWithPadding(tokenizer)),
        train_dataset=train,
        eval_dataset=test,
        compute_metrics=lambda found: {"accuracy": float((found.predictions.argmax(1) == found.label_ids).mean())},
        optimizers=(AdamW(both.parameter_groups(learning_rate)), None),
    )
    trainer.train()
    student.save_pretrained(output)
    return trainer.evaluate()


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
