# First in a list of bases: once mmmamba is imported, the bases after it are
# found by `mmseg::`, whichever edition of mmseg is installed. Not by an import
# statement, which mmengine 0.10.7 takes for a config of its new kind.
__import__('mmmamba')
