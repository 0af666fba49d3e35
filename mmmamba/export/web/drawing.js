// Drawing what the model found, and the table beside it.

import { maskedPixels } from './pixels.js';

/** Colors of the classes; where none are known, far from each other. */
export function color(facts, label) {
  if (label < facts.palette.length) return facts.palette[label];
  const hue = (label * 137.508) % 360;  // the golden angle
  const channel = (n) => {
    const k = (n + hue / 30) % 12;
    return Math.round(255 * (0.5 - 0.45 * Math.max(
      -1, Math.min(k - 3, 9 - k, 1))));
  };
  return [channel(0), channel(8), channel(4)];
}

export const nameOf = (facts, label) => facts.classes[label] ?? String(label);

function tint(photo, pixel, rgb) {
  for (let c = 0; c < 3; c++) {
    photo.data[4 * pixel + c] = (photo.data[4 * pixel + c] + rgb[c]) / 2;
  }
}

/** Draw a photo with its objects on a canvas. */
export function drawObjects(canvas, photo, found, facts) {
  const painted = copy(photo);
  for (const object of found) {
    if (!object.mask) continue;
    const rgb = color(facts, object.label);
    for (const pixel of maskedPixels(object, photo, facts.mask_threshold)) {
      tint(painted, pixel, rgb);
    }
  }
  const pen = put(canvas, painted);
  const longest = Math.max(photo.width, photo.height);
  pen.lineWidth = Math.max(1, longest / 400);
  pen.font = `${Math.max(10, Math.round(longest / 50))}px system-ui, sans-serif`;
  pen.textBaseline = 'top';
  for (const { box, label } of found) {
    pen.strokeStyle = `rgb(${color(facts, label)})`;
    pen.strokeRect(box[0], box[1], box[2] - box[0], box[3] - box[1]);
  }
  for (const { box, label, score } of found) {  // names lie above all boxes
    const text = `${nameOf(facts, label)} ${score.toFixed(2)}`;
    const height = parseInt(pen.font) * 1.2;
    pen.fillStyle = 'black';
    pen.fillRect(box[0], box[1], pen.measureText(text).width + 4, height);
    pen.fillStyle = 'white';
    pen.fillText(text, box[0] + 2, box[1] + 2);
  }
}

/** Draw a photo under its label map. */
export function drawLabels(canvas, photo, labels, facts) {
  const painted = copy(photo);
  labels.forEach((label, pixel) => tint(painted, pixel, color(facts, label)));
  put(canvas, painted);
}

const copy = (photo) =>
  new ImageData(photo.data.slice(), photo.width, photo.height);

function put(canvas, photo) {
  canvas.width = photo.width;
  canvas.height = photo.height;
  const pen = canvas.getContext('2d');
  pen.putImageData(photo, 0, 0);
  return pen;
}

/** Fill a table with one row for each object or class. */
export function fillTable(table, rows, facts) {
  table.replaceChildren(...rows.map(({ label, value, data }) => {
    const row = document.createElement('tr');
    Object.assign(row.dataset, data);
    const [mark, name, last] = [0, 1, 2].map(() => row.insertCell());
    mark.style.background = `rgb(${color(facts, label)})`;
    name.textContent = nameOf(facts, label);
    last.textContent = value;
    return row;
  }));
}
