"""The page of an exported model, in a browser without a screen."""

import functools
import http.server
import io
import os
import shutil
import tarfile
import threading

import cv2
import numpy as np
import pytest
import torch
from test_export.test_whole_models import build

from mmmamba.deploy import ExportedModel
from mmmamba.export import (
    ExportError,
    Facts,
    gather_facts,
    make_graph,
    web_page,
)
from mmmamba.export.formats import write

pytest.importorskip('onnx', reason='exports are ONNX files')
pytest.importorskip('onnxruntime', reason='it runs ONNX files')
pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def browser():
    """Chromium without a screen."""
    webdriver = pytest.importorskip('selenium.webdriver')
    if not shutil.which('chromium') or not shutil.which('chromedriver'):
        pytest.skip('apt install chromium chromium-driver')
    options = webdriver.ChromeOptions()
    for name in (
        'headless',
        'no-sandbox',
        'disable-gpu',
        'disable-dev-shm-usage',
        'disable-background-networking',
        'use-fake-device-for-media-stream',
        'use-fake-ui-for-media-stream',
        # Nothing but this machine may be asked for anything.
        'host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost',
    ):
        options.add_argument(f'--{name}')
    service = webdriver.ChromeService(shutil.which('chromedriver'))
    driver = webdriver.Chrome(options, service)
    yield driver
    driver.quit()


