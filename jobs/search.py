"""`ray job submit --working-dir . -- python jobs/search.py RECIPE [key=value ...]`: see `aft-ray search --help`."""

import sys

from aft_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["search", *sys.argv[1:]]))
