// SPDX-License-Identifier: MIT
// One run of the action, from what the user has chosen to what CVAT is handed.

import { Beside, besideResults, passDrawn } from './beside';
import { coincidingOf } from './coinciding';
import {
    ActionInput,
    ActionOutput,
    Collection,
    Core,
    Frame,
    Job,
    Model,
    SerializedShape,
} from './cvat';
import { leftAsShapes, Look, recognise, replacedShapes, takeOwn } from './earlier';
import { clampTarget, firstFrames, framesWithin, Route, routeBetween, undeleted } from './frames';
import { withChanges } from './fresh';
import { addTo } from './groups';
import { drawnOnTheWay, onlyOnes } from './holes';
import { KnownNumbers } from './known';
import { Numbers } from './numbers';
import { ALL_BY_HAND, LeftOut, SHAPE_TYPES, shapesInTheWay, Source, sourcesOf } from './objects';
import { Page } from './page';
import { endsOf, removedKeyframes } from './removed';
import { adviceOf, listed, notAdded, Report, reportOf, Told } from './report';
import { outcomeOf } from './results';
import { findTracker } from './server';
import { Settings } from './settings';
import { drawnKeyframes, keyframesByHand } from './signature';
import { countedSparse, Sparse, sparseTracks } from './sparse';
import { Successors } from './successors';
import { takeClaimed } from './takeover';
import { track } from './track';
import { Run, Tracked } from './tracked';
import { AlreadyTold, Cancelled, JobClosed, within } from './waiting';

export const TARGET = 'Target frame';
export const CONVERT = 'Convert polygon shapes to tracks';
export const BACKWARDS = 'Track backwards';

/** How long CVAT's page may take to answer what it mostly knows, in milliseconds. */
const ANSWER_LIMIT_MS = 130_000;
/** CVAT draws progress at most every 100 ms; what follows may block the page for seconds. */
const DRAWN_MS = 150;
/** Frames that are looked at before the page may draw and Cancel is asked for. */
const LOOKED_AT_ONCE = 64;

/** What the user has chosen for a run. */
export interface Chosen {
    job: Job;
    target: unknown;
    convert: boolean;
    backwards: boolean;
    settings: Settings;
    /** What is left to do when CVAT has committed the run. */
    afterwards: (() => Promise<void>) | null;
}

/** What the runs of an open job know of earlier ones. */
export interface Known {
    numbers: KnownNumbers;
    successors: Successors;
}

/** What is tracked, over which frames, by whom. */
interface Plan {
    tracker: Model;
    sources: Source[];
    leftOut: LeftOut[];
    route: Route;
    /** All objects of the job, when the run began. */
    before: Collection;
}

/** What the job holds beside the results of a run, before they are added. */
interface Around {
    replaced: SerializedShape[];
    beside: Beside[];
    /** The clientIDs of all objects. */
    former: ReadonlySet<number | null>;
    /** All of the job. */
    shapes: SerializedShape[];
}

export class Running {
    private readonly job: Job;

    private readonly start: Frame;

    private readonly hints: string[] = [];

    private readonly warnings: string[] = [];

    public constructor(
        private readonly core: Core,
        private readonly page: Page,
        private readonly known: Known,
        private readonly chosen: Chosen,
        private readonly input: ActionInput,
        private readonly isLatest: () => boolean,
    ) {
        this.job = chosen.job;
        this.start = { ...input.frameData, deleted: false };
    }

    public async go(): Promise<ActionOutput> {
        const target = clampTarget(this.chosen.target, this.job);
        const asked = Number(this.chosen.target);
        if (asked !== target) {
            const why = Number.isNaN(asked)
                ? 'No frame was given'
                : `Frame ${asked} is not in this job`;
            this.hints.push(`${why}: ${target} was used.`);
        }
        if (target === this.start.number) {
            this.page.tell(
                {
                    kind: 'info',
                    title: 'Nothing to track',
                    lines: [...this.hints, 'The target frame is the current frame.'],
                    jumps: [],
                },
                this.job,
            );
            throw new AlreadyTold();
        }
        checkDirection(this.start.number, target, this.chosen.backwards);
        const plan = await this.plan(target);
        const run = await this.track(plan);
        const sparse = await this.choose(run, plan);
        this.input.onProgress('Every frame is tracked. Adding the results to the page', 99);
        await this.page.sleep(DRAWN_MS);
        this.checkOpen();
        return this.finish(plan, run, sparse);
    }

