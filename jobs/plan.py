"""`ray job submit --working-dir . -- python jobs/plan.py RECIPE [key=value ...]`: see `aft-ray plan --help`."""

import sys

from aft_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["plan", *sys.argv[1:]]))
