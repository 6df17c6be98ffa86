"""`ray job submit --working-dir . -- python jobs/train.py RECIPE [key=value ...]`: see `aft-ray train --help`."""

import sys

from aft_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
