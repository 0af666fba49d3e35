"""Building blocks of the network, one idea a file."""

from .block import MobileMambaBlock
from .conv_bn import ConvBN
from .ffn import FFN
from .mixer import MRFFI, WTEMamba
from .multi_kernel_conv import MultiKernelDWConv
from .patch_merging import PatchMerging, Transition
from .ssm import SSM
from .stage import Stage
from .stem import Stem
from .wavelet import WaveletConv

__all__ = [
    'FFN',
    'MRFFI',
    'SSM',
    'ConvBN',
    'MobileMambaBlock',
    'MultiKernelDWConv',
    'PatchMerging',
    'Stage',
    'Stem',
    'Transition',
    'WTEMamba',
    'WaveletConv',
]
