// Draws a slice on a canvas: picture, heat map, classes filled or as outlines, or the difference
// between two label maps.

const RAMP = [
  [0, 0, 4], [40, 11, 84], [101, 21, 110], [159, 42, 99], [212, 72, 66], [245, 125, 21],
  [250, 193, 39], [252, 255, 164],
]; // dark to bright, also for colour-blind readers
export const DIFFERENCE = {
  first: [230, 159, 0],
  second: [86, 180, 233],
  other: [204, 50, 160],
  both: [255, 255, 255],
};

export function colourOf(text) {
  const value = parseInt(text.slice(1), 16);
  return [value >> 16, (value >> 8) & 255, value & 255];
}

function layer(slices, paint) {
  const canvas = document.createElement("canvas");
  canvas.width = slices.width;
  canvas.height = slices.height;
  const context = canvas.getContext("2d");
  const image = context.createImageData(slices.width, slices.height);
  paint(image.data);
  context.putImageData(image, 0, 0);
  return canvas;
}

// The labels of the shown classes as planes: [the array, [[value in it, class]]]. Exclusive classes
// share one plane, so that it is gone through once.
function planes(slices, labels, shown) {
  if (!slices.view.overlapping) return [[labels, shown.map((one) => [one.id, one])]];
  const { pixels } = slices;
  return shown.map((one) => [labels.subarray(one.id * pixels, (one.id + 1) * pixels), [[1, one]]]);
}

// The edges of each value of a plane as a path in pixels of the slice.
function outlines(slices, plane, values) {
  const { width, height } = slices;
  const paths = new Array(256);
  for (const [value] of values) paths[value] = new Path2D();
  for (let row = 0, k = 0; row < height; row += 1) {
    for (let column = 0; column < width; column += 1, k += 1) {
      const value = plane[k];
      const path = paths[value];
      if (!path) continue;
      if (column === 0 || plane[k - 1] !== value) edge(path, column, row, column, row + 1);
      if (column === width - 1 || plane[k + 1] !== value) {
        edge(path, column + 1, row, column + 1, row + 1);
      }
      if (row === 0 || plane[k - width] !== value) edge(path, column, row, column + 1, row);
      if (row === height - 1 || plane[k + width] !== value) {
        edge(path, column, row + 1, column + 1, row + 1);
      }
    }
  }
  return paths;
}

function edge(path, x0, y0, x1, y1) {
  path.moveTo(x0, y0);
  path.lineTo(x1, y1);
}

function heatLayer(slices, heat) {
  return layer(slices, (data) => {
    for (let k = 0; k < slices.pixels; k += 1) {
      const at = (heat[k] / 255) * (RAMP.length - 1);
      const low = Math.floor(at);
      const high = Math.min(low + 1, RAMP.length - 1);
      for (let c = 0; c < 3; c += 1) {
        data[4 * k + c] = RAMP[low][c] + (RAMP[high][c] - RAMP[low][c]) * (at - low);
      }
      data[4 * k + 3] = 220 * Math.min(1, heat[k] / 96);
    }
  });
}

// `looks`: Map of class name → {visible, colour}; `display`: {style, opacity}.
export function drawSlice(canvas, slices, slice, looks, display) {
  const context = start(canvas, slices, slice);
  const shown = slices.view.classes.filter((one) => looks.get(one.name).visible);
  const all = planes(slices, slice.labels, shown);
  if (display.style === "filled" && shown.length) {
    const fill = layer(slices, (data) => {
      const words = new Uint32Array(data.buffer);
      for (const [plane, values] of all) {
        const colours = new Uint32Array(256);
        for (const [value, one] of values) {
          const [r, g, b] = colourOf(looks.get(one.name).colour);
          colours[value] = (255 << 24) | (b << 16) | (g << 8) | r;
        }
        for (let k = 0; k < slices.pixels; k += 1) {
          if (colours[plane[k]]) words[k] = colours[plane[k]];
        }
      }
    });
    context.globalAlpha = display.opacity;
    context.imageSmoothingEnabled = false;
    context.drawImage(fill, 0, 0, canvas.width, canvas.height);
    context.globalAlpha = 1;
  }
  for (const [plane, values] of all) {
    const paths = outlines(slices, plane, values);
    for (const [value, one] of values) {
      stroke(context, canvas, slices, paths[value], looks.get(one.name).colour);
    }
  }
}

// Where two label maps of the same image differ, in the classes that both have.
export function drawDifference(canvas, first, second, one, two, looks) {
  const context = start(canvas, first, one);
  const ids = new Map(second.view.classes.map((other) => [other.name, other.id]));
  const shared = first.view.classes
    .filter(({ name }) => ids.has(name) && looks.get(name).visible)
    .map(({ name, id }) => [id, ids.get(name)]);
  const fill = layer(first, (data) => {
    for (let k = 0; k < first.pixels; k += 1) {
      let [a, b, both] = [false, false, false];
      for (const [here, there] of shared) {
        const inFirst = first.has(one.labels, here, k);
        const inSecond = second.has(two.labels, there, k);
        a ||= inFirst && !inSecond;
        b ||= inSecond && !inFirst;
        both ||= inFirst && inSecond;
      }
      if (a && b) put(data, k, DIFFERENCE.other, 210);
      else if (a) put(data, k, DIFFERENCE.first, 210);
      else if (b) put(data, k, DIFFERENCE.second, 210);
      else if (both) put(data, k, DIFFERENCE.both, 40);
    }
  });
  context.imageSmoothingEnabled = false;
  context.drawImage(fill, 0, 0, canvas.width, canvas.height);
}

function start(canvas, slices, slice) {
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = true;
  context.imageSmoothingQuality = "high";
  context.drawImage(slice.image, 0, 0, canvas.width, canvas.height);
  if (slice.heat) context.drawImage(heatLayer(slices, slice.heat), 0, 0, canvas.width, canvas.height);
  return context;
}

function put(data, k, colour, alpha) {
  data[4 * k] = colour[0];
  data[4 * k + 1] = colour[1];
  data[4 * k + 2] = colour[2];
  data[4 * k + 3] = alpha;
}

function stroke(context, canvas, slices, path, colour) {
  const [x, y] = [canvas.width / slices.width, canvas.height / slices.height];
  const scaled = new Path2D();
  scaled.addPath(path, new DOMMatrix([x, 0, 0, y, 0, 0]));
  const ratio = window.devicePixelRatio || 1;
  // A dark edge keeps the line legible on tissue of the same brightness.
  for (const [style, width] of [["rgb(0 0 0 / 55%)", 3.5 * ratio], [colour, 1.75 * ratio]]) {
    context.strokeStyle = style;
    context.lineWidth = width;
    context.lineCap = "square";
    context.stroke(scaled);
  }
}
