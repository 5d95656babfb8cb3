"""Tasks in a Slurm array, which is submitted and left to itself.

Each element takes a share of the list, so that an array of a thousand elements,
Slurm's usual limit, does for 100,000 tasks, and nobody asks after each of them.
"""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from jaxnas.many import tasks
from jaxnas.many.flags import Needs
from jaxnas.many.tasks import Work
from jaxnas.runtime import files

# The file of a root that says which job is at its tasks.
JOB = 'slurm.json'

# The elements of an array where Slurm does not say how many it takes.
ELEMENTS = 1000

SCRIPT = 'slurm_array.sbatch'


def run(work: Work, at_once: int, needs: Needs) -> None:
  """Submits the tasks as one array.

  Raises OSError where Slurm refuses, or an array is at them already.
  """
  if job := underway(work.root):
    raise OSError(
      f'job {job} is at the tasks of {work.root}: wait for its end, or '
      f'scancel {job}; --gather shows how far they are.'
    )
  listed = work.root / 'slurm' / 'tasks.json'
  listed.parent.mkdir(exist_ok=True)
  files.write_json(listed, tasks.to_json(work))
  count = min(len(work.tasks), elements())
  said = _sbatch(
    [
      '--parsable',
      f'--array=0-{count - 1}%{at_once}',
      f'--output={listed.parent}/%a.out',
    ],
    needs,
    [sys.executable, str(listed), str(count)],
  )
  job = said.strip().partition(';')[0]
  if not job.isdigit():
    raise OSError(
      f'sbatch gives no job ({said!r:.200}): see --needs.sbatch, whose flags '
      'are of a job that is submitted.'
    )
  files.write_json(work.root / JOB, {'job': job})
  print(
    f'job {job}: {len(work.tasks)} tasks in an array of {count}, {at_once} at '
    'once; --gather shows how far they are'
  )


def _sbatch(flags: Sequence[str], needs: Needs, words: Sequence[str]) -> str:
  """Calls sbatch with the script of the array; returns what it prints.

  Raises OSError where it refuses, and ValueError for no flags.
  """
  try:
    own = shlex.split(needs.sbatch)
  except ValueError as error:
    raise ValueError(
      f'--needs.sbatch {needs.sbatch!r:.200}: {error}: close it.'
    ) from error
  # What stands last counts: no flag of the user's takes tasks from the array.
  command = ['sbatch', *own]
  if needs.gpus is not None:
    command += [f'--gpus={needs.gpus:g}']
  if needs.cpus is not None:
    command += [f'--cpus-per-task={needs.cpus}']
  command += [*flags, str(script()), *words]
  done = subprocess.run(command, capture_output=True, text=True)
  if done.returncode:
    raise OSError(
      f'sbatch refuses ({" ".join(done.stderr.split()):.300}): see '
      '--needs and --needs.sbatch.'
    )
  return done.stdout


def check(address: str, needs: Needs) -> None:
  """Asks Slurm whether it would take a task.

  Raises ValueError where there is no Slurm, and OSError where it would not.
  """
  del address
  if shutil.which('sbatch') is None:
    raise ValueError(
      '--on slurm finds no sbatch: call it on a machine of the cluster, or '
      'take --on ray or --workers N.'
    )
  _sbatch(['--test-only'], needs, [])


def underway(root: Path) -> str | None:
  """Returns the job that is at the tasks of a root, None where none is."""
  if not (root / JOB).exists():
    return None
  job = files.read_json(root / JOB, {'job': str})['job']
  asked = ['squeue', '--noheader', '--format=%i', f'--jobs={job}']
  # It fails for a job that Slurm has forgotten.
  done = subprocess.run(asked, capture_output=True, text=True)
  return job if done.returncode == 0 and done.stdout.strip() else None


def elements() -> int:
  """Returns how many elements an array may have."""
  try:
    shown = subprocess.run(
      ['scontrol', 'show', 'config'], capture_output=True, text=True
    ).stdout
  except OSError:
    return ELEMENTS
  found = re.search(r'^MaxArraySize\s*=\s*(\d+)', shown, re.MULTILINE)
  # The largest index is one less.
  return max(int(found[1]), 1) if found else ELEMENTS


def script() -> Path:
  """Finds the script of the array, which a wheel has inside."""
  here = Path(__file__)
  outside = here.parents[2] / 'launch' / SCRIPT
  return outside if outside.exists() else here.with_name(SCRIPT)
