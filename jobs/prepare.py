"""`ray job submit --working-dir . -- python jobs/prepare.py RECIPE [key=value ...]`: see `aft-ray prepare --help`."""

import sys

from aft_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["prepare", *sys.argv[1:]]))
