// SPDX-License-Identifier: MIT
// One run of the action, from what the user has chosen to what CVAT is handed.

import { Beside, besideResults, passDrawn } from './beside';
import { coincidingOf } from './coinciding';
import { RunContext } from './context';
import { ActionOutput, Collection, SerializedShape } from './cvat';
import { leftAsShapes, replacedShapes } from './earlier';
import { clampTarget, Route } from './frames';
import { withChanges } from './fresh';
import { addTo } from './groups';
import { drawnOnTheWay } from './holes';
import { Numbers } from './numbers';
import { Plan, planRun } from './plan';
import { endsOf } from './removed';
import { adviceOf, notAdded, Report, reportOf, Told } from './report';
import { outcomeOf } from './results';
import { countedSparse, Sparse, sparseTracks } from './sparse';
import { track } from './track';
import { Run, Tracked } from './tracked';
import { AlreadyTold, Cancelled, JobClosed } from './waiting';

export const TARGET = 'Target frame';
export const CONVERT = 'Convert polygon shapes to tracks';
export const BACKWARDS = 'Track backwards';

/** CVAT draws progress at most every 100 ms; what follows may block the page for seconds. */
const DRAWN_MS = 150;

/** What the job holds beside the results of a run, before they are added. */
interface Around {
    replaced: SerializedShape[];
    beside: Beside[];
    /** The clientIDs of all objects. */
    former: ReadonlySet<number | null>;
    /** All of the job. */
    shapes: SerializedShape[];
}

/** Track what the user has chosen; answers what CVAT has to create and delete. */
export async function runAction(context: RunContext): Promise<ActionOutput> {
    const { chosen, hints, input, job, page, start } = context;
    const target = clampTarget(chosen.target, job);
    const asked = Number(chosen.target);
    if (asked !== target) {
        const why = Number.isNaN(asked)
            ? 'No frame was given'
            : `Frame ${asked} is not in this job`;
        hints.push(`${why}: ${target} was used.`);
    }
    if (target === start.number) {
        page.tell(
            {
                kind: 'info',
                title: 'Nothing to track',
                lines: [...hints, 'The target frame is the current frame.'],
                jumps: [],
            },
            job,
        );
        throw new AlreadyTold();
    }
    checkDirection(start.number, target, chosen.backwards);
    const plan = await planRun(context, target);
    const run = await trackPlanned(context, plan);
    const sparse = await chooseKeyframes(context, run, plan);
    input.onProgress('Every frame is tracked. Adding the results to the page', 99);
    await page.sleep(DRAWN_MS);
    context.checkOpen();
    return finish(context, plan, run, sparse);
}

async function trackPlanned(context: RunContext, { tracker, sources, route }: Plan): Promise<Run> {
    const { core, job, page, start } = context;
    const { settings } = context.chosen;
    const run = await track(sources, start, route.frames, route.steps, {
        call: (args) => core.lambda.call(job.taskId, tracker, { ...args, job: job.id }),
        functionID: tracker.id,
        memory: settings.memory,
        searchRegion: settings.searchRegion,
        bothWays: settings.bothWays,
        // sparse keyframes are made of exact outlines
        toleranceOf: (source) =>
            settings.sparse !== null && context.becomesTrack(source) ? 0 : settings.tolerance,
        mayGoOn: context.mayGoOn,
        onProgress: context.input.onProgress,
        sleep: page.sleep,
        now: page.now,
    });
    if (run.objects.every(({ results }) => !results.length) && !run.cancelled) {
        const failure = run.objects.find((object) => object.failure);
        const why = run.stop
            ? adviceOf(run, start.number, ({ source }) => source.name).join(' ')
            : `${failure?.source.name}: ${failure?.failure?.reason}`;
        throw new Error(`Nothing was tracked. ${why}`);
    }
    for (const object of run.objects) {
        const { removed } = object.source;
        object.results = object.results.filter(({ frame }) => !removed.has(frame));
    }
    return run;
}

