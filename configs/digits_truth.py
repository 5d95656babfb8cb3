"""Ground truth of the digits space: 81 architectures alone, 8 seeds each.

Command: python -m jaxnas.retrain --config digits_truth.py --all
Hardware and time: 2 cores of an AMD EPYC, about 0.5 s a run, 5 minutes in all
Result: 64.2% to 95.6%; Kendall 0.49 between two seeds, 0.71 between the means
  of disjoint halves of the eight (why it is eight and not three)
"""

from jaxnas.config import Config, Data, Optimizer, Retrain


def get_config() -> Config:
  return Config(
    space='digits',
    data=Data(name='digits', train_fraction=0.5, batch_size=50),
    optimizer=Optimizer(peak_lr=0.05, weight_decay=5e-4),
    retrain=Retrain(epochs=20, seeds=8),
  )
