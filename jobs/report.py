"""`ray job submit --working-dir . -- python jobs/report.py RECIPE [key=value ...]`: see `aft-ray report --help`."""

import sys

from aft_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["report", *sys.argv[1:]]))
