"""Which files tools/image_demo.py draws, and what it says of the others."""

import runpy
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

TOOL = Path(__file__).parents[2] / 'tools/image_demo.py'

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def tool():
    return runpy.run_path(str(TOOL))


@pytest.fixture
def folder(tmp_path):
    """A folder as it is found on a disk."""
    image = Image.new('RGB', (40, 30), (0, 0, 255))
    for name, kind in {
        'a.gif': 'GIF',
        'a.jfif': 'JPEG',
        'a.jpg': 'JPEG',
        'a': 'PNG',
        'a.png': 'PNG',
    }.items():
        image.save(tmp_path / name, kind)
    (tmp_path / '.DS_Store').write_bytes(b'hidden')
    (tmp_path / 'more').mkdir()
    return tmp_path


def draw(tool, folder, out):
    images, video = tool['find_input'](str(folder))
    assert video is None
    targets = [out / name for name in tool['names_of_drawings'](images)]
    tool['draw_images'](images, targets, lambda image: 255 - image)


def test_every_image_gets_a_drawing_of_its_own(tool, folder, tmp_path, capsys):
    out = tmp_path / 'out'
    draw(tool, folder, out)
    assert {file.name for file in out.iterdir()} == {
        # 'a.png' is that of the input of this name.
        *('a.gif.png', 'a.jfif.png', 'a.jpg', 'a.png.png', 'a.png'),
    }
    for file in out.iterdir():
        drawn = cv2.imread(str(file))
        assert drawn.shape == (30, 40, 3)
        assert np.abs(drawn.astype(int) - (0, 255, 255)).max() < 10
    assert '5 images drawn' in capsys.readouterr().out


def test_unreadable_images_do_not_end_the_others(
    tool, folder, tmp_path, capsys
):
    (folder / '0.jpg').write_bytes(b'no image')
    (folder / '1').write_bytes(b'')
    (folder / 'notes.txt').write_text('no image, and none by its name')
    out = tmp_path / 'out'
    with pytest.raises(tool['UsageError']) as error:
        draw(tool, folder, out)
    assert len(list(out.iterdir())) == 5
    assert '0.jpg (no format that OpenCV or Pillow' in str(error.value)
    assert '1 (the file is empty)' in str(error.value)
    assert 'notes.txt' not in str(error.value)
    assert 'notes.txt (text/plain)' in capsys.readouterr().out


def test_a_strip_does_not_end_the_others(tool, folder, tmp_path):
    """Images of which resizing leaves no pixel; here those of 40x30."""
    Image.new('RGB', (64, 64)).save(folder / 'square.png')
    out = tmp_path / 'out'
    images, _ = tool['find_input'](str(folder))
    targets = [out / path.name for path in images]

    def draw(image):
        return cv2.resize(image, (64, image.shape[0] // 64))

    with pytest.raises(tool['UsageError']) as error:
        tool['draw_images'](images, targets, draw)
    assert [file.name for file in out.iterdir()] == ['square.png']
    assert 'a.jpg (40x30 px: OpenCV cannot resize' in str(error.value)
    assert '\n' not in str(error.value)


def test_an_image_that_cannot_be_drawn_does_not_end_the_others(
    tool, folder, tmp_path
):
    """Such as of one pixel, over which mmseg's visualizer stumbles."""
    Image.new('RGB', (1, 1)).save(folder / 'pixel.png')
    out = tmp_path / 'out'
    images, _ = tool['find_input'](str(folder))
    targets = [out / name for name in tool['names_of_drawings'](images)]

    def draw(image):
        if image.shape[0] == 1:
            raise IndexError('too few indices')
        return image

    with pytest.raises(tool['UsageError']) as error:
        tool['draw_images'](images, targets, draw)
    assert len(list(out.iterdir())) == len(images) - 1
    assert 'pixel.png (IndexError: too few indices)' in str(error.value)
    assert '\n' not in str(error.value)


def test_a_folder_that_is_called_as_a_webcam(tool, folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / 'more').rename('0')
    (folder / 'a.png').rename('0/a.png')
    assert tool['find_input']('0') == ([Path('0/a.png')], None)


def test_files_that_are_no_images_are_no_mistake(tool, folder, tmp_path):
    (folder / 'instances.json').write_text('{}')
    draw(tool, folder, tmp_path / 'out')


def test_folder_without_images(tool, tmp_path):
    (tmp_path / 'notes.txt').write_text('no image')
    (tmp_path / 'more.txt').write_text('no image')
    with pytest.raises(tool['UsageError'], match='holds no images'):
        draw(tool, tmp_path, tmp_path / 'out')
