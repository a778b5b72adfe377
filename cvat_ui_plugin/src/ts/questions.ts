// SPDX-License-Identifier: MIT
// What a run asks before it begins: what earlier results, drawings and deleted keyframes mean.

import { RunContext } from './context';
import { SerializedShape } from './cvat';
import { Look, takeOwn } from './earlier';
import { firstFrames, framesWithin, Route } from './frames';
import { addTo } from './groups';
import { drawnOnTheWay, onlyOnes } from './holes';
import { Source } from './objects';
import { endsOf, removedKeyframes } from './removed';
import { listed } from './report';

/** Whether shapes that only seem to be earlier results of these objects are replaced. */
export function askAboutClaimed(
    context: RunContext,
    sources: Source[],
    route: Route,
): Promise<boolean> {
    const listOf = (some: Source[]): string =>
        listed(some.map(({ name, claimed }) => `${name}: ${claimed.length}`));
    const linked = sources.filter(({ inHole }) => !inHole);
    const inHole = sources.filter((source) => source.inHole);
    const from = onFrom(context.look(route));
    const start = context.start.number;
    const text = [
        linked.length &&
            'Automatic shapes on the frames of this run seem to belong to these objects, ' +
                `but do not say so (${listOf(linked)}).`,
        inHole.length === 1 &&
            `The object with results from frame ${from} has no shape on frame ${start}: is ` +
                `the drawing this object (${listOf(inHole)})?`,
        inHole.length > 1 &&
            `Objects with results from frame ${from} have no shape on frame ${start}: are ` +
                `the drawings these objects (${listOf(inHole)})?`,
        'Kept, they lie beside the new results.',
    ];
    return context.page.ask({
        title: 'Replace the results of an earlier run?',
        text: text.filter(Boolean).join(' '),
        yes: 'Replace them',
        no: 'Keep them',
    });
}

/** Find out whether drawings that the run comes over are objects of the run. Then they stay, and the run goes
 * on from them. After a no the page does not ask about them again. */
export async function askAboutDrawings(
    context: RunContext,
    sources: Source[],
    shapes: SerializedShape[],
    { frames }: Route,
): Promise<void> {
    const order = frames.map(({ number }) => number);
    const found = new Map<number, SerializedShape[]>();
    const mayBe = drawnOnTheWay(shapes, order, context.numbersOf(shapes));
    for (const [shape, number] of onlyOnes(mayBe)) addTo(found, number, shape);
    const { numbers } = context.known;
    const meant = sources.flatMap((source) => {
        const number = source.mark?.number ?? 0;
        const drawings = source.shape ? (found.get(number) ?? []) : [];
        const own = drawings.filter(
            (drawing) => drawing.type === source.type && !numbers.isOther(drawing, number),
        );
        return own.length ? [{ source, number, own }] : [];
    });
    if (!meant.length) return;
    const list = meant.map(({ source, own }) => {
        const on = own.map(({ frame }) => frame);
        return `${source.name} on ${firstFrames(on.sort((a, b) => a - b))}`;
    });
    const areSame = await context.page.ask({
        title: 'Were these objects drawn anew?',
        text:
            'Objects of this run have no result on frames where a person drew a shape of the same ' +
            `kind (${listed(list)}). Your shapes stay as they are in any case. If they show the ` +
            'same objects, tracking goes on from them.',
        yes: 'The same objects',
        no: 'Other objects',
    });
    for (const { source, number, own } of meant) {
        if (areSame) takeOwn(source, own);
        else for (const drawing of own) numbers.keepOther(drawing, number);
    }
}

/** Find out which keyframes a person deleted on frames of the run, and whether they stay so. */
export async function findRemoved(
    context: RunContext,
    sources: Source[],
    route: Route,
): Promise<void> {
    // sparse keyframes are where the limit needs them
    if (context.chosen.settings.sparse !== null) return;
    const ends = endsOf(sources.flatMap(({ track: own }) => own?.shapes ?? []));
    const frames = await context.soon(
        framesWithin(context.job, ...ends),
        'list the frames of the job',
    );
    const ofRun = route.frames.map(({ number }) => number);
    for (const source of sources) {
        const removed = removedKeyframes(source.track?.shapes ?? [], frames);
        source.removed = new Set(ofRun.filter((frame) => removed.has(frame)));
    }
    const lacking = sources.filter(({ removed }) => removed.size);
    if (!lacking.length) return;
    const list = lacking.map(({ name, removed }) => `${name} on ${firstFrames([...removed])}`);
    const again = await context.page.ask({
        title: 'Write missing keyframes again?',
        text:
            'Keyframes of these tracks are missing on frames of this run, as if they had been ' +
            `deleted (${listed(list)}). Where they stay so, CVAT interpolates.`,
        yes: 'Write them again',
        no: 'Leave them out',
    });
    if (again) for (const source of lacking) source.removed = new Set();
}

/** The first frame of a run and its direction, as a message says it. */
export function onFrom({ start, order }: Look): string {
    return `${order[0]} ${order[0] < start ? 'back' : 'on'}`;
}
