"""Speeds, as ratios within one run; `README.md` says what is measured and how."""
