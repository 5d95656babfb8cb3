"""Flags and config files that cannot be: one line, exit code 2, no file."""

import dataclasses
import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest

from jaxnas import config
from jaxnas.config import Config, fields, validation
from jaxnas.runtime import loading
from support.refusals import CONFIG, Refusal, contents, refused, row

TRAIN = '--config {config} --workdir {tmp}/run'
HUGE = '9' * 400

FLAGS = [
  # Words that are no flags, or have no value.
  row('train', f'{TRAIN} --optimizer.peek_lr 1', "'--optimizer.peek_lr'",
      'Did you mean --optimizer.peak_lr?'),
  row('train', f'{TRAIN} --peak_lr=1', "'--peak_lr' is no flag",
      'Did you mean --optimizer.peak_lr?'),
  row('train', f'{TRAIN} --epoch 3', "'--epoch' is no", 'mean --epochs?'),
  row('train', f'{TRAIN} --qqqq 3', "'--qqqq' is no flag", '--help lists all'),
  row('train', f'{TRAIN} epochs', "'epochs' is no flag", '--help lists all'),
  row('train', f'{TRAIN} --debias.baseline yes', "'yes' is no flag",
      '--help lists all'),
  row('train', '--config', '--config', '--help says which'),
  row('train', f'{TRAIN} --epochs', '--epochs', 'Expected 1 values'),
  # Values that are no numbers.
  row('train', f'{TRAIN} --epochs many', "'many'", '--epochs INT'),
  row('train', f'{TRAIN} --epochs 1.5', "'1.5'", '--epochs INT'),
  row('train', f'{TRAIN} --epochs 1e3', "'1e3'", '--epochs INT'),
  row('train', f'{TRAIN} --seed ²', "'²'", '--seed INT'),
  row('train', f'{TRAIN} --seed 0x10', "'0x10'", '--seed INT'),
  row('train', f'{TRAIN} --seed True', "'True'", '--seed INT'),
  row('train', f'{TRAIN} --optimizer.peak_lr fast', "'fast'",
      '--optimizer.peak_lr FLOAT'),
  row('train', f'{TRAIN} --epochs {"9" * 5000}', '--epochs', 'INT'),
  # Values that are none of the choices.
  row('train', f'{TRAIN} --ranking.split train', "'train'", 'validation'),
  row('train', f'{TRAIN} --precision float16', "'float16'", 'bfloat16'),
  row('train', f'{TRAIN} --sampler.variant bth', "'bth'", 'hierarchical'),
  row('train', f'{TRAIN} --density.measure grad', "'grad'", 'gradient'),
  row('train', f'{TRAIN} --optimizer.schedule steps', "'steps'", 'epoch'),
  row('train', f'{TRAIN} --space poolin', "'poolin'", 'Did you mean pooling?'),
  row('train', f'{TRAIN} --space ../digits', "'../digits'", 'mean digits?'),
  row('train', f'{TRAIN} --space Mobilenet', "'Mobilenet'", 'mean mobilenet?'),
  row('train', f'{TRAIN} --sampler.name unifrom', "'unifrom'", 'mean uniform?'),
  row('train', f'{TRAIN} --data.name cifar', "'cifar'", 'Did you mean cifar10'),
  row('train', f'{TRAIN} --debias.temperature 1 --density.tensors (', "'('",
      'is no regular expression: missing )'),
  row('train', f'{TRAIN} --debias.temperature 1 --density.layers nix '
      '--density.measure representational', "'nix'", 'digits has head,'),
  # Out of range; every field is tried below.
  row('train', f'{TRAIN} --epochs {HUGE}', 'epochs is an integer of 1329 bits',
      'at most 2147483647'),
  row('train', f'{TRAIN} --epochs -1', 'epochs is -1', 'at least 0'),
  row('train', f'{TRAIN} --epochs 2000000000', '4000000002',
      'lower the epochs'),
  row('train', f'{TRAIN} --debias.temperature nan', 'temperature is nan',
      'above 0'),
  row('train', f'{TRAIN} --debias.temperature -1', 'temperature is -1.0',
      'above 0'),
  row('train', f'{TRAIN} --debias.temperature inf', 'temperature is inf',
      'above 0, and at most'),
  row('train', f'{TRAIN} --optimizer.clip_norm 1e999', 'clip_norm is inf',
      'above 0, and at most'),
  row('train', f'{TRAIN} --optimizer.clip_norm 0', 'clip_norm is 0.0',
      'above 0'),
  row('train', f'{TRAIN} --optimizer.peak_lr 1e39', 'peak_lr is 1e+39',
      'at most 3.4e+38'),
  row('train', f'{TRAIN} --optimizer.weight_decay nan', 'weight_decay is nan',
      'at least 0'),
  *(
    row('train', f'{TRAIN} --{name} 1e-39', f'{name} is 1e-39, which is 0 in '
        'float32', 'at least 1.2e-38')
    for name in ('debias.temperature', 'debias.effective_fraction',
                 'optimizer.clip_norm', 'optimizer.peak_lr')
  ),
  row('train', f'{TRAIN} --optimizer.momentum 1.01', 'momentum is 1.01',
      'in [0, 1]'),
  row('train', f'{TRAIN} --data.batch_size 0', 'batch_size is 0', 'at least 1'),
  row('train', f'{TRAIN} --data.holdout 0 --data.train_fraction None',
      'holdout is 0', 'at least 1'),
  row('train', f'{TRAIN} --sampler.paths 1000000000', 'paths is 1000000000',
      'in [1, 65536]'),
  row('train', f'{TRAIN} --ranking.batch_size 1', 'batch_size is 1',
      'at least 2'),
  # At odds with each other, or with what there is.
  row('train', f'{TRAIN} --data.train_fraction None', 'data.train_fraction',
      'set one of'),
  row('train', f'{TRAIN} --data.train_fraction 0.5 --data.holdout 5',
      'data.train_fraction and data.holdout', 'set one of them to None'),
  row('train', f'{TRAIN} --data.holdout 90', 'class', 'needs one more'),
  row('train', f'{TRAIN} --data.size 32', 'data.size is of data.name imagenet',
      'data.name digits does not use it'),
  row('train', f'{TRAIN} --optimizer.floor_lr 9', 'floor_lr 9.0',
      'above optimizer.peak_lr'),
  row('train', f'{TRAIN} --ranking.sample 9', 'ranking.sample',
      'set that, or leave it'),
  row('train', f'{TRAIN} --ranking.bn running', 'bn running',
      'set supernet.bn_running'),
  row('train', f'{TRAIN} --density.unbiased --density.batch_size 3 '
      '--density.measure representational', 'not 3', 'batch_size of 4'),
  row('train', f'{TRAIN} --sampler.name tree --sampler.variant iterative '
      '--warmup_epochs 0', 'variant iterative', 'set warmup_epochs'),
  row('train', f'{TRAIN} --sampler.reward_every 2', 'reward_every',
      'uniform reads none'),
  row('train', f'{TRAIN} --debias.candidates 3', 'candidates',
      'spaces too large to list'),
  row('train', f'{TRAIN} --supernet.activation relu6 --space nas_bench_201',
      'activation is of MB blocks', 'nas_bench_201 has none'),
  row('train', f'{TRAIN} --data.batch_size 501', 'batch_size 501',
      'the 500 training images'),
  row('train', f'{TRAIN} --density.batch_size 501 --debias.temperature 1',
      'is 501', 'there are 500 validation images'),
  row('train', f'{TRAIN} --ranking.archs 82', 'archs is 82', 'there are 81'),
  # Files and folders.
  row('train', '--config quikstart.py', "'quikstart.py'",
      'Did you mean quickstart.py?'),
  row('train', '--config {tmp}', "{tmp}' is neither a file", 'quickstart.py'),
  row('train', '--config {tmp}/' + 'x' * 300, 'xxx', 'File name too long'),
  row('train', '--workdir {tmp}/no --resume', '{tmp}/no holds no run',
      '--config FILE'),
  row('train', '', 'no experiment', '--config quickstart.py'),
  row('train', '--config {config} --workdir {config}', 'config.py is no folder',
      'choose another --workdir'),
  row('train', '--config {config} --workdir {config}/run',
      'config.py is no folder', 'choose another --workdir'),
  row('train', '--config {config} --workdir /proc/none/run', '/proc/none/run',
      'choose another --workdir'),
  row('train', f'{TRAIN} --table {{tmp}}/no.json', '{tmp}/no.json',
      'does not exist'),
  row('train', f'{TRAIN} --table {{tmp}}', 'table {tmp}',
      'is a folder: give a file'),
  row('train', f'{TRAIN} --table_column a', '--table_column a',
      'give --table FILE'),
  row('compare', f'{TRAIN} --samplers uniform --table_column a',
      '--table_column a', 'give --table FILE'),
  row('train', f'{TRAIN} --warmup_from {{tmp}}', '{tmp} holds no run',
      '--config FILE'),
  row('train', f'{TRAIN} --density.file {{tmp}}/no.npz --debias.temperature 1',
      '{tmp}/no.npz', 'does not exist'),
  row('train', f'{TRAIN} --data.name cifar10', 'data.name cifar10',
      'python -m jaxnas.prepare cifar10 --dir D'),
  row('train', f'{TRAIN} --data.name imagenet', 'data.name imagenet',
      'train/CLASS/FILE'),
  row('train', f'{TRAIN} --logging.wandb', 'logging.wandb',
      "pip install 'jaxnas[wandb]'"),
  # What the images, the space or the memory do not allow.
  *(
    row(command, f'{TRAIN} {more} --data.crop_padding 8', 'crop_padding is 8',
        'must be below 8')
    for command, more in (
      ('train', ''), ('retrain', '--all'), ('compare', '--samplers uniform')
    )
  ),
  row('train', f'{TRAIN} --debias.effective_fraction 0.012', '0.012 of 81',
      'at least 0.0123'),
  row('train', f'{TRAIN} --density.prototypes 9', 'digits is listed',
      'set that'),
  # Of the other commands that start from a config.
  row('retrain', TRAIN, 'give one of', '--arch ARCH, --all'),
  row('retrain', f'{TRAIN} --arch 0120 --all', 'give one of', '--all'),
  row('retrain', f'{TRAIN} --arch best', '--arch best', 'give --run RUN'),
  row('retrain', f'{TRAIN} --arch=', "''", 'digits has 4 positions'),
  row('retrain', f'{TRAIN} --arch 012', "'012'", 'each 0, 1 or 2'),
  row('retrain', f'{TRAIN} --arch 01²0', "'01²0'", 'each 0, 1 or 2'),
  row('retrain', f'{TRAIN} --arch 0123', 'op 3 at position 3',
      '0 to 2 there'),
  row('retrain', f'{TRAIN} --arch {HUGE}', '400 digits', 'has 4 positions'),
  row('retrain', f'{TRAIN} --space nas_bench_201 --arch |none~0|',
      "'|none~0|'", 'such as |none~0|+|'),
  row('retrain', f'{TRAIN} --space nas_bench_201 --arch '
      '|conv~0|+|none~0|none~1|+|none~0|none~1|none~2|',
      "'conv'", 'allows none, skip_connect'),
  row('retrain', f'{TRAIN} --space nas_bench_201 --arch '
      '|none~1|+|none~0|none~1|+|none~0|none~1|none~2|',
      "'1' at position 0", 'it must be 0'),
  row('retrain', f'{TRAIN} --space mobilenet --arch ID,MB3_K3',
      "'ID,MB3_K3' has 2", '21 positions'),
  row('retrain', f'{TRAIN} --space mobilenet --arch MB9_K9' + ',ID' * 20,
      "'MB9_K9' at position 0", 'allows ID, MB3_K3'),
  row('retrain', f'{TRAIN} --space mobilenet_strict --arch ID' + ',ID' * 20,
      "'ID' at position 0", 'allows MB3_K3'),
  row('retrain', f'{TRAIN} --space mobilenet --all', 'mobilenet has 2.5e+23',
      'too many to list'),
  row('retrain', f'{TRAIN} --all --retrain.seeds 0', 'seeds is 0',
      'at least 1'),
  row('retrain', f'{TRAIN} --all --retrain.ema_decay nan', 'ema_decay is nan',
      'in [0, 1]'),
  row('retrain', f'{TRAIN} --al', "'--al' is no flag", 'mean --all?'),
  row('retrain', '--run {tmp} --arch best', '{tmp} holds no run',
      '--config FILE'),
  row('retrain', f'{TRAIN} --all --retrain.epochs 2147483647', '4294967294',
      'lower the epochs'),
  row('compare', TRAIN, 'say what to compare', '--samplers uniform,'),
  row('compare', f'{TRAIN} --samplers=', "''", 'is none of uniform'),
  row('compare', f'{TRAIN} --samplers ,', "'' twice", 'name it once'),
  row('compare', f'{TRAIN} --samplers unifrom', "'unifrom'", 'mean uniform?'),
  row('compare', f'{TRAIN} --samplers ../uniform', "'../uniform'",
      'is none of'),
  row('compare', f'{TRAIN} --samplers tree:../..', "'../..'", 'prioritized'),
  row('compare', f'{TRAIN} --samplers tree,tree', "'tree' twice",
      'name it once'),
  row('compare', f'{TRAIN} --samplers tree+best', "'+best'", 'only +debias'),
  row('compare', f'{TRAIN} --samplers tree+debias', 'tree+debias needs',
      'debias.effective_fraction'),
  row('compare', f'{TRAIN} --samplers tree --seeds 0', '--seeds is 0',
      'at least 1'),
  row('compare', f'{TRAIN} --samplers tree --seeds {HUGE}', '--seeds is an',
      'at most'),
  row('compare', f'{TRAIN} --samplers tree --budget path', "'path'", 'steps'),
  row('compare', f'{TRAIN} --sampler tree', "'--sampler' is no flag",
      'Did you mean --samplers?'),
  # Without a run; more of them in test_bad_files.
  *(
    row(command, words, value, remedy)
    for command in ('measure', 'rank', 'search', 'export')
    for words, value, remedy in (
      ('', 'no run', 'give --run DIR'),
      ('--run', '--run', '--help says which'),
      ('--run {tmp}', '{tmp} holds no run', '--config FILE'),
      ('--run {config}', 'config.py holds no run', '--config FILE'),
    )
  ),
  row('search', '--workdir {tmp} --resume', '{tmp} holds no search',
      'start one without --resume'),
  row('prepare', 'cifar --dir {tmp}/D', "'cifar'", 'cifar10'),
  row('prepare', 'cifar10', '--dir PATH', 'The folder to write to'),
  row('prepare', '--dir {tmp}/D', 'The data set or benchmark to', 'cifar10'),
  row('prepare', 'cifar10 --dir {config}', 'config.py is no folder',
      'choose another --dir'),
  row('prepare', 'cifar10 --dir {config}/D', 'config.py is no folder',
      'choose another --dir'),
  row('prepare', 'cifar10 --dir /proc/none/D',
      '/proc/none/D cannot be made: /proc cannot', 'choose another --dir'),
  row('prepare', 'cifar10 --dir {tmp}/D --url ftp://host/c.gz',
      "'ftp://host/c.gz'", 'https://'),
  row('prepare', 'cifar10 --dir {tmp}/D --url ../c.gz', "'../c.gz'", 'file://'),
  row('prepare', 'cifar10 --dir {tmp}/D --sha256 ' + '²' * 64, '²²²',
      '64 hexadecimal digits'),
  row('prepare', 'cifar10 --dir {tmp}/D --form x', "'--form' is no flag",
      'Did you mean --from?'),
  row('prepare', 'cifar10 --dir {tmp}/D --from {tmp}', '--from',
      'leave it out'),
  row('prepare', 'nas_bench_201 --dir {tmp}/D', '--from', 'NATS-tss-v1_0'),
  row('prepare', 'nas_bench_201 --dir {tmp}/D --from {tmp}', 'as pickles',
      'add --trust_pickle'),
  row('prepare', 'imagenet16_120 --dir {tmp}/D --from {tmp}/no --trust_pickle',
      '{tmp}/no', 'does not exist'),
  row('reproduce', 'table3 --dry_run --out {tmp}/o --results {config}',
      '{tmp}/config.py is no folder', 'choose another --results'),
  row('reproduce', 'table3 --dry_run --out {tmp}/o --results /dev/zero',
      '/dev/zero is no folder', 'choose another --results'),
  row('reproduce', 'table3 --dry_run --out {tmp}/o --data.dir {config}',
      '--data.dir {tmp}/config.py', 'is no folder: give one'),
  row('reproduce',
      'table3 --dry_run --out {tmp}/o --truth.nas_bench_macro {tmp}',
      '--truth.nas_bench_macro {tmp}', 'is a folder: give a file'),
  row('reproduce',
      'table3 --dry_run --out {tmp}/o --truth.nas_bench_201 {tmp}/no',
      '--truth.nas_bench_201 {tmp}/no', 'does not exist'),
  row('prepare', 'nas_bench_201 --dir {tmp}/D --from /dev/zero --trust_pickle',
      '--from /dev/zero', 'is no regular file: give a file'),
  *(
    row('prepare', f'{name} --dir {{tmp}}/D --from {source} --trust_pickle',
        *says)
    for name, source, *says in (
      ('imagenet16_120', '{tmp}', '{tmp} lacks train_data_batch_1',
       'give the folder with train_data_batch_1 to _10'),
      ('imagenet16_120', '{config}', '{tmp}/config.py is no folder',
       'give the folder with train_data_batch_1 to _10'),
      ('nas_bench_201', '{tmp}', '{tmp} lacks meta.pickle.pbz2',
       'give NATS-tss-v1_0-3ffb9.pickle.pbz2 or the folder'),
      ('nas_bench_201', '{config}', '{tmp}/config.py is no pickle',
       'give NATS-tss-v1_0-3ffb9.pickle.pbz2 or the folder'),
    )
  ),
  row('prepare', 'imagenet16_120 --dir {tmp}/D --url file:///x', '--url',
      'leave it out'),
]  # fmt: skip

