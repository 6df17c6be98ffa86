"""`ray job submit --working-dir . -- python jobs/rank.py RECIPE [key=value ...]`: see `aft-ray rank --help`."""

import sys

from aft_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["rank", *sys.argv[1:]]))
