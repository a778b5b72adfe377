// SPDX-License-Identifier: MIT
// Stands in for cvat-core as far as an annotation action can see it: the registry of actions, the
// two ways of running one, an annotation collection with its checks, undo and saving.
// It behaves as CVAT 2.73 does; none of it is CVAT's code.

import {
    ActionInput,
    ActionOutput,
    Attribute,
    Collection,
    CollectionAction,
    Core,
    Frame,
    Job,
    Label,
    Model,
    ObjectState,
    SerializedKeyframe,
    SerializedShape,
    SerializedTrack,
} from '../src/ts/cvat';
import { betweenKeyframes, rotationBetween } from '../src/ts/interpolation';

export class ServerError extends Error {
    public constructor(
        message: string,
        public readonly code: number,
    ) {
        super(message);
    }
}

export abstract class BaseCollectionAction {}

/** The way to CVAT's server: path and body in, status and parsed (or raw) body out. */
export type Transport = (
    method: string,
    path: string,
    body?: unknown,
) => Promise<{ status: number; body: unknown }>;

const COLORS = ['#ff3b6b', '#2f7bff', '#ffb000', '#b05cff', '#00c2d1'];

const FREE_FIELDS = ['color', 'lock', 'hidden'] as const;

interface Stored {
    clientID: number;
    kind: 'shape' | 'track';
    data: SerializedShape | SerializedTrack;
    removed: boolean;
    color: string;
    lock: boolean;
    hidden: boolean;
}

export interface Saved {
    created: (SerializedShape | SerializedTrack)[];
    updated: (SerializedShape | SerializedTrack)[];
    deleted: number[];
}

function copy<T>(value: T): T {
    return JSON.parse(JSON.stringify(value)) as T;
}

function fail(condition: boolean, message: string): void {
    if (condition) throw new Error(message);
}

/** The annotations of an open job. */
export class Annotations {
    private objects = new Map<number, Stored>();

    private history: { undo(): void; redo(): void }[] = [];

    private undone: { undo(): void; redo(): void }[] = [];

    private saved = new Map<number, string>();

    private lastID = 100;

    /** CVAT counts from 1 in every job that is opened. */
    private lastClientID = 0;

    public constructor(
        private readonly frames: Frame[],
        private readonly labels: Label[],
    ) {}

    private readonly byNumber = new Map<number, Frame>();

    private frame(number: number): Frame | undefined {
        if (!this.byNumber.size) {
            this.frames.forEach((frame) => this.byNumber.set(frame.number, frame));
        }
        return this.byNumber.get(number);
    }

    /** Build an object as cvat-core's constructors would, with everything that they trip over. */
    private build(kind: Stored['kind'], data: SerializedShape | SerializedTrack): Stored {
        const label = this.labels.find(({ id }) => id === data.label_id);
        fail(!label, `No label ${data.label_id}`);
        fail(!Number.isInteger(data.group), 'Group is not a number');
        fail(!Array.isArray(data.attributes), 'Attributes are not a list');
        const mutable = new Set(
            label!.attributes.filter((spec) => spec.mutable).map(({ id }) => id),
        );
        if (kind === 'track') {
            const track = data as SerializedTrack;
            fail(!track.shapes.length, 'A track without keyframes');
            fail(track.shapes[0].type === 'mask', 'An unexpected type of track "mask"');
            fail(
                new Set(track.shapes.map(({ frame }) => frame)).size !== track.shapes.length,
                'Two keyframes on one frame',
            );
            fail(
                Math.min(...track.shapes.map(({ frame }) => frame)) !== track.frame,
                'A track that does not start at its first keyframe',
            );
            fail(
                track.attributes.some(({ spec_id }) => mutable.has(spec_id)),
                'A mutable attribute on a track',
            );
            for (const shape of track.shapes) {
                this.checkPoints(shape);
                fail(shape.type !== track.shapes[0].type, 'Keyframes of different types');
                fail(
                    shape.attributes.some(({ spec_id }) => !mutable.has(spec_id)),
                    'An immutable attribute on a keyframe',
                );
            }
        } else {
            this.checkPoints(data as SerializedShape);
        }
        this.lastClientID += 1;
        const { clientID, ...rest } = copy(data);
        if (kind === 'shape') (rest as SerializedShape).score ??= 1;
        return {
            clientID: this.lastClientID,
            kind,
            data: rest as Stored['data'],
            removed: false,
            color: COLORS[this.lastClientID % COLORS.length],
            lock: false,
            hidden: false,
        };
    }