@pytest.fixture(scope='module')
def serve():
    """Serve folders as ``python -m http.server`` does; returns addresses."""
    servers = []

    def start(folder) -> str:
        class Quiet(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *_):
                pass

        handler = functools.partial(Quiet, directory=str(folder))
        server = http.server.ThreadingHTTPServer(('localhost', 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f'http://localhost:{server.server_port}/'

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def photo_as_pixels(photo, tmp_path):
    """The photo as OpenCV decodes it: browsers round JPEG differently."""
    file = tmp_path / 'photo.png'
    cv2.imwrite(str(file), cv2.imread(str(photo)))
    return file


def wait(browser, condition):
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 60, 0.05).until(condition)


def until(browser, condition):
    """Wait for something in the page; fail with what the page says."""

    def check(_):
        status = browser.find_element('id', 'status')
        assert 'error' not in status.get_attribute('class'), status.text
        return condition(status.text)

    wait(browser, check)


def rows(browser):
    return browser.find_elements('css selector', '#found tr')


def choose(browser, file):
    browser.find_element('id', 'file').send_keys(str(file))
    until(browser, lambda text: 'ms in all' in text)


@pytest.fixture(scope='module')
def page(detector, run_python, serve):
    folder = detector[0].with_name('page')
    result = run_python(
        'tools/deployment/export.py', *detector, folder, '--format', 'web'
    )
    assert result.returncode == 0, result.stderr
    assert f'http.server --directory {folder}' in result.stdout
    return serve(folder)


def test_objects_are_those_of_the_inferencer(
    page, browser, photo_as_pixels, inferred
):
    browser.get(page)
    until(browser, 'Ready'.__eq__)
    threshold = browser.find_element('id', 'threshold')
    browser.execute_script(
        'arguments[0].value = 0.1;'
        'arguments[0].dispatchEvent(new Event("input"))',
        threshold,
    )
    choose(browser, photo_as_pixels)
    found = [row.get_attribute for row in rows(browser)]
    assert [int(of('data-label')) for of in found] == inferred['labels']
    scores = np.array([float(of('data-score')) for of in found])
    boxes = [np.array(of('data-box').split(), float) for of in found]
    assert np.abs(scores - inferred['scores']).max() < 1e-4
    assert np.abs(boxes - inferred['boxes']).max() < 0.05
    name = rows(browser)[0].find_elements('tag name', 'td')[1].text
    assert name in ('RBC', 'WBC', 'Platelets')


def test_threshold_chooses_what_is_shown(page, browser, photo):
    browser.get(page)
    until(browser, 'Ready'.__eq__)
    choose(browser, photo)
    counts = []
    for value in (0, 0.3, 1):
        browser.execute_script(
            'threshold.value = arguments[0];'
            'threshold.dispatchEvent(new Event("input"))',
            value,
        )
        counts.append(len(rows(browser)))
    assert counts[0] > counts[1] >= counts[2] == 0


def test_camera(page, browser):
    browser.get(page)
    until(browser, 'Ready'.__eq__)
    button = browser.find_element('id', 'camera')
    button.click()
    until(browser, lambda text: 'ms in all' in text)
    assert button.text == 'Stop'
    button.click()
    assert button.text == 'Camera'


#: Keeps what the page gets of getUserMedia, which takes half a second.
KEEP_STREAMS = """
window.streams = [];
const media = navigator.mediaDevices;
const ask = media.getUserMedia.bind(media);
media.getUserMedia = async (wanted) => {
  await new Promise((resolve) => setTimeout(resolve, 500));
  streams.push(await ask(wanted));
  return streams.at(-1);
};
"""
LIVE = """return streams.map((stream) =>
  stream.getTracks().filter((track) => track.readyState === 'live').length)
"""


@pytest.fixture
def camera(page, browser):
    """The page when it is ready, and its button."""
    browser.get(page)
    until(browser, 'Ready'.__eq__)
    browser.execute_script(KEEP_STREAMS)
    return browser.find_element('id', 'camera')


def test_two_clicks_are_one_camera(camera, browser):
    camera.click()
    camera.click()
    until(browser, lambda _: len(browser.execute_script(LIVE)) == 2)
    until(browser, lambda text: 'ms in all' in text)
    assert sum(browser.execute_script(LIVE)) == 1
    camera.click()
    assert browser.execute_script(LIVE) == [0, 0]


def test_a_photo_is_not_replaced_by_a_camera(camera, browser, photo):
    camera.click()
    choose(browser, photo)
    until(browser, lambda _: browser.execute_script(LIVE) == [0])
    assert camera.text == 'Camera'
    width = browser.execute_script('return picture.width')
    assert width == cv2.imread(str(photo)).shape[1]


@pytest.mark.parametrize(
    'end',
    [
        'const [track] = streams[0].getTracks(); track.stop();'
        'track.dispatchEvent(new Event("ended"))',
        'OffscreenCanvas = undefined',  # an error in the loop
    ],
)
def test_a_camera_may_end(end, camera, browser):
    camera.click()
    until(browser, lambda text: 'ms in all' in text)
    browser.execute_script(end)
    wait(browser, lambda _: camera.text == 'Camera')
    assert browser.execute_script(LIVE) == [0]


def test_transparent_parts_are_said(page, browser, photo, tmp_path):
    image = cv2.imread(str(photo))
    image = np.dstack([image, np.full_like(image[..., 0], 255)])
    for alpha in (255, 0):
        image[:100, :, 3] = alpha
        file = tmp_path / f'{alpha}.png'
        cv2.imwrite(str(file), image)
        browser.get(page)
        until(browser, 'Ready'.__eq__)
        choose(browser, file)
        said = browser.find_element('id', 'status').text
        assert said.endswith('count as black') == (alpha == 0)


def test_what_is_no_photo_is_said(page, browser, tmp_path):
    file = tmp_path / 'bad.jpg'
    file.write_text('<html>')
    browser.get(page)
    until(browser, 'Ready'.__eq__)
    browser.find_element('id', 'file').send_keys(str(file))
    with pytest.raises(AssertionError, match='bad.jpg cannot be read'):
        until(browser, lambda _: False)
    browser.get(f'{page}?image=none.png')
    with pytest.raises(AssertionError, match='There is no photo none.png'):
        until(browser, lambda _: False)


def test_label_map(browser, serve, photo_as_pixels, tmp_path):
    model, cfg = build('seg/fpn_mobilemamba_b1.py')
    facts = gather_facts(model, cfg)
    facts.shape = [96, 130]
    facts.resize = dict(keep_ratio=True)
    graph = make_graph(model, facts, (96, 130))
    write(graph, torch.randn(1, 3, 96, 130), tmp_path / 'page', 'web')
    exported = ExportedModel(tmp_path / 'page/model.onnx', threads=2)
    image = cv2.imread(str(photo_as_pixels))
    expected = np.unique(
        exported.predict(image)['label_map'], return_counts=True
    )
    address = serve(tmp_path)
    browser.get(f'{address}page/?image=/photo.png')
    until(browser, lambda text: 'ms in all' in text)
    found = {
        int(row.get_attribute('data-label')): int(
            row.get_attribute('data-count')
        )
        for row in rows(browser)
    }
    differing = sum(
        abs(found.pop(int(label), 0) - count)
        for label, count in zip(*expected)
    )
    assert differing + sum(found.values()) < 0.01 * image[..., 0].size


def test_classifier_is_refused():
    facts = Facts(task='classification', outputs=['scores'])
    with pytest.raises(ExportError, match='ends in scores'):
        web_page.check_page(facts)


def archive(content):
    """An archive as npm's, with one content for each file."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode='w:gz') as tar:
        for name in web_page.RUNTIME:
            member = tarfile.TarInfo(f'package/dist/{name}')
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return target.getvalue()


def test_another_archive_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    kept = tmp_path / f'mmmamba/onnxruntime-web-{web_page.VERSION}.tgz'
    kept.parent.mkdir()
    kept.write_bytes(archive(b'other'))
    with pytest.raises(ExportError, match='checksum differs'):
        web_page.find_runtime()
    assert os.listdir(kept.parent) == [kept.name]


def test_how_to_do_without_internet_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    monkeypatch.setenv('NPM_CONFIG_REGISTRY', 'http://localhost:1')
    with pytest.raises(ExportError, match='npm pack onnxruntime-web'):
        web_page.find_runtime()
