"""`ray job submit --working-dir . -- python jobs/pipeline.py RECIPE [key=value ...]`: see `aft-ray pipeline --help`."""

import sys

from aft_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["pipeline", *sys.argv[1:]]))