needs_torch = pytest.mark.skipif(
  not importlib.util.find_spec('torch'),
  reason='bench asks for PyTorch first',
)
BENCH = [
  row('bench', 'stpe', "'stpe'", 'startup'),
  row('bench', 'step --only qq', "has 'qq'", 'no case of step'),
  row('bench', 'step --tolerence 1', "'--tolerence'", 'mean --tolerance?'),
  row('bench', 'step --tolerance nan', '--tolerance is nan', 'at least 0'),
  row('bench', 'step --tolerance -1', '--tolerance is -1.0', 'at least 0'),
  row('bench', 'step --archs 0', '--archs is 0', 'at least 1'),
  row('bench', 'step --images -5', '--images is -5', 'at least 1'),
  row('bench', 'step --batch_size 0', '--batch_size is 0', 'at least 1'),
  row('bench', 'step --seed -1', '--seed is -1', 'in [0, 4294967295]'),
  row('bench', 'step --data_dir {tmp}/no', '{tmp}/no is no folder', 'CIFAR-10'),
  row('bench', 'step --out {tmp}', '--out {tmp}', 'give a file in it'),
  row('bench', 'step --out {config}/x.json', 'config.py is no folder',
      'choose another --out'),
  row('bench', 'step --check {tmp}/no.json', '{tmp}/no.json', '--out wrote'),
  row('bench', 'step --check {config}', 'config.py is no JSON', 'line 2'),
]  # fmt: skip


