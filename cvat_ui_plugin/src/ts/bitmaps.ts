// SPDX-License-Identifier: MIT
// Polygons to pixels and back (sam2_tracker/shapes.py is the same rule). Pixel (x, y) covers
// [x, x+1] x [y, y+1]; a polygon runs along pixel edges and contains a pixel if it contains its
// centre.

export interface Bitmap {
    width: number;
    height: number;
    /** Row by row, 0 or 1. */
    pixels: Uint8Array;
}

/** What a polygon may cost: more crossings of edges with pixel rows are no outline of an object. */
const MAX_CROSSINGS = 1 << 22;

function clip(value: number, low: number, high: number): number {
    return Math.min(Math.max(value, low), high);
}

export function countOf({ pixels }: Bitmap): number {
    let count = 0;
    for (const pixel of pixels) count += pixel;
    return count;
}

/** Where the edges of a ring cross the middles of the rows of pixels from `top` to before `bottom`: row
 * and first column behind the edge, flat; null where that is too much. */
export function crossingsOf(ring: readonly number[], top: number, bottom: number): number[] | null {
    const crossings: number[] = [];
    let count = 0;
    for (let i = 0; i < ring.length; i += 2) {
        const next = (i + 2) % ring.length;
        // every edge points down, so that an edge of two polygons is rounded alike in both
        const [upper, lower] = ring[i + 1] > ring[next + 1] ? [next, i] : [i, next];
        const first = clip(Math.ceil(ring[upper + 1] - 0.5), top, bottom);
        const end = clip(Math.ceil(ring[lower + 1] - 0.5), top, bottom);
        count += end - first;
        if (count > MAX_CROSSINGS) return null;
        const [x0, y0] = [ring[upper], ring[upper + 1]];
        const [wide, high] = [ring[lower] - x0, ring[lower + 1] - y0];
        for (let row = first; row < end; row += 1) {
            const x = x0 + ((row + 0.5 - y0) / high) * wide;
            crossings.push(row, Math.ceil(x - 0.5));
        }
    }
    return crossings;
}

/** Fill a ring by the even-odd rule; null where no pixel is covered. Its x and y are 0 or more. */
export function polygonToBitmap(
    ring: readonly number[],
    width: number,
    height: number,
): Bitmap | null {
    const crossings = crossingsOf(ring, 0, height);
    if (!crossings) return null;
    const pixels = new Uint8Array(width * height);
    for (let i = 0; i < crossings.length; i += 2) {
        const column = Math.max(crossings[i + 1], 0);
        if (column < width) pixels[crossings[i] * width + column] ^= 1;
    }
    let count = 0;
    for (let row = 0; row < height; row += 1) {
        let inside = 0;
        for (let at = row * width; at < (row + 1) * width; at += 1) {
            inside ^= pixels[at];
            pixels[at] = inside;
            count += inside;
        }
    }
    return count ? { width, height, pixels } : null;
}

/** The pixel that begins the largest 8-connected component, and the component's pixels as 2. */
function markLargest({ width, height, pixels }: Bitmap): { first: number; marked: Uint8Array } {
    const component = new Int32Array(pixels.length);
    let [best, most, first, number] = [0, 0, 0, 0];
    const stack: number[] = [];
    for (let seed = 0; seed < pixels.length; seed += 1) {
        if (!pixels[seed] || component[seed]) continue;
        number += 1;
        component[seed] = number;
        stack.push(seed);
        let count = 0;
        while (stack.length) {
            const at = stack.pop()!;
            count += 1;
            const [x, y] = [at % width, Math.floor(at / width)];
            for (let v = Math.max(y - 1, 0); v <= Math.min(y + 1, height - 1); v += 1) {
                for (let u = Math.max(x - 1, 0); u <= Math.min(x + 1, width - 1); u += 1) {
                    const other = v * width + u;
                    if (pixels[other] && !component[other]) {
                        component[other] = number;
                        stack.push(other);
                    }
                }
            }
        }
        if (count > most) [best, most, first] = [number, count, seed];
    }
    return { first, marked: Uint8Array.from(component, (one) => Number(one === best)) };
}

const EAST = 0;
const STEPS = [
    [1, 0],
    [0, 1],
    [-1, 0],
    [0, -1],
];

/** The corners of the outer boundary of the largest component, along pixel edges, clockwise as seen
 * on the screen, from its topmost, then leftmost corner. Holes are filled. */
export function bitmapToRing(bitmap: Bitmap): number[] {
    const { width, height } = bitmap;
    const { first, marked } = markLargest(bitmap);
    const isSet = (x: number, y: number): boolean =>
        x >= 0 && y >= 0 && x < width && y < height && marked[y * width + x] === 1;
    const start = { x: first % width, y: Math.floor(first / width) };
    const ring = [start.x, start.y];
    let { x, y } = start;
    let way = EAST;
    for (;;) {
        x += STEPS[way][0];
        y += STEPS[way][1];
        // the pixels ahead, on the left and on the right hand; the component is on the right
        const [ahead, side] = [STEPS[way], STEPS[(way + 1) % 4]];
        const at = (right: number): boolean =>
            isSet(
                x + (ahead[0] + right * side[0] - 1) / 2,
                y + (ahead[1] + right * side[1] - 1) / 2,
            );
        const turn = at(-1) ? 3 : at(1) ? 0 : 1;
        way = (way + turn) % 4;
        if (x === start.x && y === start.y) return ring;
        if (turn) ring.push(x, y);
    }
}
