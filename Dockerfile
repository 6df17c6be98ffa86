# aft_ray with the weights that come in packages. The workspace is mounted or in an object store.
#
#   docker build -t aft-ray:cuda .                                       NVIDIA GPUs
#   docker build -t aft-ray --build-arg TORCH_OPTIONS="-i URL" .         CPU: URL of PyTorch's index of wheels for CPUs
#   docker run --rm --shm-size 4g -v "$PWD":/work aft-ray demo
#   docker run --rm --shm-size 4g -v "$PWD":/work aft-ray init pictures > recipe.yaml
#
# Ray keeps objects in shared memory: give it some GB with --shm-size. For jobs/kuberay.yaml the image has Ray's command line too;
# the Python version is the one that the cluster's other images need.
ARG PYTHON=3.11
FROM python:${PYTHON}-slim

# pip's options for PyTorch alone: its wheels in the default index bring CUDA, some GB; another index has them without.
ARG TORCH_OPTIONS=
ARG EXTRAS=offline,hub,onnx,optuna

ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1
RUN pip install ${TORCH_OPTIONS} torch torchvision

COPY pyproject.toml README.md LICENSE NOTICE /src/
COPY aft_ray /src/aft_ray
COPY jobs/recipes /src/jobs/recipes
RUN pip install "/src[${EXTRAS}]" && rm -rf /src

RUN useradd --create-home ray && mkdir /work && chown ray /work
USER ray
WORKDIR /work
ENTRYPOINT ["aft-ray"]
CMD ["--help"]
