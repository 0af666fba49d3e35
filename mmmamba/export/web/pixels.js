// From a photo to the input of the model, and back: the arithmetic of
// mmmamba/deploy/pixels.py on pixels of four channels (RGBA).

/** Size of an image in a frame, as mmcv's rescale_size rounds it. */
function fitting(width, height, frame, how) {
  const scale = how.scale;  // height and width before the padding
  if (!how.keep_ratio)
    return scale ? { width: scale[1], height: scale[0] } : frame;
  let factor = Math.min(frame.width / width, frame.height / height);
  if (scale)
    factor = Math.min(
      factor, Math.max(...scale) / Math.max(width, height),
      Math.min(...scale) / Math.min(width, height));
  return {
    width: Math.max(
      1, Math.min(Math.floor(width * factor + 0.5), frame.width)),
    height: Math.max(
      1, Math.min(Math.floor(height * factor + 0.5), frame.height)),
  };
}

/** Where the samples of one axis lie, as OpenCV's INTER_LINEAR places them. */
function samples(from, to) {
  const first = new Int32Array(to), next = new Int32Array(to);
  const part = new Float32Array(to);
  for (let i = 0; i < to; i++) {
    const at = Math.min(Math.max((i + 0.5) * from / to - 0.5, 0), from - 1);
    first[i] = Math.floor(at);
    next[i] = Math.min(first[i] + 1, from - 1);
    part[i] = at - first[i];
  }
  return { first, next, part };
}

/**
 * Resize, normalize and pad a photo.
 * @param {ImageData} photo
 * @param {object} facts what mmmamba wrote of the model
 * @returns {{data: Float32Array, size: {width: number, height: number}}} the
 *   input (1, 3, H, W), and the size that the photo has in it
 */
export function prepare(photo, facts) {
  const frame = { height: facts.shape[0], width: facts.shape[1] };
  const size = fitting(
    photo.width, photo.height, frame, facts.resize);
  const x = samples(photo.width, size.width);
  const y = samples(photo.height, size.height);
  const plane = frame.height * frame.width;
  const data = new Float32Array(3 * plane);
  const padding = facts.resize.pad_value;
  for (let channel = 0; channel < 3; channel++) {
    const mean = facts.mean[channel], std = facts.std[channel];
    // Channels of a photo are red, green, blue; the config counts from blue.
    const source = facts.bgr_to_rgb ? channel : 2 - channel;
    const target = data.subarray(channel * plane, (channel + 1) * plane);
    if (padding) {
      const counted = facts.bgr_to_rgb ? 2 - channel : channel;
      target.fill((padding[counted] - mean) / std);
    }
    for (let row = 0; row < size.height; row++) {
      const upper = y.first[row] * photo.width;
      const lower = y.next[row] * photo.width;
      const down = y.part[row];
      for (let column = 0; column < size.width; column++) {
        const left = x.first[column], right = x.next[column];
        const along = x.part[column];
        const pixel = (index) => photo.data[4 * index + source];
        const top = pixel(upper + left) * (1 - along)
          + pixel(upper + right) * along;
        const bottom = pixel(lower + left) * (1 - along)
          + pixel(lower + right) * along;
        // OpenCV keeps 8 bits after resizing.
        const value = Math.round(top * (1 - down) + bottom * down);
        target[row * frame.width + column] = (value - mean) / std;
      }
    }
  }
  return { data, size };
}

/**
 * Objects in the pixels of the photo, the best first.
 * @returns {{box: number[], score: number, label: number,
 *   mask: ?Float32Array}[]}
 */
export function objects(outputs, photo, size) {
  const { boxes, scores, labels, masks } = outputs;
  const scale = [photo.width / size.width, photo.height / size.height];
  const side = masks ? masks.dims[2] : 0;
  const found = [];
  for (let i = 0; i < scores.data.length; i++) {
    const label = Number(labels.data[i]);
    if (label < 0) continue;  // a row without an object
    const box = [0, 1, 2, 3].map(k => boxes.data[4 * i + k] * scale[k % 2]);
    // A box may reach into the padding, or lie in it.
    const limits = [photo.width, photo.height];
    const [x1, y1, x2, y2] =
      box.map((value, k) => Math.min(Math.max(value, 0), limits[k % 2]));
    if (x2 <= x1 || y2 <= y1) continue;
    const mask = masks
      && masks.data.subarray(i * side * side, (i + 1) * side * side);
    found.push({ box, score: scores.data[i], label, mask, side });
  }
  return found;
}

/** The label of each pixel of the photo: the nearest of the map. */
export function labelMap(outputs, photo, size) {
  const map = outputs.label_map;
  const stride = map.dims[2];
  const labels = new Int32Array(photo.width * photo.height);
  for (let y = 0; y < photo.height; y++) {
    const row = Math.floor(y * size.height / photo.height) * stride;
    for (let x = 0; x < photo.width; x++) {
      const column = Math.floor(x * size.width / photo.width);
      labels[y * photo.width + x] = map.data[row + column];
    }
  }
  return labels;
}

/** The pixels of an object: its mask, bilinear in its box, above a threshold. */
export function maskedPixels(object, photo, threshold) {
  const [x1, y1, x2, y2] = object.box;
  const { mask, side } = object;
  const at = (row, column) =>
    row < 0 || column < 0 || row >= side || column >= side
      ? 0 : mask[row * side + column];
  const inside = [];
  const bottom = Math.min(Math.ceil(y2) + 1, photo.height);
  const right = Math.min(Math.ceil(x2) + 1, photo.width);
  for (let y = Math.max(Math.floor(y1) - 1, 0); y < bottom; y++) {
    const v = (y + 0.5 - y1) / (y2 - y1) * side - 0.5;
    const row = Math.floor(v);
    for (let x = Math.max(Math.floor(x1) - 1, 0); x < right; x++) {
      const u = (x + 0.5 - x1) / (x2 - x1) * side - 0.5;
      const column = Math.floor(u);
      const value = (at(row, column) * (column + 1 - u)
          + at(row, column + 1) * (u - column)) * (row + 1 - v)
        + (at(row + 1, column) * (column + 1 - u)
          + at(row + 1, column + 1) * (u - column)) * (v - row);
      if (value >= threshold) inside.push(y * photo.width + x);
    }
  }
  return inside;
}
