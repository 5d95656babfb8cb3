"""A Slurm cluster of this machine alone, in a folder, until it is closed.

It needs Debian's packages slurm-wlm and munge, and root, as slurmd does.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

DAEMONS = ('munged', 'slurmctld', 'slurmd')
CONF = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A job that queues again waits until its old credential has expired.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
SelectType=select/cons_tres
# Jobs share the node, of whose memory nothing is said.
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
# Between SIGTERM and SIGKILL of a job that is cancelled.
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs=2
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def lacking() -> str | None:
  """Returns the reason why no cluster can start here; None where one can."""
  missing = [
    name for name in DAEMONS if shutil.which(name, path=_path()) is None
  ]
  if missing:
    return f'{", ".join(missing)} not found: apt-get install slurm-wlm munge'
  return 'slurmd needs root' if os.geteuid() else None


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
  """Yields the environment in which sbatch and others find it."""
  host = socket.gethostname().partition('.')[0]
  for name in ('state', 'spool'):
    (folder / name).mkdir()
  key = folder / 'munge.key'
  key.write_bytes(os.urandom(1024))
  key.chmod(0o600)
  conf = folder / 'slurm.conf'
  conf.write_text(CONF.format(host=host, folder=folder, ports=_free_ports(2)))
  environment = {**os.environ, 'PATH': _path(), 'SLURM_CONF': str(conf)}
  with contextlib.ExitStack() as stack:
    for command in (
      [
        'munged', '--foreground', '--force', f'--key-file={key}',
        f'--socket={folder}/munge.socket', f'--pid-file={folder}/munged.pid',
        f'--log-file={folder}/munged.log', f'--seed-file={folder}/munged.seed',
      ],
      ['slurmctld', '-D'],
      ['slurmd', '-D'],
    ):  # fmt: skip
      stack.callback(
        _end,
        subprocess.Popen(
          command,
          env=environment,
          stdout=subprocess.DEVNULL,
          stderr=subprocess.DEVNULL,
        ),
      )
    wait(
      lambda: 'idle' in output(['sinfo', '--noheader'], environment),
      seconds=30,
    )
    # Before the daemons end, which would leave jobs behind.
    stack.callback(_cancel, environment)
    yield environment


def output(command: list[str], environment: dict[str, str], **options) -> str:
  """Returns the stdout of a command, which may fail until the cluster is up."""
  return subprocess.run(
    command, env=environment, capture_output=True, text=True, **options
  ).stdout


def state(job: str, environment: dict[str, str]) -> str:
  """Returns the state of a job: RUNNING, PENDING, COMPLETED or another."""
  shown = output(['scontrol', '--oneliner', 'show', 'job', job], environment)
  return shown.partition('JobState=')[2].partition(' ')[0]


def wait(until, seconds: float) -> None:
  """Raises TimeoutError where it does not come true."""
  end = time.monotonic() + seconds
  while not until():
    if time.monotonic() > end:
      raise TimeoutError(f'not within {seconds:.0f} s')
    time.sleep(0.2)


def _cancel(environment: dict[str, str]) -> None:
  jobs = output(['squeue', '--noheader', '--format', '%i'], environment)
  if jobs:
    output(['scancel', *jobs.split()], environment)
    wait(lambda: not output(['squeue', '--noheader'], environment), seconds=30)


def _end(process: subprocess.Popen) -> None:
  process.send_signal(signal.SIGTERM)
  try:
    process.wait(10)
  except subprocess.TimeoutExpired:
    process.kill()
    process.wait()


def _path() -> str:
  """Daemons are where only root's shells look."""
  return f'{os.environ["PATH"]}:/usr/sbin'


def _free_ports(count: int) -> list[int]:
  with contextlib.ExitStack() as stack:
    taken = [stack.enter_context(socket.socket()) for _ in range(count)]
    for one in taken:
      one.bind(('127.0.0.1', 0))
    return [one.getsockname()[1] for one in taken]
