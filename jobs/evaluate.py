"""`ray job submit --working-dir . -- python jobs/evaluate.py RECIPE [key=value ...]`: see `aft-ray evaluate --help`."""

import sys

from aft_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
