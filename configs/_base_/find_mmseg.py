# First in a list of bases: once mmmamba is imported, the bases after it are
# found by `mmseg::`, whichever edition of mmseg is installed.
import importlib

importlib.import_module('mmmamba')
