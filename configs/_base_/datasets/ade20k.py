# ADE20K in 512x512 crops, eight images a GPU.
_base_ = 'mmseg::_base_/datasets/ade20k.py'

train_dataloader = dict(batch_size=8)
