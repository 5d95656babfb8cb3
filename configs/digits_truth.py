"""Ground truth of the digits space: 81 architectures alone, 8 seeds each.

Command: python -m jaxnas.retrain --config digits_truth.py --all
Hardware and time: not yet measured
Result: not yet measured
"""

from jaxnas.config import Config, Data, Optimizer, Retrain


def get_config() -> Config:
  return Config(
    space='digits',
    data=Data(name='digits', train_fraction=0.5, batch_size=50),
    optimizer=Optimizer(peak_lr=0.05, weight_decay=5e-4),
    retrain=Retrain(epochs=20, seeds=8),
  )
