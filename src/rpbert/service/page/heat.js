// Attention as colours over an image.

// From low to high: red, green, blue, opacity.
const RAMP = [[32, 23, 79, 0.58], [176, 48, 111, 0.48], [255, 201, 60, 0.55]];

function colour(share) {
  const at = share * (RAMP.length - 1);
  const below = Math.min(Math.floor(at), RAMP.length - 2);
  const mix = (i) => RAMP[below][i] + (RAMP[below + 1][i] - RAMP[below][i]) * (at - below);
  return [mix(0), mix(1), mix(2), 255 * mix(3)];
}

// Paints a grid of attention over an image, smoothly from block to block.
export function draw(canvas, image, grid, low, high) {
  const cells = new ImageData(grid[0].length, grid.length);
  grid.flat().forEach((value, i) => {
    cells.data.set(colour(high > low ? (value - low) / (high - low) : 0), 4 * i);
  });
  const small = new OffscreenCanvas(cells.width, cells.height);
  small.getContext("2d").putImageData(cells, 0, 0);
  canvas.width = Math.max(1, image.clientWidth * devicePixelRatio);
  canvas.height = Math.max(1, image.clientHeight * devicePixelRatio);
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
}

// Where the grid is highest, in words.
export function where(grid, high) {
  const row = grid.findIndex((line) => line.includes(high));
  const third = (i, count, names) => names[Math.floor((3 * i) / count)];
  const vertical = third(row, grid.length, ["at the top", "in the middle", "at the bottom"]);
  const column = grid[row].indexOf(high);
  return `${vertical}, ${third(column, grid[0].length, ["left", "centre", "right"])}`;
}