/** The keyframes of tracks that do not get one on every frame. */
async function chooseKeyframes(
    context: RunContext,
    run: Run,
    { before, route }: Plan,
): Promise<Map<Tracked, Sparse>> {
    const { page, start } = context;
    const { settings, convert } = context.chosen;
    if (settings.sparse === null) return new Map();
    passDrawnIn(context, run, before.shapes, route);
    let drawn = page.now();
    const pause = async (): Promise<void> => {
        context.checkOpen();
        // Cancel may have ended the tracking already: what was tracked is still to be written
        if (!run.cancelled) context.mayGoOn();
        if (page.now() - drawn < DRAWN_MS) return;
        await page.breathe();
        drawn = page.now();
    };
    context.input.onProgress('Every frame is tracked. Choosing keyframes', 99);
    try {
        return await sparseTracks(
            settings.sparse,
            run.objects,
            start,
            route,
            context.job.labels,
            convert,
            pause,
            before.shapes,
        );
    } catch (error) {
        if (error instanceof JobClosed) throw error;
        // what was tracked must not be lost with it
        const why = error instanceof Cancelled ? 'Cancelled' : `Stopped (${String(error)})`;
        context.hints.push(`${why} while keyframes were chosen: tracks have one on every frame.`);
        return new Map();
    }
}

function passDrawnIn(
    context: RunContext,
    run: Run,
    shapes: SerializedShape[],
    route: Route,
): Tracked[] {
    return passDrawn(run.objects, shapes, context.look(route), context.numbersOf(shapes));
}

/** Bring the run up to what the job holds now; what stands around its results there. */
async function around(context: RunContext, run: Run, { before, route }: Plan): Promise<Around> {
    const { start } = context;
    let now = before;
    try {
        now = await context.job.annotations.export();
        withChanges(run, before, now);
        for (const object of passDrawnIn(context, run, now.shapes, route)) object.changed = true;
        const replaced = replacedShapes(run.objects, now.shapes);
        const gone = new Set(replaced.map(({ clientID }) => clientID));
        const rest = now.shapes.filter((shape) => !gone.has(shape.clientID));
        const { tracks } = now;
        const order = route.frames.map(({ number }) => number);
        const numbers = context.numbersOf(now.shapes);
        const beside = besideResults(
            run.objects,
            { shapes: rest, tracks },
            start.number,
            numbers,
            drawnOnTheWay(now.shapes, order, numbers),
        );
        if (context.chosen.convert) tellLeft(context, run, now.shapes, numbers, route);
        return { replaced, beside, former: idsOf(now), shapes: now.shapes };
    } catch (error) {
        // what was tracked must not be lost with it
        context.warnings.push(
            `Results of earlier runs could not be looked at (${String(error)}): they ` +
                'were kept. Undo takes this run back.',
        );
        return { replaced: [], beside: [], former: idsOf(now), shapes: [] };
    }
}

/** Say where objects that were converted stay shapes, unless the run only stopped early: then the
 * message says how to go on. */
function tellLeft(
    { hints }: RunContext,
    { objects, stop, cancelled }: Run,
    shapes: SerializedShape[],
    numbers: Numbers,
    route: Route,
): void {
    const toCome = new Set(stop && !cancelled ? route.frames.map((f) => f.number) : []);
    const byNumber = new Map<number, SerializedShape[]>();
    for (const shape of shapes) {
        if (shape.type === 'polygon') addTo(byNumber, numbers.of(shape), shape);
    }
    for (const { source, results } of objects) {
        if (source.type !== 'polygon' || !source.shape) continue;
        const done = new Set(results.map(({ frame }) => frame));
        const left = leftAsShapes(source, done, byNumber);
        if (left.every((one) => one.source === 'auto' && toCome.has(one.frame))) continue;
        const [first, last] = endsOf([source.shape, ...results, ...left]);
        hints.push(
            `${source.name} is a track now on the frames of this run, and stays a ` +
                `polygon shape on ${left.length} other frames. To have one track, undo ` +
                `this run, then convert from frame ${first} to frame ${last}.`,
        );
    }
}

