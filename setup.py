"""The one thing pyproject.toml has no words for: the cffi extension, where it can be built."""

import os
import sys

from setuptools import setup

wanted = sys.platform == "linux" and not os.environ.get("URINGIO_NO_EXTENSION")
setup(cffi_modules=["uringio/_binding/build.py:ffibuilder"] if wanted else [])
