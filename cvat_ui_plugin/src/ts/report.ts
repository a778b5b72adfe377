// SPDX-License-Identifier: MIT
// What the user is told at the end of a run.

import { LeftOut } from './objects';
import { Run } from './track';

export interface Report {
    kind: 'success' | 'warning' | 'info';
    title: string;
    lines: string[];
}

const LISTED = 5;

function counted(count: number, noun: string): string {
    return `${count} ${noun}${count === 1 ? '' : 's'}`;
}

function listed(items: string[]): string {
    const more = items.length - LISTED;
    return items.slice(0, LISTED).join('; ') + (more > 0 ? `; and ${more} more` : '');
}

export function reportOf(
    run: Run,
    start: number,
    leftOut: LeftOut[],
    replaced: number,
    hint: string | null,
): Report {
    const { objects, stop } = run;
    const frames = [
        ...new Set(objects.flatMap(({ results }) => results.map(({ frame }) => frame))),
    ];
    const tracked = objects.filter(({ results }) => results.length);
    const lines: string[] = [];
    const range = frames.length ? ` (${Math.min(...frames)} to ${Math.max(...frames)})` : '';
    lines.push(
        `${counted(tracked.length, 'object')} tracked over ` +
            `${counted(frames.length, 'frame')}${range}.`,
    );
    if (hint) lines.push(hint);

    if (stop) {
        lines.push(
            stop.cancelled
                ? 'Cancelled: what was done is kept; Undo takes it back in one step.'
                : `Stopped at frame ${stop.frame}: ${stop.reason}`,
        );
        const last = frames.length
            ? frames.reduce((a, b) => (Math.abs(a - start) > Math.abs(b - start) ? a : b))
            : start;
        if (!stop.cancelled) lines.push(`To go on, open frame ${last} and run the action again.`);
    }

    const lost = tracked.flatMap(({ source, results }) => {
        const away = results.filter(({ points }) => points === null);
        return away.length
            ? [`${source.name} on ${counted(away.length, 'frame')}, first on ${away[0].frame}`]
            : [];
    });
    lines.push(lost.length ? `Not visible: ${listed(lost)}.` : 'No object was lost.');

    const failed = objects.flatMap(({ source, failure }) =>
        failure ? [`${source.name} at frame ${failure.frame}: ${failure.reason}`] : [],
    );
    if (failed.length) lines.push(`Given up: ${listed(failed)}.`);

    let lowest: { frame: number; score: number; name: string } | null = null;
    for (const { source, results } of tracked) {
        for (const { frame, score, points } of results) {
            if (points !== null && score !== null && score < (lowest?.score ?? Infinity)) {
                lowest = { frame, score, name: source.name };
            }
        }
    }
    if (lowest) {
        lines.push(
            `Lowest confidence: ${lowest.score.toFixed(2)}, ${lowest.name} on ` +
                `frame ${lowest.frame}. Look there first.`,
        );
    }
    if (replaced) lines.push(`Replaced ${counted(replaced, 'shape')} of an earlier run.`);
    if (leftOut.length) {
        lines.push(
            `Left alone: ${listed(leftOut.map(({ name, reason }) => `${name} (${reason})`))}.`,
        );
    }

    const title =
        (stop?.cancelled && 'Tracking was cancelled') ||
        (stop && 'Tracking stopped early') ||
        (failed.length && 'Tracking ended with warnings') ||
        'Tracking is done';
    return { kind: stop || failed.length ? 'warning' : 'success', title, lines };
}
