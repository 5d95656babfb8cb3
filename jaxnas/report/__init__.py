"""A page about runs, the files of its figures, and tables on the console."""