    private checkPoints(shape: SerializedShape | SerializedKeyframe): void {
        fail(!Array.isArray(shape.attributes), 'Attributes are not a list');
        const frame = this.frame(shape.frame);
        fail(!frame, `No frame ${shape.frame} in this job`);
        fail(
            shape.points.some((value) => typeof value !== 'number' || Number.isNaN(value)),
            'Points are not numbers',
        );
        if (shape.type === 'mask') {
            const [left, top, right, bottom] = shape.points.slice(-4);
            const runs = shape.points.slice(0, -4).reduce((sum, value) => sum + value, 0);
            fail(
                shape.points.length < 6 ||
                    right >= frame!.width ||
                    bottom >= frame!.height ||
                    runs !== (right - left + 1) * (bottom - top + 1),
                'A broken mask',
            );
        } else if (shape.type === 'polygon') {
            fail(shape.points.length < 6 || shape.points.length % 2 === 1, 'A broken polygon');
        } else if (shape.type === 'rectangle') {
            fail(shape.points.length !== 4, 'A broken rectangle');
        }
    }

    /** Load what is on the server (objects with ids) or was drawn by hand (without). */
    public import(collection: {
        shapes?: SerializedShape[];
        tracks?: SerializedTrack[];
    }): number[] {
        const stored = [
            ...(collection.shapes ?? []).map((shape) => this.build('shape', shape)),
            ...(collection.tracks ?? []).map((track) => this.build('track', track)),
        ];
        for (const object of stored) {
            this.objects.set(object.clientID, object);
            if (object.data.id !== undefined) {
                this.saved.set(object.data.id, JSON.stringify(object.data));
                this.lastID = Math.max(this.lastID, object.data.id);
            }
        }
        return stored.map(({ clientID }) => clientID);
    }

    public export(): Collection {
        const alive = [...this.objects.values()].filter(({ removed }) => !removed);
        const out = (kind: Stored['kind']): unknown[] =>
            alive
                .filter((object) => object.kind === kind)
                .map(({ data, clientID }) => ({ ...copy(data), clientID }));
        return {
            shapes: out('shape') as SerializedShape[],
            tags: [],
            tracks: out('track') as SerializedTrack[],
        };
    }

    public exportOne(clientID: number): SerializedShape | SerializedTrack {
        const { data } = this.objects.get(clientID)!;
        return { ...copy(data), clientID };
    }

    public set(
        clientID: number,
        change: Partial<Pick<Stored, 'lock' | 'hidden'>> &
            Partial<Pick<SerializedShape, 'points' | 'source' | 'label_id' | 'attributes'>> &
            Partial<Pick<SerializedTrack, 'shapes'>>,
    ): void {
        const { lock, hidden, ...data } = change;
        const object = this.objects.get(clientID)!;
        if (lock !== undefined) object.lock = lock;
        if (hidden !== undefined) object.hidden = hidden;
        Object.assign(object.data, data);
    }

    /** Draw an object's outline anew on a frame, as the page saves such an edit. */
    public draw(clientID: number, frame: number, points: number[]): void {
        const { kind, data } = this.objects.get(clientID)!;
        if (kind === 'shape') {
            (data as SerializedShape).points = [...points];
        } else {
            const track = data as SerializedTrack;
            const old = track.shapes.find((keyframe) => keyframe.frame === frame);
            const held = [...track.shapes]
                .sort((a, b) => a.frame - b.frame)
                .filter((keyframe) => keyframe.frame <= frame)
                .at(-1)!;
            if (old) old.points = [...points];
            else {
                const { id, ...keyframe } = copy(held);
                track.shapes.push({ ...keyframe, frame, points: [...points], attributes: [] });
            }
        }
        if (data.source === 'auto') data.source = 'semi-auto';
    }

