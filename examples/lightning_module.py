"""AFT in a Lightning module, for pictures: python examples/lightning_module.py WORKSPACE TEACHER ...

The workspace holds pictures: `aft-ray prepare` and `aft-ray extract` have filled it.
"""

import sys

import lightning
import timm
import torch
from torch.utils.data import DataLoader, default_collate

from aft_ray.models.images import ImageTransform, normalise
from aft_ray.regularizers import build_regularizer
from aft_ray.store import features_by_id, open_store

CROP = ImageTransform(size=32)


class Student(lightning.LightningModule):
    def __init__(self, num_classes: int, teacher_dims: list[int], beta: float = 10.0) -> None:
        super().__init__()
        self.model, self.beta = timm.create_model("test_resnet", num_classes=num_classes), beta
        self.aft = build_regularizer("aft", student_dim=self.model.num_features, teacher_dims=teacher_dims)

    def training_step(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        features = self.model.forward_head(
            self.model.forward_features(normalise(batch["image"], CROP)), pre_logits=True
        )
        loss = torch.nn.functional.cross_entropy(self.model.get_classifier()(features), batch["label"])
        regularization = self.aft(features, batch["teacher_features"])
        self.log_dict({"loss": loss, "regularization": regularization}, prog_bar=True)
        return loss + self.beta * regularization

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam([{"params": self.model.parameters()}, {"params": self.aft.parameters(), "lr": 0.01}])


def main(workspace: str, *teachers: str, steps: int = 200) -> lightning.Trainer:
    store, features = open_store(workspace, "train"), features_by_id(workspace, "train", teachers)
    rows = [row for s in store.map_shards(dict) for row in zip(s["sample_id"], s["image"], s["label"], strict=True)]
    samples = [{"sample_id": i, "image": torch.from_numpy(CROP(image)), "label": label} for i, image, label in rows]
    loader = DataLoader(samples, batch_size=32, shuffle=True, collate_fn=features.collator(default_collate))  # type: ignore[arg-type,var-annotated]
    trainer = lightning.Trainer(max_steps=steps, accelerator="auto", logger=False, enable_checkpointing=False)
    trainer.fit(Student(len(store.manifest["classes"]), features.teacher_dims), loader)
    return trainer


if __name__ == "__main__":
    main(*sys.argv[1:])
