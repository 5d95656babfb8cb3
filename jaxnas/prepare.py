"""Download or convert data sets and benchmarks to what jaxnas reads.

  python -m jaxnas.prepare cifar10 --dir D          then: --data.dir D
  python -m jaxnas.prepare cifar100 --dir D         then: --data.dir D
  python -m jaxnas.prepare nas_bench_macro --dir D  then: --table D/FILE

What has no public address, or only as pickles, is converted from --from:

  imagenet16_120  the folder with ImageNet's batches at 16x16
                  (train_data_batch_1 to _10, val_data); then: --data.dir D
  nas_bench_201   NATS-tss-v1_0-3ffb9.pickle.pbz2, or the folder
                  NATS-tss-v1_0-3ffb9-simple; then: --table D/FILE

Nothing stands under its final name before it is complete.
"""

import contextlib
import dataclasses
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxnas.config import flags
from jaxnas.runtime import download, errors, outputs, pickles, signals, streams
from jaxnas.runtime.once import Prepared


@dataclasses.dataclass(frozen=True)
class Prepare:
  """The flags."""

  dataset: tyro.conf.Positional[
    Literal[
      'cifar10',
      'cifar100',
      'imagenet16_120',
      'nas_bench_macro',
      'nas_bench_201',
    ]
  ]
  """The data set or benchmark to prepare."""
  dir: Path
  """The folder to write to."""
  url: str | None = None
  """An address to fetch it from instead of the official one; file:// is
  fine."""
  sha256: str | None = None
  """The sha256 of the file at --url, where it is not a copy of the official
  one."""
  from_: Annotated[Path | None, tyro.conf.arg(name='from')] = None
  """The file or folder to convert, for imagenet16_120 and nas_bench_201."""
  trust_pickle: tyro.conf.FlagCreatePairsOff[bool] = False
  """Read it, though a pickle can run code: only files that you trust."""


def main(argv: Sequence[str] | None = None) -> None:
  args = flags.read(
    Prepare, argv, prog='python -m jaxnas.prepare', description=__doc__
  )
  with _stoppable():
    with errors.usage_errors():
      prepare = _preparation(args)
    try:
      with errors.memory_of():
        path, made = prepare()
    except (ValueError, *errors.OF_WORK) as error:
      print(f'error: {errors.line_of(error)}', file=sys.stderr)
      raise SystemExit(1) from error
  print(f'{path}: {"written" if made else "there already, left alone"}')


def _preparation(args: Prepare) -> Callable[[], Prepared]:
  """Returns the call that the flags ask for.

  Raises ValueError or OSError for flags that contradict each other or the
  data set, and for a source that can't be converted.
  """
  # Data brings JAX along, which `--help` does not wait for.
  from jaxnas.data import preparation as images
  from jaxnas.truth import preparation as tables

  downloads = images.DOWNLOADS | tables.DOWNLOADS
  conversions = images.CONVERSIONS | tables.CONVERSIONS
  name = args.dataset
  outputs.check_folder(args.dir, '--dir')
  unused = (
    {'--from': args.from_ is not None, '--trust_pickle': args.trust_pickle}
    if name in downloads
    else {'--url': args.url is not None, '--sha256': args.sha256 is not None}
  )
  for flag, given in unused.items():
    if given:
      way = 'downloaded' if name in downloads else 'converted'
      raise ValueError(
        f'{name} is {way} and does not use {flag}: leave it out.'
      )
  if name in conversions:
    conversion = conversions[name]
    if args.from_ is None:
      raise ValueError(f'{name} needs --from: {conversion.takes}.')
    pickles.check_trusted(args.from_, args.trust_pickle)
    # What is there already is left alone, whatever became of its source.
    if not (args.dir / conversion.makes).exists():
      conversion.check(args.from_)
    return partial(
      conversion.convert, args.dir, args.from_, trust_pickle=args.trust_pickle
    )
  fetch, source = downloads[name]
  given = {'url': args.url, 'sha256': args.sha256}
  source = source._replace(**{k: v for k, v in given.items() if v is not None})
  download.check(*source)
  return partial(fetch, args.dir, *source)


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
  """Turns signals into an exception, as SIGINT is: the scratch folder goes."""
  try:
    with signals.handled(signal.default_int_handler):
      yield
  except KeyboardInterrupt:
    print('stopped, nothing written', file=sys.stderr)
    raise SystemExit(errors.code_of_stop()) from None


if __name__ == '__main__':
  streams.run(main)