    /** Switch an object of a track off on a frame. */
    public hide(clientID: number, frame: number): void {
        const { data } = this.objects.get(clientID)!;
        const { points } = this.get(frame).find((state) => state.clientID === clientID)!;
        this.draw(clientID, frame, points as number[]);
        const { shapes } = data as SerializedTrack;
        shapes.find((keyframe) => keyframe.frame === frame)!.outside = true;
    }

    public remove(clientID: number): void {
        this.objects.get(clientID)!.removed = true;
    }

    /** CVAT's "Remove annotations": the clientIDs are given again. */
    public clear(): void {
        this.objects.clear();
        this.lastClientID = 0;
    }

    private stateOf(object: Stored, frame: number): (ObjectState & { color: string }) | null {
        const label = this.labels.find(({ id }) => id === object.data.label_id)!;
        const common = {
            clientID: object.clientID,
            parentID: null,
            objectType: object.kind,
            label,
            source: object.data.source,
            isGroundTruth: false,
            ...Object.fromEntries(FREE_FIELDS.map((field) => [field, object[field]])),
        } as Pick<Stored, 'color' | 'lock' | 'hidden'> &
            Pick<
                ObjectState,
                'clientID' | 'parentID' | 'objectType' | 'label' | 'source' | 'isGroundTruth'
            >;
        if (object.kind === 'shape') {
            const shape = object.data as SerializedShape;
            return shape.frame === frame
                ? {
                      ...common,
                      shapeType: shape.type,
                      points: [...shape.points],
                      rotation: shape.rotation,
                      occluded: shape.occluded,
                      outside: shape.outside,
                      zOrder: shape.z_order,
                  }
                : null;
        }
        const keyframes = (object.data as SerializedTrack).shapes
            .filter((shape) => !this.frame(shape.frame)?.deleted)
            .sort((a, b) => a.frame - b.frame);
        const previous = keyframes.filter((shape) => shape.frame <= frame).at(-1);
        if (!previous || (previous.outside && previous.frame !== frame)) return null;
        const next = keyframes.find((shape) => shape.frame > frame);
        let { points, rotation } = previous;
        if (next && previous.frame !== frame) {
            const share = (frame - previous.frame) / (next.frame - previous.frame);
            points = betweenKeyframes(previous.type, points, next.points)(share);
            rotation = rotationBetween(rotation, next.rotation, share);
        }
        return {
            ...common,
            shapeType: previous.type,
            points: [...points],
            rotation,
            occluded: previous.occluded,
            outside: previous.outside,
            zOrder: previous.z_order,
        };
    }

    public get(frame: number): (ObjectState & { color: string })[] {
        if (this.frame(frame)?.deleted) return [];
        return [...this.objects.values()]
            .filter(
                ({ removed, kind, data }) => !removed && (kind === 'track' || data.frame === frame),
            )
            .map((object) => this.stateOf(object, frame))
            .filter((state) => state !== null);
    }

    /** All or nothing, as one undo step; none where there is nothing to do. */
    public commit(created: Collection, deleted: Collection): void {
        const out = [...deleted.shapes, ...deleted.tracks].map(({ clientID }) =>
            clientID === undefined ? undefined : this.objects.get(clientID),
        );
        fail(
            out.some((object) => !object || object.removed),
            'Objects required to be deleted were not found in the collection',
        );
        const made = [
            ...created.shapes.map((shape) => this.build('shape', shape)),
            ...created.tracks.map((track) => this.build('track', track)),
        ];
        // cvat-core keeps the list of a mask that it is given, and cuts the box off it
        for (const { type, points } of created.shapes) if (type === 'mask') points.splice(-4);
        if (!out.length && !made.length) return;
        const redo = (): void => {
            out.forEach((object) => {
                object!.removed = true;
            });
            made.forEach((object) => {
                object.removed = false;
                this.objects.set(object.clientID, object);
            });
        };
        redo();
        this.undone = [];
        this.history.push({
            redo,
            undo: () => {
                out.forEach((object) => {
                    object!.removed = false;
                });
                made.forEach((object) => {
                    object.removed = true;
                });
            },
        });
    }

