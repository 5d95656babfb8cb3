"""Plans of runs on machines that are not there, before anyone pays for them."""
