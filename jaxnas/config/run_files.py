"""Says what the files of a run hold, in the words of `runtime.kinds`."""

from jaxnas.runtime.kinds import NUMBER, NUMBER_OR_NONE

INTERVAL = ([NUMBER], type(None))
TAUS = {'kendall': NUMBER_OR_NONE, 'spearman': NUMBER_OR_NONE}

# Arrays.
PREDICTIONS = {
  'archs_AxE': 'iu',
  'accuracy_A': 'f',
  'half_HxA': 'f',
  'right_AxW': 'iu',
  'skipped_images': 'iu',
}
PART = {'archs_AxE': 'iu', 'right_AxI': 'iu'}
DENSITY = {'archs_AxE': 'iu', 'alpha_A': 'f', 'distance_P?': 'f'}
UPDATES = {
  'archs_AxE': 'iu',
  'rule_R': 'U',
  'fraction_R': 'f',
  'probability_RxA': 'f',
  'update_RxA': 'f',
  'tau?': 'f',
}
SAMPLES = {'archs_AxE': 'iu', 'samples_A': 'iu'}
SAMPLES_OF_OPS = {'samples_ExO': 'iu'}
DENSITY_LOG = {
  'epoch_L': 'iu',
  'archs_AxE': 'iu',
  'alpha_LxA': 'f',
  'tensors_T': 'U',
  'some_M': 'iu',
  'distance_LxMxM': 'f',
  'training_distance_LxT': 'f',
  'validation_distance_LxT': 'f',
}
RANKING_LOG = {'epoch_L': 'iu', 'archs_AxE': 'iu', 'accuracy_LxA': 'f'}
SEARCHED = {
  'archs_VxE': 'iu',
  'accuracy_V': 'f',
  'generation_V': 'iu',
  'generation': 'iu',
}

# Objects, and rows.
DEBIASING = {
  'epoch': int,
  'temperature': NUMBER,
  'effective': NUMBER,
  'archs': int,
  'density': [NUMBER],
  'probability': [NUMBER],
}
CORRELATION = {
  'n': int,
  'best_arch': str,
  'best_arch_accuracy': NUMBER,
  'split': str,
  'images': int,
  'bn': str,
  'compute?': {'epochs': {'*': NUMBER}},
  'best_arch_true_accuracy?': NUMBER,
  'best_true_accuracy?': NUMBER,
  'kendall?': NUMBER_OR_NONE,
  'kendall_interval?': INTERVAL,
  'spearman?': NUMBER_OR_NONE,
  'spearman_interval?': INTERVAL,
  'top_kendall?': NUMBER_OR_NONE,
  'precision_at?': {'*': NUMBER},
  'best_rank_at?': {'*': NUMBER},
  'baselines?': {'*': TAUS},
  'combined?': [
    {
      'uses': [str],
      'note': str,
      'n': int,
      'best_arch': str,
      'tied': int,
      'kendall?': NUMBER_OR_NONE,
      'kendall_interval?': INTERVAL,
      'gain_interval?': INTERVAL,
      'spearman?': NUMBER_OR_NONE,
      'top_kendall?': NUMBER_OR_NONE,
      'best_arch_true_accuracy?': NUMBER_OR_NONE,
    }
  ],
}
SCORES = {
  'n': int,
  'mean_accuracy': NUMBER,
  'signal_to_noise': NUMBER_OR_NONE,
  'score_density': NUMBER_OR_NONE,
  'still_falling': NUMBER_OR_NONE,
  'density_truth?': NUMBER_OR_NONE,
  'b?': NUMBER,
  'c?': NUMBER,
  'rho?': NUMBER,
  'noise?': NUMBER,
  'threshold?': NUMBER,
  'says': str,
}
DIAGNOSIS = {
  'warm_up?': SCORES,
  'end?': SCORES,
  'intervention?': {'slope': NUMBER, 'slope_interval': INTERVAL, 'r2': NUMBER},
}
ENVIRONMENT = {
  'command': str,
  'platform': str,
  'python': str,
  'versions': {'*': str},
}
METRICS = {'step': int, '*': NUMBER}
BEST = {'arch': str, 'accuracy': NUMBER, 'macs': int, 'params': int}
RESULT = {'arch': str, 'accuracy': NUMBER, 'seeds': [NUMBER]}
