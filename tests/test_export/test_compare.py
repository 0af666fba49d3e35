"""Comparing a file with its model, on outputs that are made up."""

import numpy as np

from mmmamba.export.check import _objects


def outputs(scores, shift=0.0):
    number = len(scores)
    boxes = np.arange(4.0 * number, dtype=np.float32).reshape(1, number, 4)
    return dict(
        boxes=boxes + np.float32(shift),
        scores=np.array([scores], np.float32),
        labels=np.arange(number)[None] % 3,
    )


def passed(expected, found, half=False):
    return [d.passed for d in _objects(expected, found, half)]


def test_the_best_are_compared_where_none_is_good():
    weak = outputs(np.linspace(0.2, 0.1, 30))
    assert all(passed(weak, weak))
    assert not all(passed(weak, outputs(np.linspace(0.2, 0.1, 30), shift=1)))
    nothing = outputs(np.zeros(30))
    nothing['labels'][:] = -1
    assert not all(passed(weak, nothing))
    # Which says that nothing was compared.
    count = _objects(nothing, nothing, half=False)[0]
    assert (count.name, count.shape) == ('objects', '0')


def test_objects_of_nearly_equal_scores_may_change_places():
    good = outputs([0.9, 0.8, 0.7])
    swapped = {name: value[:, [1, 0, 2]] for name, value in good.items()}
    good['scores'] = good['scores'] * 0 + np.float32(0.8)
    swapped['scores'] = good['scores']
    assert all(passed(good, swapped))
    assert not all(passed(good, outputs([0.9, 0.8, 0.2])))


def test_weights_in_float16_move_less_than_a_pixel():
    good = outputs([0.9, 0.8, 0.7])
    near, far = (outputs([0.9, 0.8, 0.7], shift) for shift in (0.5, 1.1))
    assert not all(passed(good, near))
    assert all(passed(good, near, half=True))
    assert not all(passed(good, far, half=True))
    assert not all(passed(good, outputs([0.9, 0.8, 0.68]), half=True))


def test_shapes_are_those_of_the_outputs():
    good = outputs([0.9, 0.8, 0.7])
    shapes = [d.shape for d in _objects(good, good, half=False)]
    assert shapes == ['3', '1x3x4', '1x3', '1x3']
