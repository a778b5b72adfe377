// SPDX-License-Identifier: MIT
// Which keyframes of a track a person made: those that do not carry our signature, a checksum in
// the digits below a pixel. cvat_action/signature.py explains it and is the same rule;
// tests/action_cases/signatures.json holds both to it.

import { uprightOf } from './boxes';
import { SerializedKeyframe, SerializedTrack } from './cvat';
import { fnv1a32 } from './identity';
import { ByHand } from './objects';

const QUARTERS = 4;
/** Hundredths of a pixel in a step of the grid. */
const HUNDREDTHS = 25;

/** How many of `count` numbers carry a digit, and the bits of each digit. */
function carriersOf(count: number): [carriers: number, bits: number] {
    return count >= 12 ? [12, 2] : [Math.min(count, 8), 4];
}

/** To the nearest whole number, halves up. */
function rounded(value: number): number {
    return Math.floor(value + 0.5);
}

type Flags = Pick<SerializedKeyframe, 'type' | 'frame' | 'outside' | 'occluded' | 'z_order'>;

/** The digits that the carriers of a keyframe with these positions and flags have. */
function digitsOf(flags: Flags, quarters: number[]): number[] {
    const { type, frame, outside, occluded, z_order } = flags;
    const checksum = fnv1a32(
        `${type}:${frame}:${Number(outside)}:${Number(occluded)}:${z_order}:${quarters.join(',')}`,
    );
    const [carriers, bits] = carriersOf(quarters.length);
    return quarters.map((_, index) =>
        index < carriers ? (checksum >>> (bits * index)) & (2 ** bits - 1) : 0,
    );
}

/** Make a rectangle wide and high enough to have a pixel with any digits, in place. */
function widen(quarters: number[]): void {
    const least = QUARTERS + 1;
    for (const low of [0, 1]) {
        const high = low + 2;
        if (quarters[high] - quarters[low] < least) {
            quarters[low] = Math.max(quarters[high] - least, 0);
            quarters[high] = Math.max(quarters[high], quarters[low] + least);
        }
    }
}

/** The points of an automatic keyframe as they are written, signed and inside the image. */
export function signedPoints(
    flags: Flags,
    points: readonly number[],
    size: { width: number; height: number },
): number[] {
    const [carriers, bits] = carriersOf(points.length);
    const largestDigit = (2 ** bits - 1) / 100;
    const quarters = points.map((value, index) => {
        const side = index % 2 ? size.height : size.width;
        const most =
            index < carriers ? Math.floor((side - largestDigit) * QUARTERS) : side * QUARTERS;
        return Math.min(Math.max(rounded(value * QUARTERS), 0), most);
    });
    if (flags.type === 'rectangle') widen(quarters);
    const digits = digitsOf(flags, quarters);
    return quarters.map((value, index) => (value * HUNDREDTHS + digits[index]) / 100);
}

/** Whether a keyframe is automatic and untouched. */
export function isSigned(keyframe: SerializedKeyframe): boolean {
    const { points, rotation } = keyframe;
    if (rotation || points.length < 4) return false;
    const hundredths = points.map((value) => rounded(value * 100));
    const isOnGrid = (value: number, index: number): boolean =>
        Math.abs(value) < 1e9 && hundredths[index] / 100 === value;
    if (!points.every(isOnGrid)) return false;
    const quarters = hundredths.map((value) => Math.floor(value / HUNDREDTHS));
    const digits = digitsOf(keyframe, quarters);
    return hundredths.every(
        (value, index) => value - quarters[index] * HUNDREDTHS === digits[index],
    );
}

/** The keyframes that a person made (hand_made_frames in cvat_action/selection.py). A track without any
 * signature is all of one kind: an older version's result (source `auto`), or a person's. */
export function handmade({ source, shapes }: SerializedTrack): SerializedKeyframe[] {
    const unsigned = shapes.filter((keyframe) => !isSigned(keyframe));
    return source === 'auto' && unsigned.length === shapes.length ? [] : unsigned;
}

/** Where a person drew a track, on any frame but `start`, by frame. */
export function drawnKeyframes(track: SerializedTrack, start: number): Map<number, number[]> {
    return new Map(
        handmade(track)
            .filter(({ frame, outside }) => !outside && frame !== start)
            .map((keyframe) => [keyframe.frame, uprightOf(keyframe)]),
    );
}

/**
 * What a person made of a track on these frames. Where a keyframe hides the object, it holds up to
 * the next keyframe, as in CVAT. `deleted`: keyframes there do not count.
 */
export function keyframesByHand(
    track: SerializedTrack,
    frames: number[],
    deleted: ReadonlySet<number>,
): Map<number, ByHand> {
    const own = new Set(handmade(track));
    const keyframes = track.shapes
        .filter(({ frame }) => !deleted.has(frame))
        .sort((a, b) => a.frame - b.frame);
    const byHand = new Map<number, ByHand>();
    for (const keyframe of keyframes) {
        if (!own.has(keyframe) || keyframe.outside) continue;
        byHand.set(keyframe.frame, { points: uprightOf(keyframe), shape: null });
    }
    let next = 0;
    let isHidden = false;
    for (const frame of [...frames].sort((a, b) => a - b)) {
        for (; next < keyframes.length && keyframes[next].frame <= frame; next += 1) {
            isHidden = own.has(keyframes[next]) && keyframes[next].outside;
        }
        if (isHidden) byHand.set(frame, { points: null, shape: null });
    }
    return byHand;
}
