"""Says whether debiasing can be expected to help, from what a run measures.

A score is s = b q + c e + n: q is the accuracy alone, e the effective update,
which follows the density, and n noise of variance v, all but s standardised;
rho is the correlation of q and e. Then less of the part c e would rank better
where c > 0 and rho <= 0 or c > v rho / (b (1 - rho^2)); up to there density is
a useful prior.
(Derived for this package; the bounds of the sentences are its own.)
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxnas.truth import correlation

# Below this Spearman correlation scores do not follow the density.
FOLLOWS = 0.1
# Above this share of its whole fall in the last fifth, a loss is still falling.
FALLING = 0.1


def of_scores(
  half_HxA: Float[np.ndarray, 'H A'],
  density_A: Float[np.ndarray, ' A'],
  loss_L: Float[np.ndarray, ' L'],
  truth_A: Float[np.ndarray, ' A'] | None,
) -> dict[str, Any]:
  """Diagnoses the scores of a supernet, ready for JSON.

  Args:
    half_HxA: scores on two disjoint halves of the images.
    density_A: of the same architectures.
    loss_L: mean losses along the training so far.
    truth_A: accuracies alone, where they are known.
  """
  score_A = half_HxA.mean(axis=0)
  found: dict[str, Any] = {
    'n': len(score_A),
    'mean_accuracy': float(score_A.mean()),
    'signal_to_noise': signal_to_noise(half_HxA),
    'score_density': correlation.spearman(score_A, density_A),
    'still_falling': still_falling(loss_L),
  }
  if truth_A is not None:
    found['density_truth'] = correlation.spearman(density_A, truth_A)
    found |= parts(score_A, density_A, truth_A)
  return {**found, 'says': says(found)}


def signal_to_noise(half_HxA: Float[np.ndarray, 'H A']) -> float | None:
  """Returns the variance of scores over that of their noise, on all images.

  Two halves share the signal, and each has twice the noise of the whole. None
  where scores do not differ.
  """
  if np.ptp(half_HxA) == 0:
    return None
  noise = float(((half_HxA[0] - half_HxA[1]) ** 2).mean()) / 4
  whole = float(half_HxA.mean(axis=0).var())
  return max(whole - noise, 0.0) / max(noise, 1e-12)


def still_falling(loss_L: Float[np.ndarray, ' L']) -> float | None:
  """Returns the share of a loss's whole fall that is in its last fifth.

  None for fewer than five values, or where it does not fall.
  """
  if len(loss_L) < 5:
    return None
  fifth = max(len(loss_L) // 5, 1)
  first, last = loss_L[:fifth].mean(), loss_L[-fifth:].mean()
  before = loss_L[-2 * fifth : -fifth].mean()
  return float((before - last) / (first - last)) if first > last else None


def parts(
  score_A: Float[np.ndarray, ' A'],
  density_A: Float[np.ndarray, ' A'],
  truth_A: Float[np.ndarray, ' A'],
) -> dict[str, float]:
  """Fits the model of the score; returns b, c, rho, v and the threshold of c.

  The threshold is None where any c misleads. Nothing is returned where one of
  the three is constant.
  """
  columns = [score_A, truth_A, density_A]
  if any(np.ptp(values_A) == 0 for values_A in columns):
    return {}
  s_A, q_A, e_A = ((x_A - x_A.mean()) / x_A.std() for x_A in columns)
  rho = float(np.mean(q_A * e_A))
  (b, c), *_ = np.linalg.lstsq(np.stack([q_A, e_A], axis=1), s_A, rcond=None)
  noise = float(np.var(s_A - b * q_A - c * e_A))
  out = {'b': float(b), 'c': float(c), 'rho': rho, 'noise': noise}
  if rho > 0 and b > 0 and rho < 1:
    out['threshold'] = noise * rho / (float(b) * (1 - rho**2))
  return out


def intervention(
  accuracy_change_A: Float[np.ndarray, ' A'],
  update_change_A: Float[np.ndarray, ' A'],
  rng: np.random.Generator,
) -> dict[str, Any] | None:
  """Fits the change of accuracies to that of effective updates.

  Args:
    accuracy_change_A: debiased less undebiased, fractions.
    update_change_A: of the effective updates, between the two samplings.
    rng: for the bootstrap over architectures.

  Returns slope (fractions for one more effective update a step), its 95%
  interval and R^2; None where effective updates do not change.
  """
  if len(update_change_A) < 3 or np.ptp(update_change_A) < 1e-9:
    return None

  def slope(changes_Ax2, chosen_A):
    y_A, x_A = changes_Ax2.T
    x_A = x_A - x_A.mean()
    square = float((x_A**2).sum())
    return float(x_A @ y_A) / square if square else None

  both_Ax2 = np.stack([accuracy_change_A, update_change_A], axis=1)
  rho = np.corrcoef(both_Ax2.T)[0, 1] if np.ptp(accuracy_change_A) else 0.0
  interval = correlation.bootstrap(slope, both_Ax2, update_change_A, rng)
  return {
    'slope': slope(both_Ax2, update_change_A),
    'slope_interval': None if interval is None else [*interval],
    'r2': float(rho) ** 2,
  }


def says(found: Mapping[str, Any]) -> str:
  """Writes the diagnosis as a few sentences."""
  ratio, follows = found['signal_to_noise'], found['score_density']
  falling = found['still_falling']
  if ratio is None or ratio < 1:
    out = (
      'The scores are mostly noise: train longer or rank on more images before '
      'debiasing can show anything.'
    )
  elif follows is None or follows < FOLLOWS:
    out = (
      f'Scores do not follow the density (Spearman {follows or 0:+.2f}): '
      'debiasing has no bias to take away.'
    )
  elif falling is not None and falling > FALLING:
    out = (
      f'Scores follow the density (Spearman {follows:+.2f}), and the supernet '
      f'still learns ({falling:.0%} of its fall in loss is in the last fifth): '
      'density may be a useful prior yet, and debiasing may harm.'
    )
  else:
    out = (
      f'Scores follow the density (Spearman {follows:+.2f}), and the supernet '
      'has learnt: debiasing can help, unless dense architectures are the '
      'better ones.'
    )
  if 'rho' not in found:
    return out
  if found['c'] <= 0:
    held = 'given the truth, density does not raise a score'
  elif 'threshold' not in found:
    held = 'density raises scores, and is no sign of a good architecture'
  elif found['c'] > found['threshold']:
    held = 'density raises scores by more than it tells of the truth'
  else:
    held = 'density raises scores, and tells more of the truth than it misleads'
  helps = found['c'] > 0 and found['c'] > found.get('threshold', 0)
  return (
    f'{out} Held to the truth (Spearman of density and truth '
    f'{found["density_truth"]:+.2f}), {held}: debiasing '
    f'{"should help" if helps else "should not help"}.'
  )