@pytest.mark.parametrize('refusal', FLAGS)
def test_flags(refusal, tmp_path, capsys):
  refused(refusal, tmp_path, capsys)


@needs_torch
@pytest.mark.parametrize('refusal', BENCH)
def test_flags_of_bench(refusal, tmp_path, capsys):
  refused(refusal, tmp_path, capsys)


# Fields whose types the tests would check before the command can.
FORCED = """
import copy
from jaxnas.config import *
def forced(**fields):
  # Sections that are left at their defaults are shared by all.
  given = copy.deepcopy(Config())
  for name, value in fields.items():
    section, _, field = name.rpartition('__')
    inner = getattr(given, section) if section else given
    object.__setattr__(inner, field, value)
  return given
"""

CONFIGS = [
  ('', 'AttributeError', 'get_config'),
  ('def get_config(:', 'SyntaxError', 'does not load'),
  ('\0', 'null bytes', 'does not load'),
  ('import nothing_of_that_name', 'ModuleNotFoundError', 'nothing_of_that'),
  ('def get_config(): return 1 / 0', 'ZeroDivisionError', 'division by zero'),
  ('def get_config(): raise SystemExit(0)', 'SystemExit', 'does not load'),
  ('def get_config(): raise ValueError("two\\nlines")', 'two lines',
   'does not load'),
  ('def get_config(x): return x', 'TypeError', "'x'"),
  ('def get_config(): return None', 'returns NoneType', 'jaxnas.config.Config'),
  ('def get_config(): return Config', 'returns type', 'jaxnas.config.Config'),
  ('def get_config(): return Config(epoch=3)', "'epoch'", 'TypeError'),
  *(
    (f'def get_config(): return forced({fields})', value, remedy)
    for fields, value, remedy in (
      ('epochs="3"', "epochs is '3'", 'must be an integer'),
      ('epochs=3.0', 'epochs is 3.0', 'must be an integer'),
      ('epochs=True', 'epochs is True', 'must be an integer'),
      ('epochs=None', 'epochs is None', 'must be an integer'),
      ('space=3', 'space is 3', 'must be text'),
      ('precision="float16"', "precision is 'float16'", 'float32, bfloat16'),
      ('data=None', 'data is None', 'must be a Data(...)'),
      ('data={"name": "digits"}', "data is {{'name'", 'must be a Data(...)'),
      ('data=Data', "data is <class", 'must be a Data(...)'),
      ('data__dir=3', 'data.dir is 3', 'must be text or None'),
      ('data__flip=1', 'data.flip is 1', 'must be true or false'),
      ('optimizer__peak_lr="0.1"', "is '0.1'", 'must be a number'),
      ('optimizer__peak_lr=True', 'is True', 'must be a number'),
      ('debias__temperature=[1]', 'is [1]', 'a number or None'),
      ('ranking__split="train"', "is 'train'", 'validation, test'),
      ('ranking__split=[]', 'split is []', 'validation, test'),
      ('epochs=-1', 'epochs is -1', 'at least 0'),
      ('epochs=10**5000', 'epochs is an integer of 16610', 'at most'),
      ('debias__temperature=float("nan")', 'is nan', 'above 0'),
      ('debias__temperature=1., debias__effective_fraction=.5',
       'exclude each other', 'set one of them to None'),
    )
  ),
]  # fmt: skip


