// SPDX-License-Identifier: MIT
// Bounding boxes of shapes and how much they overlap.

/** Left, top, right, bottom in continuous image coordinates. */
export type Box = readonly [left: number, top: number, right: number, bottom: number];

export function boxOf(type: string, points: readonly number[]): Box {
    if (type === 'mask') {
        const [left, top, right, bottom] = points.slice(-4);
        return [left, top, right + 1, bottom + 1];
    }
    let [left, top, right, bottom] = [Infinity, Infinity, -Infinity, -Infinity];
    for (let i = 0; i + 1 < points.length; i += 2) {
        left = Math.min(left, points[i]);
        top = Math.min(top, points[i + 1]);
        right = Math.max(right, points[i]);
        bottom = Math.max(bottom, points[i + 1]);
    }
    return [left, top, right, bottom];
}

/** The points of a shape; of a rotated rectangle those of the box around it, for the function takes
 * upright ones only. */
export function uprightOf({
    type,
    points,
    rotation,
}: {
    type: string;
    points: number[];
    rotation?: number;
}): number[] {
    if (type !== 'rectangle' || !rotation) return points;
    const [left, top, right, bottom] = points;
    const turn = (rotation * Math.PI) / 180;
    const [along, across] = [Math.abs(Math.cos(turn)) / 2, Math.abs(Math.sin(turn)) / 2];
    const [width, height] = [right - left, bottom - top];
    const [x, y] = [(left + right) / 2, (top + bottom) / 2];
    const [dx, dy] = [width * along + height * across, width * across + height * along];
    return [x - dx, y - dy, x + dx, y + dy];
}

/** The bounding box of a shape or keyframe, as it is turned. */
export function boxAround(shape: { type: string; points: number[]; rotation?: number }): Box {
    return boxOf(shape.type, uprightOf(shape));
}

function areaOf([left, top, right, bottom]: Box): number {
    return (right - left) * (bottom - top);
}

/** Shared area over the area of both, 0 to 1. */
export function iouOf(a: Box, b: Box): number {
    const width = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
    const height = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
    if (width <= 0 || height <= 0) return 0;
    const shared = width * height;
    return shared / (areaOf(a) + areaOf(b) - shared);
}
