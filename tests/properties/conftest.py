"""Puts the helpers beside the property tests on the path; tests are no packages here."""

from __future__ import annotations

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
