# SSDLite on MobileMamba-B1 at 320 px, COCO, 120 epochs of five passes
# (published: 24.0 AP).
_base_ = '../_base_/models/ssdlite_mobilemamba.py'

analysis_shape = (320, 320)
