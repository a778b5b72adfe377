// SPDX-License-Identifier: MIT
// The part of CVAT's plugin interface that this plugin uses, and no more.

export interface Attribute {
    spec_id: number;
    value: string;
}

/** A shape as cvat-core exports it and takes it back; `clientID` is its own, `id` the server's. */
export interface SerializedShape {
    type: string;
    frame: number;
    label_id: number;
    group: number;
    source: string;
    points: number[];
    occluded: boolean;
    outside: boolean;
    z_order: number;
    rotation: number;
    attributes: Attribute[];
    elements: unknown[];
    /** 0 to 1; 1 where nothing wrote it, missing in versions of CVAT before 2.56. */
    score?: number;
    id?: number;
    clientID?: number;
}

/** One keyframe of a track; `attributes` holds the mutable ones only. */
export interface SerializedKeyframe {
    type: string;
    frame: number;
    points: number[];
    occluded: boolean;
    outside: boolean;
    z_order: number;
    rotation: number;
    attributes: Attribute[];
    id?: number;
}

/** A track; `frame` is its first keyframe, `attributes` holds the immutable ones only. */
export interface SerializedTrack {
    label_id: number;
    frame: number;
    group: number;
    source: string;
    attributes: Attribute[];
    elements: unknown[];
    shapes: SerializedKeyframe[];
    id?: number;
    clientID?: number;
}

export interface Collection {
    shapes: SerializedShape[];
    tags: unknown[];
    tracks: SerializedTrack[];
}

export interface Label {
    id: number;
    name: string;
    attributes: { id: number; mutable: boolean }[];
}

/** An object as it stands on one frame (tracks interpolated). */
export interface ObjectState {
    readonly clientID: number | null;
    readonly parentID?: number | null;
    readonly objectType: string;
    readonly shapeType: string | null;
    readonly source?: string;
    readonly isGroundTruth?: boolean;
    label: Label;
    points: number[] | null;
    rotation: number | null;
    occluded: boolean;
    outside: boolean;
    hidden: boolean;
    lock: boolean;
    zOrder: number;
}

export interface Frame {
    number: number;
    width: number;
    height: number;
    deleted: boolean;
}

export interface Job {
    id: number;
    taskId: number;
    startFrame: number;
    stopFrame: number;
    labels: Label[];
    frames: {
        frameNumbers(): Promise<number[]>;
        get(frame: number): Promise<Frame>;
    };
    annotations: {
        get(frame: number, allTracks: boolean, filters: object[]): Promise<ObjectState[]>;
        /** Everything in the job, as CVAT saves it. */
        export(): Promise<Collection>;
    };
}

export interface Model {
    id: string | number;
    name: string;
    kind: string;
    supportedShapeTypes?: string[];
}

export interface ActionParameter {
    type: 'number' | 'checkbox' | 'select';
    values: string[] | ((context: { instance: Job }) => string[]);
    defaultValue: string | ((context: { instance: Job }) => string);
    /** Shown by CVAT 2.65 and later; 2.60 passes over it. */
    tooltip?: { type: string; content: string };
}

export interface ActionInput {
    collection: Collection;
    frameData: { width: number; height: number; number: number };
    onProgress(message: string, percent: number): void;
    cancelled(): boolean;
}

export interface ActionOutput {
    created: Collection;
    deleted: Collection;
}

export interface CollectionAction {
    readonly name: string;
    readonly parameters: Record<string, ActionParameter> | null;
    init(instance: Job, parameters: Record<string, string | number>): Promise<void>;
    applyFilter(input: Pick<ActionInput, 'collection' | 'frameData'>): Collection;
    run(input: ActionInput): Promise<ActionOutput>;
    isApplicableForObject(state: ObjectState): boolean;
    destroy(): Promise<void>;
}

export interface Core {
    classes: { BaseCollectionAction: abstract new () => object };
    actions: {
        register(action: CollectionAction): Promise<void>;
        unregister?(action: CollectionAction): Promise<void>;
    };
    plugins?: {
        /** Wraps methods of cvat-core by their path. */
        register(plugin: { name: string; description: string; cvat: object }): Promise<void>;
    };
    lambda: {
        list(): Promise<{ models: Model[]; count: number }>;
        call(taskID: number, model: Model, args: Record<string, unknown>): Promise<unknown>;
    };
}

export interface BuilderArguments {
    core: Core;
    dispatch(action: unknown): unknown;
    store: { getState(): unknown };
    actionCreators: {
        changeFrameAsync?(
            frame: number,
            fillBuffer?: boolean,
            frameStep?: number,
            forceUpdate?: boolean,
        ): unknown;
    };
}

export type ComponentBuilder = (args: BuilderArguments) => {
    name: string;
    destructor(): void;
};

export interface PluginWindow {
    cvatUI?: { registerComponent(builder: ComponentBuilder): void };
}
