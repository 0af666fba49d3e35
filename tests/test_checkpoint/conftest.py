"""Tensors, files and logs of the tests of checkpoints."""

import logging

import pytest
import torch
from checkpoints import tiny_tensors
from golden import published_state_dict
from mmengine.logging import MMLogger

from mmmamba.backbones import MobileMamba


@pytest.fixture(scope='module')
def t2_model():
    """A backbone for tests in which nothing is loaded."""
    return MobileMamba('t2')


@pytest.fixture(scope='module')
def tiny():
    return tiny_tensors(seed=1)


@pytest.fixture(scope='module')
def t2():
    return published_state_dict('t2')


@pytest.fixture
def save(tmp_path):
    """Save something as a checkpoint file and return its path."""

    def save(content, name='weights.pth', **kwargs):
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path, **kwargs)
        return path

    return save


@pytest.fixture
def log():
    """The messages that reach mmengine's current logger."""
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    MMLogger.get_instance('test_checkpoint').handlers[:] = [handler]
    yield messages
    del MMLogger._instance_dict['test_checkpoint']
