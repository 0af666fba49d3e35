# First in a list of bases: bases of mmseg are found, and mmmamba is imported.
_base_ = './find_mmseg.py'
custom_imports = dict(imports=['mmmamba'], allow_failed_imports=False)
