// The page: a photo or the camera goes in, what the model finds is drawn.
// A photo can be named in the address, too: ?image=photo.jpg

import * as ort from './ort.wasm.min.mjs';
import { drawLabels, drawObjects, fillTable } from './drawing.js';
import { labelMap, objects, prepare } from './pixels.js';

const element = (id) => document.getElementById(id);
const canvas = element('picture');
const threshold = element('threshold');

let facts, session;
let last = null;  // the photo in view and what was found in it
let stream = null;  // of the camera, while it is on
let request = 0;  // the last one for the camera; those before it are void

function say(text, error = false) {
  element('status').textContent = text;
  element('status').classList.toggle('error', error);
}

async function load() {
  ort.env.wasm.wasmPaths = new URL('./', import.meta.url).href;
  // Browsers lend threads only to pages that a server isolates (docs/export.md).
  ort.env.wasm.numThreads = self.crossOriginIsolated ? 0 : 1;
  facts = await (await fetch('facts.json')).json();
  document.title = facts.config || 'mmmamba';
  element('title').textContent = document.title;
  element('about').textContent = `${facts.arch}, ${facts.task}, `
    + `${facts.shape[1]} x ${facts.shape[0]} pixels, `
    + `${facts.classes.length} classes`;
  session = await ort.InferenceSession.create('model.onnx');
  element('threshold-label').hidden = facts.task !== 'detection';
  element('file').disabled = element('camera').disabled = false;
  say('Ready');
  const named = new URLSearchParams(location.search).get('image');
  if (!named) return;
  const response = await fetch(named);
  if (response.ok) await open(await response.blob());
  else say(`There is no photo ${named}`, true);
}

/** Find what is in a photo, and draw it. */
async function run(photo) {
  const start = performance.now();
  const { data, size } = prepare(photo, facts);
  const images = new ort.Tensor('float32', data, [1, 3, ...facts.shape]);
  const before = performance.now();
  const outputs = await session.run({ images });
  const network = performance.now() - before;
  const found = facts.task === 'detection'
    ? objects(outputs, photo, size) : labelMap(outputs, photo, size);
  last = { photo, found };
  draw();
  const all = performance.now() - start;
  say(`${network.toFixed(0)} ms for the network, ${all.toFixed(0)} ms in all`);
}

function draw() {
  if (!last) return;
  const { photo, found } = last;
  if (facts.task === 'detection') {
    const kept = found.filter(({ score }) => score > Number(threshold.value));
    drawObjects(canvas, photo, kept, facts);
    fillTable(element('found'), kept.map(({ box, label, score }) => ({
      label, value: score.toFixed(2), data: { box: box.join(' '), label, score },
    })), facts);
  } else {
    drawLabels(canvas, photo, found, facts);
    const counts = new Map();
    for (const label of found) counts.set(label, (counts.get(label) ?? 0) + 1);
    const rows = [...counts].sort((a, b) => b[1] - a[1]);
    fillTable(element('found'), rows.map(([label, count]) => ({
      label, value: `${(100 * count / found.length).toFixed(1)} %`,
      data: { label, count },
    })), facts);
  }
  canvas.hidden = false;
  element('hint').hidden = true;
  element('drop').classList.add('filled');
}

/** The pixels of a photo or video; a canvas makes transparent ones black. */
function pixelsOf(source, width, height) {
  const pen = new OffscreenCanvas(width, height)
    .getContext('2d', { willReadFrequently: true });
  pen.drawImage(source, 0, 0);
  return pen.getImageData(0, 0, width, height);
}

async function open(file) {
  stopCamera();
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { colorSpaceConversion: 'none' });
  } catch {
    return say(`${file.name ?? 'This file'} cannot be read as a photo`, true);
  }
  say('Running');
  // Let the browser show it before the network takes the thread.
  await new Promise((resolve) => setTimeout(resolve));
  const photo = pixelsOf(bitmap, bitmap.width, bitmap.height);
  await run(photo);
  const pixels = new Uint32Array(photo.data.buffer);
  if (pixels.some((pixel) => pixel >>> 24 < 255))  // the byte of alpha
    element('status').textContent += '; transparent parts count as black';
}

function stopCamera() {
  request++;
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
  element('camera').textContent = 'Camera';
}

async function startCamera() {
  const mine = ++request;
  const own = await navigator.mediaDevices.getUserMedia(
    { video: { facingMode: 'environment' } });
  const [track] = own.getVideoTracks();
  // While the browser asked, there was another click or a photo.
  if (mine !== request) return track.stop();
  stream = own;
  try {
    track.addEventListener('ended', stopCamera);  // it is unplugged, or taken
    element('camera').textContent = 'Stop';
    const video = element('video');
    video.srcObject = stream;
    await video.play();
    while (stream === own) {
      await run(pixelsOf(video, video.videoWidth, video.videoHeight));
      await new Promise(requestAnimationFrame);
    }
  } finally {
    if (stream === own) stopCamera();
  }
}

/** Run something, and show in the page why it failed. */
const guarded = (action) => async (...inputs) => {
  try {
    await action(...inputs);
  } catch (error) {
    say(error.message, true);
  }
};

element('file').addEventListener('change', guarded(async ({ target }) => {
  if (target.files.length) await open(target.files[0]);
  target.value = '';  // the same photo may be chosen again
}));
element('camera').addEventListener('click', guarded(async () => {
  if (stream) stopCamera();
  else await startCamera();
}));
threshold.addEventListener('input', () => {
  element('threshold-value').textContent = Number(threshold.value).toFixed(2);
  draw();
});
const drop = element('drop');
drop.addEventListener('dragover', (event) => {
  event.preventDefault();
  drop.classList.add('over');
});
drop.addEventListener('dragleave', () => drop.classList.remove('over'));
drop.addEventListener('drop', guarded(async (event) => {
  event.preventDefault();
  drop.classList.remove('over');
  const file = event.dataTransfer.files[0];
  if (session && file) await open(file);
}));

guarded(load)();