async function finish(
    context: RunContext,
    plan: Plan,
    run: Run,
    sparse: Map<Tracked, Sparse>,
): Promise<ActionOutput> {
    const { chosen, hints, input, job, page, start, warnings } = context;
    const { leftOut, route } = plan;
    const { replaced, beside, former, shapes } = await around(context, run, plan);
    // what a person drew or changed is not what the keyframes were chosen for
    for (const object of run.objects) if (object.changed) sparse.delete(object);
    const outcome = outcomeOf(
        run.objects,
        start,
        route,
        job.labels,
        chosen.convert,
        sparse,
        replaced,
        shapes,
    );
    const { created, deleted } = outcome;
    const hasChanged = [created, deleted].some((one) => one.shapes.length + one.tracks.length);
    // CVAT commits after this returns and calls destroy() last: look at the result then
    chosen.afterwards = async () => {
        const told = {
            run,
            start: start.number,
            hasChanged,
            leftOut,
            replaced: replaced.length,
            beside,
            thinned: countedSparse(sparse),
            hints,
            warnings,
            coinciding: await coincidingOf(run.objects, start.number, page.breathe),
        };
        page.tell(await reportAfter(context, told, outcome, former), job);
        // once Cancel is pressed, also while this was worked out, CVAT does not draw again
        if (input.cancelled()) page.refresh(job, start.number);
    };
    return outcome;
}

/** Keep the numbers of objects that are tracks now, for shapes of theirs are left on other frames,
 * and those that were taken over. */
function keepNumbers({ known }: RunContext, { objects }: Run, { deleted }: ActionOutput): void {
    const { numbers, successors } = known;
    const replaced = new Set(deleted.shapes.map(({ clientID }) => clientID));
    for (const { source } of objects.filter(({ results }) => results.length)) {
        const { mark, shape, type } = source;
        const clientID = successors.latest(source.clientID);
        if (!mark) continue;
        if (clientID !== source.clientID) numbers.keepTrack(clientID, type, mark.number);
        else if (shape) {
            const drawings = [...source.byHand.values()].map((byHand) => byHand.shape);
            for (const drawing of [shape, ...drawings]) {
                if (drawing) numbers.keepShape(drawing, mark.number, replaced);
            }
        }
    }
}

/** What the user is told when CVAT is done with the results: every run ends with a message. */
async function reportAfter(
    context: RunContext,
    told: Omit<Told, 'nameOn'>,
    outcome: ActionOutput,
    former: Around['former'],
): Promise<Report> {
    const { successors } = context.known;
    try {
        const nameOn = await successors.learn(context.job, told.start, told.run, outcome, former);
        if (nameOn) keepNumbers(context, told.run, outcome);
        return nameOn ? await reportOf({ ...told, nameOn }) : notAdded();
    } catch (error) {
        const unseen =
            `CVAT did not show the results (${String(error)}): look whether they are there ` +
            'before you run the action again.';
        const nameOn = async ({ source }: Tracked): Promise<string> => source.name;
        return reportOf({ ...told, nameOn, warnings: [unseen, ...told.warnings] });
    }
}

/** The clientIDs of all objects of a job. */
function idsOf({ shapes, tracks }: Collection): ReadonlySet<number | null> {
    return new Set([...shapes, ...tracks].map(({ clientID }) => clientID ?? null));
}

/** CVAT remembers the target frame: a run in the wrong direction would replace good results. */
function checkDirection(start: number, target: number, backwards: boolean): void {
    if (target < start && !backwards) {
        throw new Error(
            `The target frame ${target} is before the current frame ${start}. Choose a later ` +
                `target, or switch on "${BACKWARDS}".`,
        );
    }
    if (target > start && backwards) {
        throw new Error(
            `"${BACKWARDS}" is on, but the target frame ${target} is after the current frame ` +
                `${start}. Switch it off, or choose an earlier target.`,
        );
    }
}