    public get undoSteps(): number {
        return this.history.length;
    }

    public undo(): void {
        const step = this.history.pop();
        step?.undo();
        if (step) this.undone.push(step);
    }

    public redo(): void {
        const step = this.undone.pop();
        step?.redo();
        if (step) this.history.push(step);
    }

    /** Send to the server what was created, changed and deleted since the last save. */
    public save(): Saved {
        const alive = [...this.objects.values()].filter(({ removed }) => !removed);
        const result: Saved = { created: [], updated: [], deleted: [] };
        const ids = alive.map(({ data }) => data.id).filter((id) => id !== undefined);
        fail(new Set(ids).size !== ids.length, 'Two objects with one id');
        for (const id of this.saved.keys()) {
            if (!ids.includes(id)) result.deleted.push(id);
        }
        result.deleted.forEach((id) => this.saved.delete(id));
        for (const { data } of alive) {
            if (data.id === undefined) {
                result.created.push(copy(data));
                this.lastID += 1;
                data.id = this.lastID;
            } else {
                fail(!this.saved.has(data.id), `No object ${data.id} on the server`);
                if (this.saved.get(data.id) !== JSON.stringify(data))
                    result.updated.push(copy(data));
            }
            this.saved.set(data.id, JSON.stringify(data));
        }
        return result;
    }
}

export interface StandInJob extends Omit<Job, 'annotations'> {
    annotations: Job['annotations'] & { store: Annotations };
}

/** What a plugin may put around a method of cvat-core. */
interface Wrapped {
    leave?: (plugin: unknown, result: unknown) => Promise<unknown>;
}

export function createJob({
    id = 42,
    taskId = 7,
    frames,
    labels,
}: {
    id?: number;
    taskId?: number;
    frames: Frame[];
    labels: Label[];
}): StandInJob {
    const store = new Annotations(frames, labels);
    return {
        id,
        taskId,
        startFrame: frames[0].number,
        stopFrame: frames[frames.length - 1].number,
        labels,
        frames: {
            frameNumbers: async () => frames.map(({ number }) => number),
            get: async (number) => {
                const frame = frames.find((candidate) => candidate.number === number);
                if (!frame) throw new Error(`The frame ${number} is out of the job`);
                return { ...frame };
            },
        },
        annotations: {
            get: async (frame) => store.get(frame),
            export: async () => store.export(),
            store,
        },
    };
}

type Progress = ActionInput['onProgress'];

export interface StandInCore extends Core {
    actions: Core['actions'] & {
        list(): Promise<CollectionAction[]>;
        /** On everything in the job (Ctrl+E with nothing active). */
        run(
            job: StandInJob,
            action: CollectionAction,
            parameters: Record<string, string>,
            frame: number,
            filter: (clientID: number) => boolean,
            onProgress: Progress,
            cancelled: () => boolean,
        ): Promise<void>;
        /** On chosen objects (the object's menu, or Ctrl+E over it). */
        call(
            job: StandInJob,
            action: CollectionAction,
            parameters: Record<string, string>,
            frame: number,
            states: ObjectState[],
            onProgress: Progress,
            cancelled: () => boolean,
        ): Promise<void>;
    };
}

function prepare(
    action: CollectionAction,
    given: Record<string, string>,
): Record<string, string | number> {
    return Object.fromEntries(
        Object.entries(action.parameters ?? {}).map(([name, { type, defaultValue }]) => {
            const value = name in given ? given[name] : defaultValue;
            return [name, type === 'number' ? +(value as string) : (value as string)];
        }),
    );
}

function checked(collection: Collection): Collection {
    const objects = [...collection.shapes, ...collection.tracks];
    fail(
        !Array.isArray(collection.tags) ||
            objects.some(({ clientID }) => typeof clientID !== 'number'),
        'ClientID is undefined when running annotations action, but required',
    );
    return collection;
}

