"""`ray job submit --working-dir . -- python jobs/export.py RECIPE [key=value ...]`: see `aft-ray export --help`."""

import sys

from aft_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))