    private checkOpen(): void {
        if (!this.isLatest() || !this.page.isOpen(this.job)) throw new JobClosed();
    }

    private readonly mayGoOn = (): void => {
        this.checkOpen();
        if (this.input.cancelled()) throw new Cancelled();
    };

    /** What the page answers soon; where it does not, Cancel works, and the wait ends. */
    private soon<T>(promise: Promise<T>, what: string): Promise<T> {
        const late = (): Error => new Error(`CVAT did not ${what}. Try again in a minute.`);
        return within(promise, ANSWER_LIMIT_MS, this.mayGoOn, late);
    }

    private async plan(target: number): Promise<Plan> {
        const { job, start } = this;
        const { number } = start;
        if ((await this.soon(job.frames.get(number), 'open the frame')).deleted) {
            throw new Error(`Frame ${number} is deleted: start from another one.`);
        }
        this.input.onProgress('Looking for the function', 0);
        const tracker = await this.soon(findTracker(this.core), 'list its functions');
        const shown = 'give the annotations of the job';
        const states = await this.soon(job.annotations.get(number, false, []), shown);
        const before = await this.soon(job.annotations.export(), shown);
        const { sources: found, leftOut } = sourcesOf(
            this.known.successors.replace(this.input.collection, before),
            states,
            tracker.supportedShapeTypes ?? SHAPE_TYPES,
        );
        checkAny(found, leftOut, number);
        const keyframes = found.flatMap(
            ({ track: own }) => own?.shapes.map(({ frame }) => frame) ?? [],
        );
        const route = await this.soon(
            routeBetween(job, number, target, keyframes),
            'list the frames of the job',
        );
        if (!route.frames.length) {
            throw new Error(`All frames from ${number} to ${target} are deleted.`);
        }
        this.input.onProgress('Looking at the results of earlier runs', 0);
        await this.recognise(found, before, route);
        const reasonAgainst = ({ track: own, byHand, inTheWay }: Source): string | null => {
            if (inTheWay.length) return shapesInTheWay(inTheWay);
            const isDrawn = own && route.frames.every((frame) => byHand.has(frame.number));
            return isDrawn ? ALL_BY_HAND : null;
        };
        const sources = found.filter((source) => reasonAgainst(source) === null);
        for (const source of found) {
            const reason = reasonAgainst(source);
            if (reason !== null) leftOut.push({ name: source.name, reason });
        }
        checkAny(sources, leftOut, number);
        const claiming = sources.filter(({ claimed }) => claimed.length);
        if (claiming.length && (await this.askAbout(claiming, route))) {
            await takeClaimed(sources, before.shapes, this.look(route));
            for (const source of claiming) source.drawn = await this.undeleted(source.drawn);
        } else {
            for (const source of claiming) source.claimed = [];
        }
        await this.askAboutDrawings(sources, before.shapes, route);
        for (const source of sources) this.passRelabelled(source);
        this.mayGoOn();
        await this.findRemoved(sources, route);
        this.mayGoOn();
        return { tracker, sources, leftOut, route, before };
    }

    private undeleted(drawn: Source['drawn']): Promise<Source['drawn']> {
        return this.soon(undeleted(this.job, drawn), 'list the drawn frames');
    }

    /** What has to be known to tell whose a shape is. */
    private look({ frames, timeline }: Route): Look {
        const { job, page } = this;
        const start = this.start.number;
        const order = frames.map(({ number }) => number);
        const place = timeline.indexOf(start);
        const beside = [timeline[place - 1], timeline[place + 1]];
        let looked = 0;
        const pause = async (): Promise<void> => {
            looked += 1;
            if (looked % LOOKED_AT_ONCE) return;
            await page.breathe();
            this.mayGoOn();
        };
        return {
            start,
            order,
            pause,
            random: page.random,
            before: beside.find((frame) => frame !== order[0]),
            isLocked: isLockedIn(job),
            known: this.known.numbers,
        };
    }

