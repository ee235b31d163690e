// Attention as colours over an image.

// From low to high: red, green, blue, opacity.
const RAMP = [[32, 23, 79, 0.5], [176, 48, 111, 0.45], [255, 201, 60, 0.58]];

function colour(share) {
  const at = share * (RAMP.length - 1);
  const below = Math.min(Math.floor(at), RAMP.length - 2);
  const mix = (i) => RAMP[below][i] + (RAMP[below + 1][i] - RAMP[below][i]) * (at - below);
  return [mix(0), mix(1), mix(2), 255 * mix(3)];
}

// Paints attention over an image: a grid of blocks smoothly, single regions as their boxes.
export function draw(canvas, image, grid, boxes) {
  const values = grid.flat();
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const colours = values.map((value) => colour(high > low ? (value - low) / (high - low) : 0));
  canvas.width = Math.max(1, image.clientWidth * devicePixelRatio);
  canvas.height = Math.max(1, image.clientHeight * devicePixelRatio);
  const context = canvas.getContext("2d");
  if (grid.length > 1) {
    const cells = new ImageData(Uint8ClampedArray.from(colours.flat()), grid[0].length);
    const small = new OffscreenCanvas(cells.width, cells.height);
    small.getContext("2d").putImageData(cells, 0, 0);
    context.imageSmoothingQuality = "high";
    context.drawImage(small, 0, 0, canvas.width, canvas.height);
    return;
  }
  context.scale(canvas.width, canvas.height);
  boxes.forEach(([x0, y0, x1, y1], i) => {
    const [red, green, blue, alpha] = colours[i];
    context.fillStyle = `rgb(${red} ${green} ${blue} / ${alpha / 255})`;
    context.fillRect(x0, y0, x1 - x0, y1 - y0);
  });
}

// Where the grid is highest, in words.
export function where(grid, boxes) {
  const values = grid.flat();
  const [x0, y0, x1, y1] = boxes[values.indexOf(Math.max(...values))];
  const third = (middle, names) => names[Math.min(2, Math.floor(3 * middle))];
  const row = third((y0 + y1) / 2, ["at the top", "in the middle", "at the bottom"]);
  return `${row}, ${third((x0 + x1) / 2, ["left", "centre", "right"])}`;
}