@pytest.mark.parametrize(
  ('text', 'value', 'remedy'), CONFIGS, ids=[c[0][-50:] for c in CONFIGS]
)
def test_config_files(text, value, remedy, tmp_path, capsys):
  (tmp_path / 'mine.py').write_text(f'{FORCED}{text}\n')
  words = '--config {tmp}/mine.py --workdir {tmp}/run'
  says = (value, remedy)
  refused(Refusal('train', words, says), tmp_path, capsys)


@pytest.mark.parametrize(
  ('name', 'content', 'value', 'remedy'),
  [
    ('mine.json', b'[]', 'mine.json: it is []', 'the fields of Config'),
    ('mine.toml', b'', 'mine.toml is not Python', 'must end in .py'),
    ('mine', b'', 'mine is not Python', 'must end in .py'),
    ('mine.py', b'\xff\xfe\x00garbage', 'mine.py does not load', 'null bytes'),
  ],
)
def test_config_files_that_are_none(
  name, content, value, remedy, tmp_path, capsys
):
  (tmp_path / name).write_bytes(content)
  words = f'--config {{tmp}}/{name} --workdir {{tmp}}/run'
  refused(Refusal('train', words, (value, remedy)), tmp_path, capsys)


NUMBERS = [
  name
  for name, value in config.flatten(Config()).items()
  if isinstance(value, int | float) and not isinstance(value, bool)
]


