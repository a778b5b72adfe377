// SPDX-License-Identifier: MIT
// Frames between two drawn ones, tracked from both ends (cvat_action/both_ways.py is the same rule).

import { alignedPoints } from './rings';
import { FrameResult, Tracked } from './tracked';

/** A frame without a result is worse than any with one; a result without a score counts 0. */
function scoreOf(result: FrameResult | undefined): number {
    return result ? (result.score ?? 0) : -1;
}

/** How many frames of a gap keep their own result, so that the sum of the scores is largest when the rest
 * take those of the other end. Both lists have a score for each frame of the gap. */
export function keptOf(scores: number[], others: number[]): number {
    let [sum, best, kept] = [0, 0, 0];
    for (const [index, score] of scores.entries()) {
        sum += score - others[index];
        if (sum > best) [best, kept] = [sum, index + 1];
    }
    return kept;
}

/** Puts results that were tracked from the drawn frame behind them in the place of others where their
 * scores are better. The answer switches at most once between two drawn frames, so that it does not
 * flicker. `others`: those results, in any order. */
export function takeBetter({ source, results }: Tracked, others: FrameResult[]): void {
    const other = new Map(others.filter(({ byHand }) => !byHand).map((one) => [one.frame, one]));
    if (!other.size) return;
    let like = source.points;
    let gap: FrameResult[] = [];
    for (const result of results) {
        if (!result.byHand) gap.push(result);
        else if (result.points) {
            const scores = gap.map((own) => scoreOf(other.get(own.frame)));
            for (const own of gap.slice(keptOf(gap.map(scoreOf), scores))) {
                Object.assign(own, other.get(own.frame));
            }
            gap = [];
        }
    }
    if (source.type !== 'polygon') return;
    // polygons of the two ends may begin at different corners
    for (const result of results) {
        if (result.points && !result.byHand) result.points = alignedPoints(result.points, like);
        like = result.points ?? like;
    }
}