    /** Find out what earlier runs and persons made of the sources, and write it into them. */
    private async recognise(sources: Source[], before: Collection, route: Route): Promise<void> {
        const { start } = this;
        const look = this.look(route);
        if (await recognise(sources, before, look)) {
            this.hints.push(
                `An object that has results on frame ${look.order[0]} has no shape on frame ` +
                    `${start.number}. If you drew it anew, delete its results from frame ` +
                    `${onFrom(look)}; if it is only hidden there, leave them.`,
            );
        }
        for (const source of sources) {
            if (source.track) {
                source.byHand = keyframesByHand(source.track, look.order, route.deleted);
                source.drawn = drawnKeyframes(source.track, start.number);
            }
            source.drawn = await this.undeleted(source.drawn);
        }
    }

    /** A track has one label: shapes to which a person gave another one are no part of it, and do not
     * stop it. A locked result counts as drawn, with any label. */
    private passRelabelled(source: Source): void {
        if (!this.becomesTrack(source)) return;
        const own = [...source.byHand].filter(
            ([, { shape }]) =>
                shape === null || shape.source === 'auto' || shape.label_id === source.labelID,
        );
        source.byHand = new Map(own);
    }

    /** Whether shapes that only seem to be earlier results of these objects are replaced. */
    private askAbout(sources: Source[], route: Route): Promise<boolean> {
        const listOf = (some: Source[]): string =>
            listed(some.map(({ name, claimed }) => `${name}: ${claimed.length}`));
        const linked = sources.filter(({ inHole }) => !inHole);
        const inHole = sources.filter((source) => source.inHole);
        const from = onFrom(this.look(route));
        const start = this.start.number;
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
        return this.page.ask({
            title: 'Replace the results of an earlier run?',
            text: text.filter(Boolean).join(' '),
            yes: 'Replace them',
            no: 'Keep them',
        });
    }

    /** Find out whether drawings that the run comes over are objects of the run. Then they stay, and the run goes
     * on from them. */
    private async askAboutDrawings(
        sources: Source[],
        shapes: SerializedShape[],
        { frames }: Route,
    ): Promise<void> {
        const order = frames.map(({ number }) => number);
        const numbers = new Numbers(shapes, this.known.numbers, this.start.number);
        const found = new Map<number, SerializedShape[]>();
        const mayBe = drawnOnTheWay(shapes, order, numbers);
        for (const [shape, number] of onlyOnes(mayBe)) addTo(found, number, shape);
        const meant = sources.flatMap((source) => {
            const drawings = source.shape ? (found.get(source.mark?.number ?? 0) ?? []) : [];
            const own = drawings.filter(({ type }) => type === source.type);
            return own.length ? [{ source, own }] : [];
        });
        if (!meant.length) return;
        const list = meant.map(({ source, own }) => {
            const on = own.map(({ frame }) => frame);
            return `${source.name} on ${firstFrames(on.sort((a, b) => a - b))}`;
        });
        const areSame = await this.page.ask({
            title: 'Were these objects drawn anew?',
            text:
                'Objects of this run have no result on frames where a person drew a shape of the same ' +
                `kind (${listed(list)}). Your shapes stay as they are in any case. If they show the ` +
                'same objects, tracking goes on from them.',
            yes: 'The same objects',
            no: 'Other objects',
        });
        if (areSame) for (const { source, own } of meant) takeOwn(source, own);
    }

