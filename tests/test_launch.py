"""The launchers, read by the tools that check them, and by Slurm."""

import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import jaxnas
from jaxnas.config import Config, flatten
from jaxnas.many import slurm as many_slurm
from jaxnas.many import tasks
from jaxnas.many.flags import Needs
from support import slurm, stub_task

LAUNCH = Path(jaxnas.__file__).parents[1] / 'launch'
SHELL = ('slurm.sbatch', 'tpu_vm.sh', 'xpk.sh')
# It is submitted by commands, which say what is trained.
ARRAY = 'slurm_array.sbatch'
MEASURES = 'gpu_day.sh'
YAML = ('gke_jobset.yaml', 'skypilot.yaml')


def tool(name: str) -> str:
  """Installed beside this Python, or anywhere."""
  found = shutil.which(name, path=str(Path(sys.executable).parent))
  return found or shutil.which(name) or pytest.skip(f'{name} is not installed')


def check(*command: str, **options) -> None:
  done = subprocess.run(command, capture_output=True, text=True, **options)
  assert done.returncode == 0, done.stdout + done.stderr


def test_every_file_is_checked():
  assert {file.name for file in LAUNCH.iterdir()} == {
    'README.md',
    MEASURES,
    *SHELL,
    *YAML,
    ARRAY,
  }


@pytest.mark.parametrize('name', (*SHELL, ARRAY, MEASURES))
def test_shell_is_sound(name):
  check('bash', '-n', str(LAUNCH / name))
  check(tool('shellcheck'), '--shell', 'bash', str(LAUNCH / name))


@pytest.mark.parametrize('name', (*SHELL[1:], MEASURES))
def test_scripts_say_how_they_are_used(name):
  done = subprocess.run([LAUNCH / name], capture_output=True, text=True)
  assert done.returncode and 'usage: ' in done.stderr


