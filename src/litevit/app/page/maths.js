// What is computed in the browser, without the page: colours, rows of attention, likeness, the chain of offsets.

const STOPS = {
  inferno: "000004 0b0724 210c4a 3d0965 57106e 71196e 8a226a a32c61 bc3754 d24644 e45a31 f1731d f98e09 fcac11 f9cb35 f2ea69 fcffa4",
  viridis: "440154 48186a 472d7b 424086 3b528b 33638d 2c728e 26828e 21918c 1fa088 28ae80 3fbc73 5ec962 84d44b addc30 d8e219 fde725",
};

// 256 colours of a map of Matplotlib's (CC0), 3 bytes each.
function ramp(stops) {
  const colours = stops.split(" ").map((hex) => [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16)));
  const out = new Uint8Array(768);
  for (let v = 0; v < 256; v++) {
    const at = (v / 255) * (colours.length - 1);
    const low = Math.min(Math.floor(at), colours.length - 2);
    for (let c = 0; c < 3; c++) out[3 * v + c] = Math.round(colours[low][c] + (at - low) * (colours[low + 1][c] - colours[low][c]));
  }
  return out;
}
export const RAMPS = Object.fromEntries(Object.entries(STOPS).map(([name, stops]) => [name, ramp(stops)]));

// Values as RGBA bytes of a colour map. Returns the range too: what is given of it, else that of the values.
export function paint(values, name, least, most) {
  let low = least ?? Infinity, high = most ?? -Infinity;
  if (least === undefined) for (const v of values) low = Math.min(low, v);
  if (most === undefined) for (const v of values) high = Math.max(high, v);
  const scale = high > low ? 255 / (high - low) : 0;
  const colours = RAMPS[name];
  const out = new Uint8ClampedArray(4 * values.length);
  for (let i = 0; i < values.length; i++) {
    const k = 3 * Math.min(Math.max(Math.round((values[i] - low) * scale), 0), 255);
    out[4 * i] = colours[k]; out[4 * i + 1] = colours[k + 1]; out[4 * i + 2] = colours[k + 2]; out[4 * i + 3] = 255;
  }
  return { pixels: out, low, high };
}

// Where one cell of the map looks: `{values, grid}` of a head, or the mean of all (head -1).
// branch: {heads, queries, keys, mapGrid, keyGrid, windows, token, rows, p, peak, cells}; see looks.py.
export function attentionRow(branch, cell, head) {
  const { heads, queries, keys } = branch;
  const row = branch.rows[cell];
  const sum = new Float32Array(keys);
  const chosen = head < 0 ? Array.from({ length: heads }, (_, h) => h) : [head];
  for (const h of chosen) {
    const at = h * queries + row;
    const scale = branch.peak[at] / 255 / chosen.length;
    const start = at * keys;
    for (let m = 0; m < keys; m++) sum[m] += branch.p[start + m] * scale;
  }
  if (!branch.windows) return { values: branch.token ? sum.subarray(1) : sum, grid: branch.keyGrid };
  const values = new Float32Array(branch.mapGrid[0] * branch.mapGrid[1]);
  for (let m = 0; m < keys; m++) {
    const there = branch.cells[row * keys + m];
    if (there >= 0) values[there] += sum[m];
  }
  return { values, grid: branch.mapGrid };
}

// The same from one row that the server has sent (attention_row in looks.py): already on its grid.
export function sentRow(branch, head) {
  const cells = branch.grid[0] * branch.grid[1];
  const values = new Float32Array(cells);
  const chosen = head < 0 ? Array.from({ length: branch.heads }, (_, h) => h) : [head];
  for (const h of chosen) {
    const scale = branch.peak[h] / 255 / chosen.length;
    for (let m = 0; m < cells; m++) values[m] += branch.p[h * cells + m] * scale;
  }
  return { values, grid: branch.grid };
}

// Cosine of one cell's features with all others. features: Int8Array (H, W, C).
export function likeness(features, cell) {
  const [H, W, C] = features.shape;
  const out = new Float32Array(H * W);
  const own = features.subarray(cell * C, cell * C + C);
  let norm = 0;
  for (let c = 0; c < C; c++) norm += own[c] * own[c];
  for (let i = 0; i < H * W; i++) {
    let dot = 0, square = 0;
    for (let c = 0, k = i * C; c < C; c++, k++) { const v = features[k]; dot += v * own[c]; square += v * v; }
    out[i] = dot / Math.max(Math.sqrt(norm * square), 1e-12);
  }
  return out;
}

// To the nearest whole number, halves to even, as NumPy rounds.
export function rint(x) {
  const low = Math.floor(x), rest = x - low;
  if (rest !== 0.5) return Math.round(x);
  return low % 2 === 0 ? low : low + 1;
}

// Points of the first map that a cell of the last was merged from (sampling_chain of litevit.explain).
// offsets: first to last merging, Float32Array (h, w, 8). Returns [row, column] pairs.
export function chain(offsets, row, column) {
  let points = [[row, column]];
  for (let level = offsets.length - 1; level >= 0; level--) {
    const [h, w] = offsets[level].shape;
    const next = [];
    for (const [y, x] of points) {
      const r = rint(y), c = rint(x);
      if (r < 0 || c < 0 || r >= h || c >= w) continue;
      for (let tap = 0; tap < 4; tap++) {
        const at = 8 * (r * w + c) + 2 * tap;
        next.push([2 * r + (tap >> 1) + offsets[level][at], 2 * c + (tap & 1) + offsets[level][at + 1]]);
      }
    }
    points = next;
  }
  return points;
}

// All cells of the last map: `density`, how many of their points lie in each of the H x W `cells` of the first map, and
// `means`, where the points of a cell lie on average (cells without points are left out).
export function allChains(offsets, [H, W]) {
  const [h, w] = offsets.at(-1).shape;
  const density = new Float32Array(H * W), means = [];
  for (let row = 0; row < h; row++) for (let column = 0; column < w; column++) {
    const points = chain(offsets, row, column);
    if (!points.length) continue;
    let y = 0, x = 0;
    for (const p of points) {
      y += p[0] / points.length;
      x += p[1] / points.length;
      const r = Math.floor(p[0] + 0.5), c = Math.floor(p[1] + 0.5);
      if (r >= 0 && c >= 0 && r < H && c < W) density[r * W + c]++;
    }
    means.push({ row, column, y, x });
  }
  return { density, means };
}

// A mask of bits, as np.packbits packs them, from `start` (in bytes). Returns the set pixels' test.
export function bitAt(bits, start, index) { return (bits[start + (index >> 3)] >> (7 - (index & 7))) & 1; }