    /** Find out which keyframes a person deleted on frames of the run, and whether they stay so. */
    private async findRemoved(sources: Source[], route: Route): Promise<void> {
        // sparse keyframes are where the limit needs them
        if (this.chosen.settings.sparse !== null) return;
        const ends = endsOf(sources.flatMap(({ track: own }) => own?.shapes ?? []));
        const frames = await this.soon(
            framesWithin(this.job, ...ends),
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
        const again = await this.page.ask({
            title: 'Write missing keyframes again?',
            text:
                'Keyframes of these tracks are missing on frames of this run, as if they had been ' +
                `deleted (${listed(list)}). Where they stay so, CVAT interpolates.`,
            yes: 'Write them again',
            no: 'Leave them out',
        });
        if (again) for (const source of lacking) source.removed = new Set();
    }

    private becomesTrack({ type, track: own }: Source): boolean {
        return own !== null || (this.chosen.convert && type === 'polygon');
    }

    private async track({ tracker, sources, route }: Plan): Promise<Run> {
        const { core, job, page } = this;
        const { settings } = this.chosen;
        const run = await track(sources, this.start, route.frames, route.steps, {
            call: (args) => core.lambda.call(job.taskId, tracker, { ...args, job: job.id }),
            functionID: tracker.id,
            memory: settings.memory,
            searchRegion: settings.searchRegion,
            bothWays: settings.bothWays,
            // sparse keyframes are made of exact outlines
            toleranceOf: (source) =>
                settings.sparse !== null && this.becomesTrack(source) ? 0 : settings.tolerance,
            mayGoOn: this.mayGoOn,
            onProgress: this.input.onProgress,
            sleep: page.sleep,
            now: page.now,
        });
        if (run.objects.every(({ results }) => !results.length) && !run.cancelled) {
            const failure = run.objects.find((object) => object.failure);
            const why = run.stop
                ? adviceOf(run, this.start.number, ({ source }) => source.name).join(' ')
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
    private async choose(run: Run, { before, route }: Plan): Promise<Map<Tracked, Sparse>> {
        const { page } = this;
        const { settings, convert } = this.chosen;
        if (settings.sparse === null) return new Map();
        this.passDrawn(run, before.shapes, route);
        let drawn = page.now();
        const pause = async (): Promise<void> => {
            this.checkOpen();
            // Cancel may have ended the tracking already: what was tracked is still to be written
            if (!run.cancelled) this.mayGoOn();
            if (page.now() - drawn < DRAWN_MS) return;
            await page.breathe();
            drawn = page.now();
        };
        this.input.onProgress('Every frame is tracked. Choosing keyframes', 99);
        try {
            const { labels } = this.job;
            const { start } = this;
            return await sparseTracks(
                settings.sparse,
                run.objects,
                start,
                route,
                labels,
                convert,
                pause,
                before.shapes,
            );
        } catch (error) {
            if (error instanceof JobClosed) throw error;
            // what was tracked must not be lost with it
            const why = error instanceof Cancelled ? 'Cancelled' : `Stopped (${String(error)})`;
            this.hints.push(`${why} while keyframes were chosen: tracks have one on every frame.`);
            return new Map();
        }
    }

    private passDrawn(run: Run, shapes: SerializedShape[], route: Route): Tracked[] {
        const numbers = new Numbers(shapes, this.known.numbers, this.start.number);
        return passDrawn(run.objects, shapes, this.look(route), numbers);
    }

    /** Bring the run up to what the job holds now; what stands around its results there. */
    private async around(run: Run, { before, route }: Plan): Promise<Around> {
        let now = before;
        try {
            now = await this.job.annotations.export();
            withChanges(run, before, now);
            for (const object of this.passDrawn(run, now.shapes, route)) object.changed = true;
            const replaced = replacedShapes(run.objects, now.shapes);
            const gone = new Set(replaced.map(({ clientID }) => clientID));
            const rest = now.shapes.filter((shape) => !gone.has(shape.clientID));
            const { tracks } = now;
            const order = route.frames.map(({ number }) => number);
            const numbers = new Numbers(now.shapes, this.known.numbers, this.start.number);
            const beside = besideResults(
                run.objects,
                { shapes: rest, tracks },
                this.start.number,
                numbers,
                drawnOnTheWay(now.shapes, order, numbers),
            );
            if (this.chosen.convert) this.tellLeft(run, now.shapes, numbers, route);
            return { replaced, beside, former: idsOf(now), shapes: now.shapes };
        } catch (error) {
            // what was tracked must not be lost with it
            this.warnings.push(
                `Results of earlier runs could not be looked at (${String(error)}): they ` +
                    'were kept. Undo takes this run back.',
            );
            return { replaced: [], beside: [], former: idsOf(now), shapes: [] };
        }
    }

    /** Say where objects that were converted stay shapes, unless the run only stopped early: then the
     * message says how to go on. */
    private tellLeft(
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
            this.hints.push(
                `${source.name} is a track now on the frames of this run, and stays a ` +
                    `polygon shape on ${left.length} other frames. To have one track, undo ` +
                    `this run, then convert from frame ${first} to frame ${last}.`,
            );
        }
    }

    private async finish(
        plan: Plan,
        run: Run,
        sparse: Map<Tracked, Sparse>,
    ): Promise<ActionOutput> {
        const { job, page, hints, warnings } = this;
        const { leftOut, route } = plan;
        const start = this.start.number;
        const { replaced, beside, former, shapes } = await this.around(run, plan);
        // what a person drew or changed is not what the keyframes were chosen for
        for (const object of run.objects) if (object.changed) sparse.delete(object);
        const outcome = outcomeOf(
            run.objects,
            this.start,
            route,
            job.labels,
            this.chosen.convert,
            sparse,
            replaced,
            shapes,
        );
        const { created, deleted } = outcome;
        const hasChanged = [created, deleted].some((one) => one.shapes.length + one.tracks.length);
        // CVAT commits after this returns and calls destroy() last: look at the result then
        this.chosen.afterwards = async () => {
            const told = {
                run,
                start,
                hasChanged,
                leftOut,
                replaced: replaced.length,
                beside,
                thinned: countedSparse(sparse),
                hints,
                warnings,
                coinciding: await coincidingOf(run.objects, start, page.breathe),
            };
            page.tell(await this.reportAfter(told, outcome, former), job);
            // once Cancel is pressed, also while this was worked out, CVAT does not draw again
            if (this.input.cancelled()) page.refresh(job, start);
        };
        return outcome;
    }

    /** Keep the numbers of objects that are tracks now, for shapes of theirs are left on other frames,
     * and those that were taken over. */
    private keepNumbers({ objects }: Run, { deleted }: ActionOutput): void {
        const { numbers, successors } = this.known;
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
    private async reportAfter(
        told: Omit<Told, 'nameOn'>,
        outcome: ActionOutput,
        former: Around['former'],
    ): Promise<Report> {
        const { successors } = this.known;
        try {
            const nameOn = await successors.learn(this.job, told.start, told.run, outcome, former);
            if (nameOn) this.keepNumbers(told.run, outcome);
            return nameOn ? await reportOf({ ...told, nameOn }) : notAdded();
        } catch (error) {
            const unseen =
                `CVAT did not show the results (${String(error)}): look whether they are there ` +
                'before you run the action again.';
            const nameOn = async ({ source }: Tracked): Promise<string> => source.name;
            return reportOf({ ...told, nameOn, warnings: [unseen, ...told.warnings] });
        }
    }
}

/** The clientIDs of all objects of a job. */
function idsOf({ shapes, tracks }: Collection): ReadonlySet<number | null> {
    return new Set([...shapes, ...tracks].map(({ clientID }) => clientID ?? null));
}

/** Say why there is nothing to track, where that is so. */
function checkAny(sources: Source[], leftOut: LeftOut[], frame: number): void {
    if (sources.length) return;
    const why = listed(leftOut.map(({ name, reason }) => `${name}: ${reason}`));
    throw new Error(
        `There is no mask, polygon or rectangle to track on frame ${frame}${why ? ` (${why})` : ''}.`,
    );
}

/** The first frame of a run and its direction, as a message says it. */
function onFrom({ start, order }: Look): string {
    return `${order[0]} ${order[0] < start ? 'back' : 'on'}`;
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

/** Looks up locks, which the page alone knows, one frame at a time. */
function isLockedIn(job: Job): (shape: SerializedShape) => Promise<boolean> {
    let known: { frame: number; locked: Set<number | null> } | null = null;
    return async ({ frame, clientID }) => {
        if (known?.frame !== frame) {
            const states = await job.annotations.get(frame, false, []);
            const locked = states.filter(({ lock }) => lock).map((state) => state.clientID);
            known = { frame, locked: new Set(locked) };
        }
        return known.locked.has(clientID ?? null);
    };
}
