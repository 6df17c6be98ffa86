"""`ray job submit --working-dir . -- python jobs/extract.py RECIPE [key=value ...]`: see `aft-ray extract --help`."""

import sys

from aft_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["extract", *sys.argv[1:]]))
