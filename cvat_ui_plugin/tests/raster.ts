// SPDX-License-Identifier: MIT
// Shapes as pixels, to compare them with the clip's own masks.

/** The pixels (row-major index) whose centres a shape covers. */
export function pixelsOf(
    type: string,
    points: number[],
    width: number,
    height: number,
): Set<number> {
    const pixels = new Set<number>();
    if (type === 'mask') {
        const [left, top, right] = points.slice(-4);
        let at = 0;
        points.slice(0, -4).forEach((run, index) => {
            for (let i = at; index % 2 === 1 && i < at + run; i += 1) {
                const rowLength = right - left + 1;
                pixels.add((top + Math.floor(i / rowLength)) * width + left + (i % rowLength));
            }
            at += run;
        });
        return pixels;
    }
    const [left, top, right, bottom] = points;
    const box = [left, top, right, top, right, bottom, left, bottom];
    const ring = type === 'rectangle' ? box : points;
    for (let y = 0; y < height; y += 1) {
        const crossings: number[] = [];
        for (let i = 0; i < ring.length; i += 2) {
            const [x0, y0] = [ring[i], ring[i + 1]];
            const [x1, y1] = [ring[(i + 2) % ring.length], ring[(i + 3) % ring.length]];
            if (y0 <= y + 0.5 !== y1 <= y + 0.5)
                crossings.push(x0 + ((y + 0.5 - y0) / (y1 - y0)) * (x1 - x0));
        }
        crossings.sort((a, b) => a - b);
        for (let i = 0; i + 1 < crossings.length; i += 2) {
            const first = Math.max(0, Math.ceil(crossings[i] - 0.5));
            const end = Math.min(width, crossings[i + 1] - 0.5);
            for (let x = first; x < end; x += 1) pixels.add(y * width + x);
        }
    }
    return pixels;
}

export function iou(a: Set<number>, b: Set<number>): number {
    let shared = 0;
    a.forEach((pixel) => {
        shared += b.has(pixel) ? 1 : 0;
    });
    return a.size + b.size === 0 ? 1 : shared / (a.size + b.size - shared);
}

/** The smallest box around pixels, as a set of pixels. */
export function boxOf(pixels: Set<number>, width: number): Set<number> {
    const xs = [...pixels].map((pixel) => pixel % width);
    const ys = [...pixels].map((pixel) => Math.floor(pixel / width));
    const box = new Set<number>();
    for (let y = Math.min(...ys); y <= Math.max(...ys); y += 1) {
        for (let x = Math.min(...xs); x <= Math.max(...xs); x += 1) box.add(y * width + x);
    }
    return box;
}
