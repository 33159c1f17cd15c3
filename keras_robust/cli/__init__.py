"""The commands of the console script `keras-robust`; the programs in `serving/` run the same ones.

Each command is a module with `define_flags(values)` and `run(values)`, which imports TensorFlow
after it has checked the flags.
"""