RANGES = {
  f'{prefix}{name}': interval
  for prefix, section in (
    ('', Config),
    *((f'{name}.', kind) for name, kind in fields.sections(Config)),
  )
  for name, interval in fields.ranges(section)
}
CLOSED = [name for name in sorted(RANGES) if RANGES[name].gt is None]
POSITIVE = [name for name in sorted(RANGES) if RANGES[name].gt == 0]


def test_every_number_has_a_range():
  assert {*NUMBERS} <= {*RANGES} == {*CLOSED, *POSITIVE}


def given(name, value):
  """A config with one field set."""
  section, _, field = name.rpartition('.')
  if not section:
    return dataclasses.replace(Config(), **{field: value})
  inner = dataclasses.replace(getattr(Config(), section), **{field: value})
  return dataclasses.replace(Config(), **{section: inner})


@pytest.mark.parametrize('name', CLOSED)
def test_ends_of_every_range(name):
  low, high = RANGES[name].ge, RANGES[name].le
  wrong = [low - 1, high + 1, 10**400, -(10**400)]
  if isinstance(config.flatten(Config())[name], float) or high == 1:
    wrong = [low - 1.0, high * 10.0, np.nan, np.inf, -np.inf]
  for value in wrong:
    with pytest.raises(ValueError, match=rf'^{name} is .*; it must be ') as no:
      validation.validate(given(name, value))
    assert '\n' not in str(no.value)