export function createCore(transport: Transport): StandInCore {
    const actions: CollectionAction[] = [];
    const plugins: { cvat: { actions?: { list?: Wrapped } } }[] = [];

    const request = async (method: string, path: string, body?: unknown): Promise<unknown> => {
        let answer;
        try {
            answer = await transport(method, path, body);
        } catch (error) {
            throw new ServerError(`${(error as Error).message}.`, 0);
        }
        if (answer.status >= 400) {
            const { body: data } = answer;
            throw new ServerError(
                typeof data === 'string' ? data : JSON.stringify(data),
                answer.status,
            );
        }
        return answer.body;
    };

    const execute = async (
        job: StandInJob,
        action: CollectionAction,
        parameters: Record<string, string>,
        frame: number,
        whole: Collection,
        filter: (clientID: number) => boolean,
        onProgress: Progress,
        cancelled: () => boolean,
    ): Promise<void> => {
        try {
            await action.init(job, prepare(action, parameters));
            const { width, height, number } = await job.frames.get(frame);
            const frameData = { width, height, number };
            const passed = checked(action.applyFilter({ collection: whole, frameData }));
            const collection = {
                shapes: passed.shapes.filter(({ clientID }) => filter(clientID!)),
                tags: [],
                tracks: passed.tracks.filter(({ clientID }) => filter(clientID!)),
            };
            const { created, deleted }: ActionOutput = await action.run({
                collection,
                frameData,
                onProgress,
                cancelled,
            });
            job.annotations.store.commit(created, deleted);
        } finally {
            await action.destroy();
        }
    };

    return {
        classes: { BaseCollectionAction },
        actions: {
            list: async () => {
                let result: unknown = [...actions];
                for (const { cvat } of plugins) {
                    const { leave } = cvat.actions?.list ?? {};
                    if (leave) result = await leave(cvat, result);
                }
                return result as CollectionAction[];
            },
            register: async (action) => {
                fail(!(action instanceof BaseCollectionAction), 'Not an annotation action');
                fail(
                    actions.some(({ name }) => name === action.name),
                    'Action name must be unique',
                );
                actions.push(action);
            },
            unregister: async (action) => {
                actions.splice(actions.indexOf(action), 1);
            },
            run: (job, action, parameters, frame, filter, onProgress, cancelled) =>
                execute(
                    job,
                    action,
                    parameters,
                    frame,
                    job.annotations.store.export(),
                    filter,
                    onProgress,
                    cancelled,
                ),
            call: (job, action, parameters, frame, states, onProgress, cancelled) => {
                const exported = states.map(
                    (state) =>
                        [
                            state.objectType,
                            job.annotations.store.exportOne(state.clientID!),
                        ] as const,
                );
                const of = (kind: string): unknown[] =>
                    exported.filter(([type]) => type === kind).map(([, object]) => object);
                const collection: Collection = {
                    shapes: of('shape') as SerializedShape[],
                    tags: [],
                    tracks: of('track') as SerializedTrack[],
                };
                return execute(
                    job,
                    action,
                    parameters,
                    frame,
                    collection,
                    () => true,
                    onProgress,
                    cancelled,
                );
            },
        },
        plugins: {
            register: async (plugin) => {
                plugins.push(plugin as (typeof plugins)[number]);
            },
        },
        lambda: {
            list: async () => {
                const list = (await request('GET', '/api/lambda/functions')) as {
                    id: string;
                    name: string;
                    kind: string;
                    supported_shape_types?: string[];
                }[];
                const models: Model[] = list.map(
                    ({ id, name, kind, supported_shape_types: supportedShapeTypes }) => ({
                        id,
                        name,
                        kind,
                        supportedShapeTypes,
                    }),
                );
                return { models, count: models.length };
            },
            call: async (task, model, args) =>
                request('POST', `/api/lambda/functions/${model.id}`, { ...args, task }),
        },
    };
}

/** Shorthand for the objects of tests and of the page. */
export function shape(
    type: string,
    frame: number,
    points: number[],
    more: Partial<SerializedShape> = {},
): SerializedShape {
    return {
        type,
        frame,
        points,
        label_id: 1,
        group: 0,
        source: 'manual',
        occluded: false,
        outside: false,
        z_order: 0,
        rotation: 0,
        attributes: [] as Attribute[],
        elements: [],
        ...more,
    };
}
