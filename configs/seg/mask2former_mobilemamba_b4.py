# Mask2Former on MobileMamba-B4, ADE20K, 160k iterations, mmseg's recipe; it
# needs mmdet. Ours, and not trained here; nobody has published it.
_base_ = [
    '../_base_/find_mmseg.py',  # mmmamba.py's imports are below
    'mmseg::mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py',
]
custom_imports = dict(
    imports=['mmmamba', 'mmdet.models'], allow_failed_imports=False
)

model = dict(
    backbone=dict(
        _delete_=True,
        type='MobileMamba',
        arch='b4',
        init_cfg=dict(
            type='Pretrained',
            checkpoint='checkpoints/mobilemamba_{arch}.pth',
        ),
    ),
    # Masks are drawn at stride 4; the backbone starts at 16.
    neck=dict(
        type='MobileMambaFPN',
        in_channels=[200, 376, 448],
        out_channels=256,
        num_outs=5,
        num_finer=2,
    ),
    decode_head=dict(
        in_channels=[256, 256, 256, 256, 256],
        strides=[4, 8, 16, 32, 64],
        pixel_decoder=dict(strides=[4, 8, 16, 32, 64]),
    ),
)
# Checkpoints are thousands of iterations apart: Ctrl-C saves one.
custom_hooks = [dict(type='InterruptHook')]