@pytest.mark.parametrize('name', POSITIVE)
def test_what_must_be_above_0(name):
  for value in (0.0, -1.0, np.nan, np.inf, -np.inf, 1e39):
    with pytest.raises(ValueError, match=f'^{name} is .*; it must be '):
      validation.validate(given(name, value))


FLOATS = [
  name
  for name, interval in RANGES.items()
  if interval.le == fields.LARGEST or interval.le == 1
]


@pytest.mark.parametrize('name', FLOATS)
def test_what_float32_rounds_to_0_is_refused(name):
  for value in (1e-39, 1e-42, 5e-324):
    with pytest.raises(ValueError, match=f'^{name} is {value}, which is 0 in'):
      validation.validate(given(name, value))


CHILDREN = [
  row('train', '--config {config} --epochs -1', 'epochs is -1', 'at least 0'),
  row('measure', '--run {tmp}', '{tmp} holds no run', '--config FILE'),
  row('rank', '--run {tmp}', '{tmp} holds no run', '--config FILE'),
  row('search', '--run {tmp} --resume', '{tmp} holds no run', '--config FILE'),
  row('retrain', '--config {config} --retrain.epochs 0', 'epochs is 0',
      'at least 1'),
  row('compare', '--config {tmp}', 'is neither a file', 'quickstart.py'),
  row('export', '--run {tmp}', '{tmp} holds no run', '--config FILE'),
  row('prepare', 'cifar10 --dir {config}', 'config.py is no folder',
      'choose another --dir'),
  row('bench', 'step --tolerance nan', '--tolerance is nan', 'at least 0'),
]  # fmt: skip