def planned(folder: Path, **variables: str) -> list[tuple[str, str]]:
  """Names and commands of a first day on a GPU, of which none is run."""
  done = subprocess.run(
    [LAUNCH / MEASURES],
    env={'PATH': os.environ['PATH'], 'OUT': str(folder), 'DRY': '1'}
    | variables,
    cwd=LAUNCH.parent,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0 and not done.stderr, done.stderr
  return re.findall(r'^(\w+) \(\d+ s\): (.*)$', done.stdout, re.MULTILINE)


def test_a_first_day_on_a_gpu_runs_commands_that_there_are(tmp_path):
  steps = planned(tmp_path)
  names = [name for name, _ in steps]
  assert len(set(names)) == len(names) and names[0] == 'machine'
  for what in ('macro', 'nb201', 'pooling'):
    assert {f'{what}_waiting', f'{what}_graphs'} <= {*names}
  assert 'JAXNAS_KERNELS=1' in dict(steps)['macro_kernels']
  modules = re.findall(r'-m (jaxnas[.\w]*)', ' '.join(dict(steps).values()))
  assert modules and all(map(importlib.util.find_spec, modules))
  only = [name for name, _ in planned(tmp_path, ONLY='train')]
  assert {'train'} <= {*only} <= {'train', 'noise_train', 'versions'}
  assert (tmp_path / 'steps.txt').read_text() == ''


def test_what_a_first_day_measures_a_step_by_is_a_program():
  text = (LAUNCH / MEASURES).read_text()
  (probe,) = re.findall(r"<<'PYTHON'\n(.*?)\nPYTHON\n", text, re.DOTALL)
  tree = ast.parse(probe)
  for node in ast.walk(tree):
    if isinstance(node, ast.ImportFrom):
      module = importlib.import_module(str(node.module))
      for each in node.names:
        assert hasattr(module, each.name) or importlib.util.find_spec(
          f'{node.module}.{each.name}'
        )


@pytest.mark.parametrize('name', YAML)
def test_yaml_is_sound(name):
  check(tool('yamllint'), '--strict', str(LAUNCH / name))


def test_what_skypilot_runs_is_sound():
  run = yaml.safe_load((LAUNCH / 'skypilot.yaml').read_text())['run']
  check('bash', '-n', '-c', run)
  check(tool('shellcheck'), '--shell', 'bash', '-', input=run)


def test_the_job_in_the_jobset_is_one_of_kubernetes(tmp_path):
  validate = tool('kubernetes-validate')
  jobset = yaml.safe_load((LAUNCH / 'gke_jobset.yaml').read_text())
  (replicated,) = jobset['spec']['replicatedJobs']
  job = {
    'apiVersion': 'batch/v1',
    'kind': 'Job',
    'metadata': {'name': replicated['name']},
    **replicated['template'],
  }
  file = tmp_path / 'job.yaml'
  file.write_text(yaml.safe_dump(job))
  check(validate, '--strict', str(file))
  spec = job['spec']
  # Pods of a slice come and go together, and have time to save.
  assert spec['completionMode'] == 'Indexed' and spec['backoffLimit'] == 0
  assert spec['completions'] == spec['parallelism'] == 4
  pod = spec['template']['spec']
  assert pod['restartPolicy'] == 'Never'
  assert pod['terminationGracePeriodSeconds'] == 120
  (container,) = pod['containers']
  assert 'exec python' in container['command'][2]


@pytest.mark.parametrize('name', (*SHELL, *YAML))
def test_they_place_runs_and_do_not_say_what_is_trained(name):
  """The place of the images is all they may say of the experiment."""
  text = (LAUNCH / name).read_text()
  fields = {*flatten(Config())} - {'data.dir'}
  assert not fields & set(re.findall(r'--([\w.]+)', text))
  assert '--resume' in text and 'jaxnas.train' in text


# Slurm itself.

STUB = """\
#!/bin/bash
# Stands where Python would: waits for SIGTERM, or has been here before.
echo "task $SLURM_PROCID of $SLURM_NTASKS: $*" >> "$RECORD"
[ "${SLURM_RESTART_COUNT:-0}" -gt 0 ] && exit 0
trap 'exit 143' TERM
for _ in $(seq 600); do sleep 0.1; done
exit 1
"""


@pytest.fixture(scope='module')
def cluster(tmp_path_factory):
  if reason := slurm.lacking():
    pytest.skip(reason)
  with slurm.cluster(tmp_path_factory.mktemp('slurm')) as environment:
    yield environment


def submit(environment, folder, *flags) -> str:
  """The job's number."""
  said = slurm.output(
    [
      'sbatch',
      '--parsable',
      '--ntasks=2',
      LAUNCH / 'slurm.sbatch',
      *flags,
    ],
    environment,
    cwd=folder,
  )
  return said.strip()


@pytest.fixture
def stub(cluster, tmp_path):
  """An environment whose python is the stub, and what that has recorded."""
  python = tmp_path / 'bin' / 'python'
  python.parent.mkdir()
  python.write_text(STUB)
  python.chmod(0o755)
  record = tmp_path / 'record'
  record.touch()
  path = f'{python.parent}:{cluster["PATH"]}'
  return {**cluster, 'PATH': path, 'RECORD': str(record)}, record


def started(record, count):
  slurm.wait(lambda: len(record.read_text().splitlines()) == count, 30)


@pytest.mark.long
def test_a_job_that_is_told_to_stop_queues_again(stub, tmp_path):
  environment, record = stub
  job = submit(environment, tmp_path, '--config', 'x y.py')
  started(record, 2)
  # As --signal=TERM@120 does before the time is up.
  slurm.output(['scancel', '--signal=TERM', job], environment)
  slurm.wait(lambda: slurm.state(job, environment) == 'COMPLETED', 60)
  flags = f'--config x y.py --workdir runs/jaxnas-{job} --resume'
  assert sorted(record.read_text().splitlines()) == sorted(
    2 * [f'task {n} of 2: -m jaxnas.train {flags}' for n in (0, 1)]
  )


@pytest.mark.long
def test_a_job_that_is_cancelled_stays_so(stub, tmp_path):
  environment, record = stub
  job = submit(environment, tmp_path)
  started(record, 2)
  slurm.output(['scancel', job], environment)
  slurm.wait(lambda: slurm.state(job, environment) == 'CANCELLED', 30)
  assert not slurm.output(['squeue', '--noheader'], environment)


# Long enough to be stopped in the middle, by what it has written.
CONFIG = """
from jaxnas.config import *
def get_config():
  return Config(
    warmup_epochs=0,
    epochs=30,
    data=Data(batch_size=50),
    ranking=Ranking(images=100, batch_size=100, archs=4),
    checkpoint=Checkpoint(every_epochs=30),
    logging=Logging(every_steps=10),
  )
"""


@pytest.mark.long
def test_two_tasks_train_together_and_go_on_where_they_were_stopped(
  cluster, tmp_path
):
  (tmp_path / 'long.py').write_text(CONFIG)
  here = Path(sys.executable).parent
  environment = {
    **cluster,
    'JAX_PLATFORMS': 'cpu',
    'JAXNAS_WORKDIR': 'run',
    'PATH': f'{here}:{cluster["PATH"]}',
  }
  # A machine that is busy with other things must not pass for dead.
  patient = ['--distributed.heartbeat_s', '600']
  flags = ['--config', 'long.py', '--mesh.data', '2', *patient]
  job = submit(environment, tmp_path, *flags)
  metrics = tmp_path / 'run' / 'metrics.jsonl'
  slurm.wait(lambda: metrics.exists() and metrics.read_text(), 240)
  slurm.output(['scancel', '--signal=TERM', job], environment)
  slurm.wait(lambda: slurm.state(job, environment) == 'COMPLETED', 600)
  said = (tmp_path / f'jaxnas-{job}.out').read_text()
  assert said.count('stopped, nothing lost') == 2
  # Both tasks saved the same step.
  (step,) = {int(at) for at in re.findall(r'goes on at step (\d+)', said)}
  assert 0 < step < 300
  rows = [json.loads(line) for line in metrics.read_text().splitlines()]
  assert [row['step'] for row in rows] == [*range(10, 301, 10)]
  assert (tmp_path / 'run' / 'correlation.json').exists()


# An array of tasks.


@pytest.fixture
def array(cluster, tmp_path, monkeypatch):
  """Submits stub tasks as an array, in an environment that finds Slurm."""
  for name in ('PATH', 'SLURM_CONF'):
    monkeypatch.setenv(name, cluster[name])
  root = tmp_path / 'root'

  def submit(*names):
    root.mkdir(exist_ok=True)
    listed = [
      tasks.Task(name, folder, folder / 'done')
      for name in names
      for folder in [stub_task.folder_of(root, name)]
    ]
    argv = ['--workdir', str(root)]
    work = tasks.begin(root, 'support.stub_task', argv, listed)
    many_slurm.run(work, 2, Needs())
    return listed

  return submit, root


def ended(environment):
  return not slurm.output(['squeue', '--noheader'], environment)


@pytest.mark.long
def test_an_array_does_each_task_once(array, cluster, capsys, monkeypatch):
  submit, root = array
  # Elements take several tasks each.
  monkeypatch.setattr(many_slurm, 'elements', lambda: 3)
  names = ['ok-1', 'ok-2', 'ok-3', 'killed', 'fails', 'ok-4', 'ok-5']
  listed = submit(*names)
  said = capsys.readouterr().out
  assert '7 tasks in an array of 3, 2 at once' in said and '--gather' in said
  with pytest.raises(OSError, match=r'is at the tasks of .*scancel'):
    submit(*names)
  slurm.wait(lambda: ended(cluster), 120)
  states = {task.name: tasks.state(task) for task in listed}
  assert states.pop('fails')[1].startswith('error: the loss is not finite')
  assert {state for state, _ in states.values()} == {'finished'}
  counts = [
    (stub_task.folder_of(root, name) / 'starts').stat().st_size
    for name in names
  ]
  assert counts == [1, 1, 1, 2, 1, 1, 1]


@pytest.mark.long
def test_an_element_that_is_told_to_stop_queues_again(array, cluster):
  submit, root = array
  (task,) = submit('long-1')
  slurm.wait((task.folder / 'trains').exists, 60)
  job = json.loads((root / 'slurm.json').read_text())['job']
  slurm.output(['scancel', '--signal=TERM', job], cluster)
  slurm.wait(lambda: task.finished and ended(cluster), 120)
  assert (task.folder / 'saved').exists()
  assert (task.folder / 'starts').stat().st_size == 2


@pytest.mark.long
def test_sbatch_that_refuses_is_one_line(array, tmp_path):
  submit, root = array
  submit('ok-1')
  work = tasks.begin(root, 'support.stub_task', [], [
    tasks.Task('ok-2', root / 'ok-2', None)
  ])  # fmt: skip
  (root / 'slurm.json').unlink()
  with pytest.raises(OSError, match=r'sbatch refuses .*--needs.sbatch'):
    many_slurm.run(work, 2, Needs(sbatch='--partition=none'))
