"""See again where training met a value that was not finite.

For instance `python -m jaxnas.debug RUN/dump-120`: replays from the last good
checkpoint to that step, and says which tensors are not finite, path by path.
"""

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path

import tyro

from jaxnas.config import flags, run_flags
from jaxnas.runtime import errors, startup, streams


@dataclasses.dataclass(frozen=True)
class Debug(flags.Trusts):
  """Flags of the command."""

  dump: tyro.conf.Positional[Path]
  """The folder that the error has named."""
  data: run_flags.Data = run_flags.AS_IN_RUN


def main(argv: Sequence[str] | None = None) -> int:
  args = flags.read(
    Debug, argv, prog='python -m jaxnas.debug', description=__doc__
  )
  # JAX and what needs it come after the flags, so that `--help` is quick.
  from jaxnas.experiment import dump, replay
  from jaxnas.training.loop import NonFinite

  with errors.usage_errors():
    about, config = dump.read(args.dump)
    config = run_flags.read_from(config, args.data)
    startup.prepare_process()
  build = replay.of_supernet if about.seed is None else replay.stand_alone
  kept: list[replay.Inputs] = []
  with (
    errors.outcome(args.dump, 'stopped'),
    tempfile.TemporaryDirectory() as scratch,
  ):
    try:
      with errors.usage_errors():
        run = build(about, config, args.dump, Path(scratch), kept)
      run()
    except (NonFinite, FloatingPointError) as error:
      print(f'again: {error}')
      for line in replay.describe(*kept[0]) if kept else ():
        print(line)
      return 0
    except replay.Passed:
      pass
  print(
    f'step {about.step} was finite this time. It said: {about.error} Another '
    'machine, another version or other images may be why.'
  )
  return 1


if __name__ == '__main__':
  streams.run(main)