# These start with JAX, which takes seconds.
LATE = ('measure', 'rank', 'retrain', 'export', 'bench')


@pytest.mark.parametrize(
  'refusal',
  [
    pytest.param(
      child.values[0],
      id=child.values[0].command,
      marks=[pytest.mark.slow] * (child.values[0].command in LATE),
    )
    for child in CHILDREN
  ],
)
def test_a_process_says_the_same(refusal, tmp_path):
  if refusal.command == 'bench':
    pytest.importorskip('torch')
  (tmp_path / 'config.py').write_text(CONFIG)
  before = contents(tmp_path)
  words = [
    word.format(tmp=tmp_path, config=tmp_path / 'config.py')
    for word in refusal.words.split(' ')
  ]
  done = subprocess.run(
    [sys.executable, '-m', f'jaxnas.{refusal.command}', *words],
    capture_output=True, text=True, check=False, cwd=tmp_path,
    env={**os.environ, 'PYTHONDONTWRITEBYTECODE': '1'},
  )  # fmt: skip
  assert done.returncode == 2 and done.stdout == ''
  assert done.stderr.removeprefix(loading.SAYS).startswith('error: ')
  assert done.stderr.removeprefix(loading.SAYS).count('\n') == 1
  for word in refusal.says:
    assert word.format(tmp=tmp_path) in done.stderr
  assert contents(tmp_path) == before
