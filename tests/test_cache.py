"""Results that are kept on disk for all runs, or in memory for a process."""

import gc
import weakref

from jaxnas.runtime import cache


class Net:
  """Stands for a net: it hashes, and something else may hold it alive."""


def test_the_folder_is_the_users_own(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  assert cache.folder('labels') == tmp_path / 'jaxnas' / 'labels'
  monkeypatch.delenv('XDG_CACHE_HOME')
  monkeypatch.setenv('HOME', str(tmp_path))
  assert cache.folder('x') == tmp_path / '.cache' / 'jaxnas' / 'x'


def test_nets_are_let_go_after_eight_others():
  programs = cache.per_net(lambda net: object())
  net = Net()
  assert programs(net) is programs(net)
  alive = weakref.ref(net)
  del net
  for _ in range(7):
    programs(Net())
  gc.collect()
  assert alive() is not None
  programs(Net())
  gc.collect()
  assert alive() is None
