# First in a list of bases: the import lets those after it be found by
# `mmseg::` (see mmmamba/stack.py), also in mmseg's own tools.
import importlib

importlib.import_module('mmmamba')

custom_imports = dict(imports=['mmmamba'], allow_failed_imports=False)
