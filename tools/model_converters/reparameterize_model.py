"""Deploy the backbone of a trained model and save it for inference.

The checkpoint holds the whole model, its backbone in the form that
``switch_to_deploy()`` leads to: it loads with ``model.backbone.deploy=True``.
"""

import argparse
from pathlib import Path

import torch
from mmengine.registry import MODELS
from mmengine.runner.checkpoint import weights_to_cpu

import mmmamba
from mmmamba.backbones import MobileMamba
from mmmamba.checkpoint import load_from_local, unwrap_state_dict
from mmmamba.utils.cli import (
    UsageError,
    add_cfg_options,
    load_config,
    run_tool,
)
