"""`ray job submit --working-dir . -- python jobs/predict.py RECIPE PATH [key=value ...]`: see `aft-ray predict --help`."""

import sys

from aft_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["predict", *sys.argv[1:]]))
