"""jaxnas.train on the small space: `python processes_runs.py FLAGS...`."""

import sys

import small_run

from jaxnas import train

if __name__ == '__main__':
  with small_run.registered():
    sys.exit(train.main(sys.argv[1:]))
